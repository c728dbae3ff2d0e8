"""Substitution pairs from relaxed crystals: one crystal's species on its neighbour's sites.

Two crystals are isostructural here if their space groups (of sheets: layer groups) are equal and
so are, species by species, the symmetries of the sites they occupy, and if the sites of one then
lie near those of the other. The input of a pair is the neighbour, at its own
volume, with the species of the target written onto its sites; the target is as it was relaxed.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import spglib
from pymatgen.core import Element

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.match_sites import make_pair
from deeprelax_ase.datasets.pair_file import EmptySplitError, PairFile
from deeprelax_ase.datasets.write_pairs import Row, reduced_composition
from deeprelax_ase.structures.crystal import Crystal

SYMPREC = 0.01
"""Tolerance of the symmetry search, Å."""
LARGEST_MEAN_DISPLACEMENT = 1.0
"""Pairs that move further in the mean (Å) are left out: sites were not matched well."""
LARGEST_STRETCH = 1.3
"""Cells whose shapes differ by more than this factor along an axis are not isostructural: the
length tolerance of pymatgen's StructureMatcher."""
_CANDIDATES = 64
_SPLITS = ("train", "val", "test")
_OTHER_ELEMENT = 0.5
_CHUNK = 256
_CENTRINGS = {
    "P": np.eye(3),
    "A": np.array([[1, 0, 0], [0, 0.5, -0.5], [0, 0.5, 0.5]]),
    "C": np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "R": np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3,
}


@dataclass(frozen=True)
class _Prototype:
    """A relaxed crystal in the standard primitive cell of its space group.

    Attributes:
        name: Of its row.
        split: Of its file.
        key: The same for crystals that are isostructural.
        slots: Its elements, sorted by the symmetries of their sites and electronegativity.
        crystal: In the standard primitive cell.
        functional: It was relaxed with.
    """

    name: str
    split: str
    key: str
    slots: tuple[int, ...]
    crystal: Crystal
    functional: str


def substitute(path: Path, neighbors: int = 1, seed: int = 0, workers: int = 1) -> Iterator[Row]:
    """Substitution pairs from a file of relaxed crystals.

    Each crystal is the target of up to so many pairs. The inputs are isostructural crystals of
    the `train` split alone, of another composition, the chemically nearest (by the number of
    elements that differ and their electronegativity) of a random sample. A pair belongs to the
    split of its target.

    Args:
        path: Parquet file of relaxed bulk crystals, or of sheets in the xy plane.
        neighbors: Pairs a target at most.
        seed: Of the random sample.
        workers: Processes.

    Raises:
        ValueError: No such file, or a file of pairs, or one of wires or molecules.
    """
    tasks = [
        (path, split, first) for split, count in _counts(path) for first in range(0, count, _CHUNK)
    ]
    with Pool(workers) as pool:
        groups: dict[str, list[_Prototype]] = defaultdict(list)
        for found in pool.imap(_standardise_chunk, tasks):
            for prototype in found:
                groups[prototype.key].append(prototype)
        jobs = (
            (group, neighbors, (seed, number))
            for number, group in enumerate(groups[key] for key in sorted(groups))
            if len(group) > 1
        )
        for rows in pool.imap(_pair_group, jobs, chunksize=8):
            yield from rows


def _counts(path: Path) -> Iterator[tuple[str, int]]:
    found = False
    for split in _SPLITS:
        try:
            file = PairFile(path, split)
        except EmptySplitError:
            continue
        if file.is_pairs:
            msg = f"{path} holds pairs: give a file of relaxed crystals, without relaxed_cell"
            raise ValueError(msg)
        found = True
        yield split, len(file)
    if not found:
        msg = f"{path}: no row of split train, val or test"
        raise ValueError(msg)


def _standardise_chunk(task: tuple[Path, str, int]) -> list[_Prototype]:
    path, split, first = task
    file = _open(path, split)
    found = []
    for number in range(first, min(first + _CHUNK, len(file))):
        pair = file[number]
        if pair.crystal.pbc.tolist() not in ([True] * 3, [True, True, False]):
            msg = (
                f"{path}: row {number} of {split} repeats along {pair.crystal.pbc.tolist()}: "
                "bulk crystals and sheets in the xy plane can be matched"
            )
            raise ValueError(msg)
        prototype = _standardise(pair, split, file.id(number))
        if prototype is not None:
            found.append(prototype)
    return found


