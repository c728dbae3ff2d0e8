"""Search the pairs of atoms of a crystal that are near each other."""

from typing import NamedTuple

import numpy as np
from ase.geometry import minkowski_reduce
from jaxtyping import Bool, Float, Int
from pymatgen.optimization.neighbors import find_points_in_spheres

_SKEWED = 0.1
"""Volumes of cells that are less than this share of a box with the same edges are searched in
another cell."""


class Pairs(NamedTuple):
    """Pairs of atoms, each once.

    Attributes:
        first: Atom i.
        second: Atom j.
        offsets: Cells between them.
        vectors: From i to the image of j, Å.
        lengths: Å.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    offsets: Int[np.ndarray, "pairs 3"]
    vectors: Float[np.ndarray, "pairs 3"]
    lengths: Float[np.ndarray, " pairs"]


def find_pairs(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    cutoff: float,
) -> Pairs:
    """All pairs closer than the cutoff.

    Args:
        positions: Å.
        cell: Row vectors, Å.
        pbc: Which of them repeat.
        cutoff: Å.
    """
    atoms = np.ascontiguousarray(positions)
    searched, in_own = _compact(cell, pbc)
    first, second, offsets, lengths = find_points_in_spheres(
        atoms,
        atoms,
        r=cutoff,
        pbc=pbc.astype(np.int64),
        lattice=np.ascontiguousarray(searched),
    )
    # Of a pair and the same from its other end, one; of an atom and its images, half.
    kept = first < second
    own = np.flatnonzero(first == second)
    x, y, z = offsets[own].T
    kept[own[(x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))]] = True
    first, second = (ends[kept].astype(np.int64) for ends in (first, second))
    lengths, offsets = lengths[kept], np.rint(offsets[kept]).astype(np.int64)
    if in_own is not None:
        offsets = offsets @ in_own
    vectors = atoms[second] - atoms[first] + offsets @ cell
    return Pairs(first, second, offsets, vectors, lengths)


def _compact(
    cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3 3"], Int[np.ndarray, "3 3"] | None]:
    """Vectors of the same lattice between whose planes there is room, and these in the given ones.

    A search goes through all cells that a sphere reaches into, and of a skewed one these are many.
    None for the given ones themselves.
    """
    lengths = np.linalg.norm(cell, axis=1)
    if abs(np.linalg.det(cell)) > _SKEWED * lengths.prod():
        return cell, None
    return minkowski_reduce(cell, pbc)
