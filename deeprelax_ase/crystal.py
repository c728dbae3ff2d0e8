"""The plain crystal that every other module computes with: numbers, positions, cell, pbc.

Nothing here knows ASE, pymatgen or torch; `structure.py` converts to and from those two.
"""

from dataclasses import dataclass

import numpy as np
import vesin
from jaxtyping import Bool, Float, Int

_SEARCH = 2.0


@dataclass(frozen=True)
class Crystal:
    """A crystal, sheet, wire or molecule.

    Attributes:
        numbers: Atomic numbers.
        positions: Cartesian, Å. Not necessarily wrapped into the cell.
        cell: Row vectors, Å; never singular, see `complete_cell`.
        pbc: Which rows of the cell the crystal repeats along. An axis of vacuum does not count.
    """

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, "3"]

    def __len__(self) -> int:
        return len(self.numbers)

    def strain_projector(self) -> Float[np.ndarray, "3 3"]:
        """Projector onto the space the periodic axes span: all of it, a plane, a line or nothing.

        A strain `s` is admissible if `projector @ s @ projector == s`.
        """
        if self.pbc.all():
            return np.eye(3)
        periodic = self.cell[self.pbc]
        return np.linalg.pinv(periodic) @ periodic


def relaxed_lengths(
    crystal: Crystal,
    edge_index: Int[np.ndarray, "2 bonds"],
    offsets: Int[np.ndarray, "bonds 3"],
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, " bonds"]:
    """Length (Å) of every bond once the atoms have moved and the cell is deformed."""
    i, j = edge_index
    places = crystal.positions + displacements
    vectors = places[j] + offsets @ crystal.cell - places[i]
    lengths: np.ndarray = np.linalg.norm(vectors @ deformation, axis=1)
    return lengths


def complete_cell(
    cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Replace zero vectors on non-periodic axes by unit vectors normal to the others."""
    cell = np.array(cell, dtype=float)
    missing = [axis for axis in range(3) if not pbc[axis] and not np.any(cell[axis])]
    for axis in missing:
        others = np.delete(cell, axis, axis=0)
        # The last right singular vector is normal to both rows, or to the one that is not zero.
        cell[axis] = np.linalg.svd(others)[2][-1]
        if np.linalg.det(cell) < 0:
            cell[axis] *= -1
    return cell


def nearest_pair(crystal: Crystal, cutoff: float) -> tuple[int, int, float] | None:
    """The two nearest atoms and their distance (Å), if that is less than the cutoff (Å)."""
    # A cell list of cells much smaller than an atom is slow.
    neighbors = vesin.NeighborList(cutoff=max(cutoff, _SEARCH), full_list=False)
    first, second, distances = neighbors.compute(
        points=crystal.positions,
        box=crystal.cell,
        periodic=crystal.pbc.tolist(),
        quantities="ijd",
    )
    if not len(first) or distances.min() >= cutoff:
        return None
    nearest = int(distances.argmin())
    return int(first[nearest]), int(second[nearest]), float(distances[nearest])


def exp_symmetric(matrices: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Exponential of symmetric matrices: the deformation of a strain."""
    values, axes = np.linalg.eigh(matrices)
    return (axes * np.exp(values)[..., None, :]) @ axes.swapaxes(-1, -2)


def log_symmetric(matrices: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Logarithm of symmetric positive definite matrices: the strain of a deformation."""
    values, axes = np.linalg.eigh(matrices)
    return (axes * np.log(values)[..., None, :]) @ axes.swapaxes(-1, -2)
