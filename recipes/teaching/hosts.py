"""Crystals to start from: relaxed ones of the training split, drawn by kind of chemistry."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from ase import Atoms
from jaxtyping import Float, Int

from deeprelax_ase.datasets.write_pairs import reduced_composition
from recipes.teaching.chemistry import (
    GASES,
    METALS,
    RADIOACTIVE,
    RARE,
    UnusableError,
    elements,
    needs_u,
)

BULK_FILES = ("relaxed.parquet", "relaxed_more.parquet")
SHEET_FILE = "relaxed_2d.parquet"
_COMMON_GROUPS = frozenset(
    (225, 229, 194, 221, 227, 216, 186, 136, 166, 164, 62, 141, 167, 139, 123)
)
_MADE_UP = "clam"
"""In the names of sheets that few people would make."""
_ELEMENTS = 120
_LARGEST_MISFIT = 0.5
"""Of the logarithm of a crystal's volume to that of its elements."""
_FIRST_MADE_UP = 60_000
_CATEGORY_SHARES = {
    "metal": 0.30,
    "oxide": 0.27,
    "chalcogenide": 0.17,
    "pnictide": 0.13,
    "halide": 0.08,
    "other": 0.05,
}


@dataclass(frozen=True)
class Host:
    """A relaxed crystal of a data file.

    Attributes:
        id: As in the file.
        functional: It was relaxed with.
        group: Number of its space or layer group.
        atoms: Its cell.
    """

    id: str
    functional: str
    group: int
    atoms: Atoms

    @property
    def numbers(self) -> Int[np.ndarray, " atoms"]:
        """Atomic numbers."""
        return self.atoms.numbers


@dataclass(frozen=True)
class Hosts:
    """Bulk crystals and sheets, and what must not be made of them.

    Attributes:
        bulk: Relaxed crystals.
        sheets: Relaxed sheets, the vacuum along the third vector.
        held_back: Reduced compositions of validation and test rows of all files.
    """

    bulk: Sequence[Host]
    sheets: Sequence[Host]
    held_back: frozenset[str]

    @cached_property
    def categories(
        self,
    ) -> dict[str, tuple[Int[np.ndarray, " hosts"], Float[np.ndarray, " hosts"]]]:
        """Of each kind of chemistry the hosts, and how likely each is drawn."""
        members: dict[str, list[int]] = {name: [] for name in _CATEGORY_SHARES}
        for index, host in enumerate(self.bulk):
            members[_category(host.numbers)].append(index)
        weights = np.array([_weight(host) for host in self.bulk])
        return {
            name: (np.array(rows), weights[rows] / weights[rows].sum())
            for name, rows in members.items()
            if rows
        }

    @cached_property
    def volumes(self) -> Float[np.ndarray, " elements"]:
        """Volume of an atom of each element, Å^3, fitted to the bulk crystals."""
        return _atomic_volumes(self.bulk)

    def draw(
        self,
        rng: np.random.Generator,
        largest: int = 30,
        with_u: bool | None = None,
        category: str | None = None,
    ) -> Host:
        """Draw a bulk crystal: a kind of chemistry first, small common cells more often.

        Args:
            rng: Random numbers.
            largest: Most atoms.
            with_u: Only those that are relaxed with a Hubbard U (True) or without (False).
            category: Kind of chemistry.
        """
        names = list(self.categories)
        shares = np.array([_CATEGORY_SHARES[name] for name in names])
        for _ in range(3000):
            name = category or str(rng.choice(names, p=shares / shares.sum()))
            rows, weights = self.categories[name]
            host = self.bulk[int(rng.choice(rows, p=weights))]
            if len(host.atoms) > largest:
                continue
            if with_u is None or needs_u(host.numbers) == with_u:
                return host
        msg = f"no host of at most {largest} atoms (category {category}, U {with_u})"
        raise UnusableError(msg)

    def draw_sheet(self, rng: np.random.Generator, largest: int = 12, mxenes: float = 0.1) -> Host:
        """Draw a sheet; those of the PBE file, all MXenes, with a probability of their own."""
        wants_mxene = rng.random() < mxenes
        while True:
            host = self.sheets[int(rng.integers(len(self.sheets)))]
            if len(host.atoms) > largest or (host.functional == "PBE") != wants_mxene:
                continue
            if set(host.numbers.tolist()) <= GASES:
                continue
            if rng.random() < (5 * _weight(host)) ** 0.5 * (0.4 if _MADE_UP in host.id else 1.0):
                return host

    def is_held_back(self, numbers: Int[np.ndarray, " atoms"]) -> bool:
        """Tell whether a composition is one of validation or test."""
        return reduced_composition(numbers) in self.held_back