@cache
def _open(path: Path, split: str) -> PairFile:
    """One reading of a file by every process."""
    return PairFile(path, split)


def _standardise(pair: Pair, split: str, name: str) -> _Prototype | None:
    """A crystal in its standard primitive cell; None where spglib finds no space group."""
    crystal = pair.crystal
    scaled = crystal.positions @ np.linalg.inv(crystal.cell)
    cell = (crystal.cell, scaled, crystal.numbers)
    if crystal.pbc.all():
        found = spglib.get_symmetry_dataset(cell, SYMPREC)
    else:
        found = spglib.get_symmetry_layerdataset(cell, aperiodic_dir=2, symprec=SYMPREC)
    if found is None:
        return None
    # One site of the conventional cell for each of the primitive one.
    _, firsts = np.unique(found.std_mapping_to_primitive, return_index=True)
    # Not the Wyckoff letters: they depend on the origin, which is spglib's choice.
    symmetries = dict(zip(found.mapping_to_primitive, found.site_symmetry_symbols, strict=True))
    numbers = found.std_types[firsts].astype(np.int64)
    occupied = {
        int(z): ",".join(sorted(symmetries[site] for site in np.flatnonzero(numbers == z)))
        for z in np.unique(numbers)
    }
    slots = sorted(occupied, key=lambda z: (occupied[z], _electronegativity(z)))
    centring = _CENTRINGS[found.international[0].upper()]
    standard = Crystal(
        numbers=numbers,
        positions=found.std_positions[firsts] @ found.std_lattice,
        cell=centring @ found.std_lattice,
        pbc=crystal.pbc,
    )
    kind = "space group" if crystal.pbc.all() else "layer group"
    key = f"{kind} {found.number} {' '.join(occupied[z] for z in slots)}"
    return _Prototype(name, split, key, tuple(slots), standard, pair.functional)


def _pair_group(job: tuple[list[_Prototype], int, tuple[int, int]]) -> list[Row]:
    """Pairs within one group of isostructural crystals."""
    group, neighbors, seed = job
    rng = np.random.default_rng(seed)
    sources = [prototype for prototype in group if prototype.split == "train"]
    rows = []
    for target in group:
        sample = rng.permutation(len(sources))[:_CANDIDATES]
        others = [sources[n] for n in sample if not _same_composition(sources[n], target)]
        others.sort(key=lambda source: _difference(source, target))
        made = 0
        for source in others[: 2 * neighbors]:
            row = _substituted(source, target)
            if row is not None:
                rows.append(row)
                made += 1
            if made == neighbors:
                break
    return rows


def _same_composition(first: _Prototype, second: _Prototype) -> bool:
    return reduced_composition(first.crystal.numbers) == reduced_composition(second.crystal.numbers)


def _substituted(source: _Prototype, target: _Prototype) -> Row | None:
    """The target's species on the source's sites; None if the sites cannot be matched."""
    replaced = dict(zip(source.slots, target.slots, strict=True))
    numbers = np.array([replaced[int(z)] for z in source.crystal.numbers])
    unrelaxed = replace(source.crystal, numbers=numbers)
    try:
        pair = make_pair(unrelaxed, target.crystal, target.functional)
    except ValueError:
        return None
    axes = int(pair.crystal.pbc.sum())  # a sheet lies in the xy plane now
    stretches = np.linalg.eigvalsh(pair.deformation[:axes, :axes])
    stretches /= stretches.prod() ** (1 / axes)
    is_sheared = stretches[0] < 1 / LARGEST_STRETCH or stretches[-1] > LARGEST_STRETCH
    moves = np.linalg.norm(pair.displacements, axis=1)
    if is_sheared or moves.mean() > LARGEST_MEAN_DISPLACEMENT:
        return None
    return Row(f"{target.name}<-{source.name}", "substitution", target.split, pair)


def _difference(source: _Prototype, target: _Prototype) -> float:
    """How different two crystals are chemically, slot by slot."""
    return sum(
        _OTHER_ELEMENT + abs(_electronegativity(a) - _electronegativity(b))
        for a, b in zip(source.slots, target.slots, strict=True)
        if a != b
    )


@cache
def _electronegativity(number: int) -> float:
    """Pauling's; where there is none, helium for one, zero."""
    value = Element.from_Z(number).X
    return 0.0 if np.isnan(value) else float(value)
