"""The crystals that are measured: pairs of a parquet file, and how far a structure is from them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Bool, Float
from scipy.linalg import polar

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.pair_file import collate, open_pairs
from deeprelax_ase.evaluation.metrics import MEASURED, Errors, compute_errors
from deeprelax_ase.evaluation.structure_match import matches
from deeprelax_ase.files.records import one_line
from deeprelax_ase.screening.inputs import ScreenInput
from deeprelax_ase.structures.ase_adapter import atoms_of
from deeprelax_ase.structures.read_structure import plain_crystal, plain_structure
from deeprelax_ase.structures.validation import check_input

T = TypeVar("T")
_VOIGT = [voigt_6_to_full_3x3_stress(row) for row in np.eye(6)]
"""Unit strains of the Voigt components xx, yy, zz, yz, xz, xy."""
_SOME = 1e-3
_IMAGES = np.array(list(product((-1, 0, 1), repeat=3)))


@dataclass(frozen=True)
class Case:
    """One pair of a file."""

    name: str
    pair: Pair
    atoms: Atoms

    @property
    def strains(self) -> tuple[bool, ...]:
        """Which components (Voigt) of the strain are free: none across vacuum, or where held."""
        freedom = self.pair.crystal.strain_freedom()
        return tuple(bool(np.linalg.norm(freedom @ np.ravel(unit)) > _SOME) for unit in _VOIGT)

    @property
    def target(self) -> Atoms:
        """The relaxed crystal."""
        return atoms_of(self.pair.relaxed)


def choose_cases(
    path: Path,
    limit: int | None,
    split: str = "val",
    *,
    sizes: tuple[int, int] = (1, 10**9),
    functional: str | None = None,
    strict: bool = False,
) -> list[Case]:
    """Evenly spaced pairs of a file whose numbers of atoms are within a range.

    Args:
        path: The file.
        limit: At most so many; all if None.
        split: `train`, `val` or `test`.
        sizes: Fewest and most atoms.
        functional: Of the targets; any if None.
        strict: Refuse a file with rows that cannot be used.

    Raises:
        ValueError: Not a file of pairs, or none of that split, size and functional.
    """
    file = open_pairs(path, split, strict=strict)
    fitting = np.flatnonzero((file.num_atoms >= sizes[0]) & (file.num_atoms <= sizes[1]))
    if functional is not None:
        fitting = np.array([k for k in fitting if file.functional(int(k)) == functional], int)
    if not len(fitting):
        of = "" if functional is None else f" relaxed with {functional}"
        msg = f"{path}: no crystal of {sizes[0]} to {sizes[1]} atoms{of} in the split {split!r}"
        raise ValueError(msg)
    return [
        Case(file.id(row), file[row], atoms_of(file[row].crystal))
        for row in spaced(fitting.tolist(), limit)
    ]


def find_cases(
    inputs: Sequence[str], limit: int | None, split: str, *, sizes: tuple[int, int] = (1, 10**9)
) -> list[Case]:
    """Evenly spaced pairs of one file, or structures of any files, folders and patterns.

    What cannot be read is left out, with a word. A structure by itself has no target.

    Raises:
        ValueError: There is no such input, or nothing in it that can be read.
    """
    if len(inputs) == 1 and _holds_pairs(Path(inputs[0])):
        return choose_cases(Path(inputs[0]), limit, split, sizes=sizes)
    cases = []
    for item in ScreenInput(inputs):
        try:
            cases += [_without_target(name, plain_structure(one)) for name, one in item.read()]
        except Exception as error:  # noqa: BLE001, PERF203 - the parsers raise all kinds
            print(f"left out: {item.id}: {one_line(error)}", file=sys.stderr)
    fitting = [case for case in cases if sizes[0] <= len(case.atoms) <= sizes[1]]
    if not fitting:
        msg = f"{', '.join(inputs)}: no structure of {sizes[0]} to {sizes[1]} atoms"
        raise ValueError(msg)
    return spaced(fitting, limit)


def _holds_pairs(path: Path) -> bool:
    return path.suffix == ".parquet" and "split" in pq.read_schema(path).names


def _without_target(name: str, structure: Any) -> Case:
    crystal = plain_crystal(structure)
    check_input(crystal.numbers, crystal.positions, crystal.cell, crystal.pbc)
    pair = Pair(crystal, "PBE", np.zeros_like(crystal.positions), np.eye(3))
    return Case(name, pair, atoms_of(crystal))


def spaced(things: Sequence[T], limit: int | None) -> list[T]:
    """At most so many of them, evenly spaced."""
    count = len(things) if limit is None else min(limit, len(things))
    return [things[k] for k in np.linspace(0, len(things) - 1, count).astype(int)]


def relaxed_atoms(
    pair: Pair, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
) -> Atoms:
    """The input of a pair, moved and deformed."""
    return atoms_of(replace(pair, displacements=displacements, deformation=deformation).relaxed)


Move = tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]
"""Displacements and deformation, in the conventions of `graph.py`."""


def still(case: Case) -> Move:
    """The move that leaves the input as it is."""
    return np.zeros_like(case.pair.displacements), np.eye(3)


def move_of(
    pair: Pair, positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"]
) -> Move:
    """What took the input of a pair to a structure; a rotation, a shift and images do not count."""
    crystal = pair.crystal
    _, deformation = polar(np.linalg.solve(crystal.cell, cell), side="left")
    before = crystal.positions @ np.linalg.inv(crystal.cell)
    moves = positions @ np.linalg.inv(cell) - before
    moves -= np.rint(moves)
    moves -= moves.mean(axis=0)
    return moves @ crystal.cell, deformation


@dataclass(frozen=True)
class Measured:
    """Errors of structures, crystal by crystal.

    Attributes:
        errors: The measures of `metrics.Errors`.
        minimum_image: Mean absolute Cartesian component of the difference to the nearest of the
            27 images of each relaxed site, Å.
        matched: Whether StructureMatcher at its defaults takes them for the same structure.
    """

    errors: Errors
    minimum_image: Float[np.ndarray, " crystals"]
    matched: Bool[np.ndarray, " crystals"]

    def measures(self) -> dict[str, Float[np.ndarray, " crystals"]]:
        """All of it but the matches, by name."""
        own = {field.name: getattr(self.errors, field.name) for field in fields(Errors)}
        return {"minimum_image": self.minimum_image, **own}


def measure(pairs: Sequence[Pair], moves: Sequence[Move]) -> Measured:
    """How far moved inputs are from the relaxed crystals."""
    graph, targets = collate(pairs, MEASURED)
    displacements = torch.from_numpy(np.concatenate([move[0] for move in moves]))
    deformations = torch.from_numpy(np.stack([move[1] for move in moves]))
    both = list(zip(pairs, moves, strict=True))
    return Measured(
        errors=compute_errors(graph, displacements, deformations, targets),
        minimum_image=np.array([_minimum_image(pair, *move) for pair, move in both]),
        matched=np.array([matches(pair, *move) for pair, move in both]),
    )


def _minimum_image(
    pair: Pair, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
) -> float:
    own = relaxed_atoms(pair, displacements, deformation)
    target = atoms_of(pair.relaxed)
    images = _IMAGES[np.abs(_IMAGES[:, ~pair.crystal.pbc]).sum(axis=1) == 0]
    apart = (target.positions - own.positions)[:, None, :] + images @ np.array(target.cell)
    nearest = np.linalg.norm(apart, axis=2).argmin(axis=1)
    return float(np.abs(apart[np.arange(len(apart)), nearest]).mean())