def load_hosts(folder: Path) -> Hosts:
    """Read hosts of the training split, and all compositions that are held back.

    Args:
        folder: With the files of relaxed crystals and of pairs.
    """
    bulk = [host for name in BULK_FILES for host in _read(folder / name)]
    return Hosts(tuple(_dense(bulk)), tuple(_read(folder / SHEET_FILE)), load_held_back(folder))


def _atomic_volumes(hosts: Sequence[Host]) -> Float[np.ndarray, " elements"]:
    """Least squares with a weak prior of 16 Å^3, for elements that are rare or absent."""
    matrix = np.zeros((len(hosts), _ELEMENTS))
    for row, host in enumerate(hosts):
        np.add.at(matrix[row], host.numbers, 1 / len(host.numbers))
    volumes = [host.atoms.get_volume() / len(host.atoms) for host in hosts]
    prior = np.eye(_ELEMENTS) * 3.0**0.5
    target = np.append(volumes, np.full(_ELEMENTS, 16.0 * 3.0**0.5))
    fitted = np.linalg.lstsq(np.vstack([matrix, prior]), target, None)[0]
    return np.clip(fitted, 4.0, 80.0)


def _dense(hosts: Sequence[Host]) -> list[Host]:
    """Leave out what is no crystal but has a hole in it: some entries are molecules in a box."""
    volumes = _atomic_volumes(hosts)
    return [
        host
        for host in hosts
        if abs(np.log(host.atoms.get_volume() / volumes[host.numbers].sum())) < _LARGEST_MISFIT
    ]


def load_held_back(folder: Path) -> frozenset[str]:
    """Reduced compositions of all validation and test rows of a folder's files."""
    held_back: set[str] = set()
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["split", "numbers"])
        splits = table["split"].to_pylist()
        numbers = table["numbers"].to_pylist()
        held_back.update(
            reduced_composition(np.array(z))
            for split, z in zip(splits, numbers, strict=True)
            if split != "train"
        )
    return frozenset(held_back)


def _read(path: Path) -> list[Host]:
    table = pq.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    group = columns.get("spacegroup") or columns["layergroup"]
    pbc = columns.get("pbc") or [[True] * 3] * len(group)
    hosts = []
    for row, split in enumerate(columns["split"]):
        if split != "train":
            continue
        atoms = Atoms(
            numbers=columns["numbers"][row],
            cell=np.array(columns["cell"][row]).reshape(3, 3),
            positions=np.array(columns["positions"][row]).reshape(-1, 3),
            pbc=pbc[row],
        )
        hosts.append(Host(columns["id"][row], columns["functional"][row], int(group[row]), atoms))
    return hosts


def _category(numbers: Int[np.ndarray, " atoms"]) -> str:
    species = {int(z) for z in numbers}
    if species <= METALS:
        return "metal"
    if 8 in species:
        return "oxide"
    if species & elements("S Se Te"):
        return "chalcogenide"
    if species & elements("F Cl Br I"):
        return "halide"
    if species & elements("N P As Sb Bi C B Si Ge"):
        return "pnictide"
    return "other"


def _weight(host: Host) -> float:
    """How likely a host is drawn: small cells, common elements, well-known space groups."""
    species = {int(z) for z in host.numbers}
    weight = (4.0 / max(len(host.atoms), 4)) ** 1.0
    weight *= 0.25 ** len(species & RARE)
    weight *= 0.05 ** len(species & RADIOACTIVE)
    weight *= 2.0 if host.group in _COMMON_GROUPS else 1.0
    weight *= 4.0 if len(species) == 1 else (1.5 if len(species) == 2 else 1.0)
    weight *= 5.0 if _is_from_experiment(host.id) else 1.0
    return min(weight, 40.0) / 40.0


def _is_from_experiment(name: str) -> bool:
    """Guess: the Materials Project numbered crystals of the ICSD first, and made-up ones later."""
    prefix, _, number = name.partition("-")
    return prefix == "mp" and number.isdigit() and int(number) < _FIRST_MADE_UP
