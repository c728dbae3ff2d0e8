"""The plain crystal that every other module computes with: numbers, positions, cell, pbc.

Nothing here knows the structures of ASE and pymatgen, whose adapters convert to and from them.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.held import COMPONENTS, strain_freedom
from deeprelax_ase.structures.pair_search import Pairs, find_pairs

MAX_ATOMIC_NUMBER = 118
LEAST_DISTANCE = 0.5
"""Two atoms nearer than this (Å) are on top of each other, in an input or in a result."""
_SEARCH = 2.0
_ROUNDING = 1e-14
"""Vectors of a cell that differ by so little of its largest component are the same."""


@dataclass(frozen=True)
class Crystal:
    """A crystal, sheet, wire or molecule.

    Attributes:
        numbers: Atomic numbers.
        positions: Cartesian, Å. Not necessarily wrapped into the cell.
        cell: Row vectors, Å; never singular, see `complete_cell`.
        pbc: Which rows of the cell the crystal repeats along. An axis of vacuum does not count.
        held_strain: Constraints on the strain, see `held.py`; none by default.
        across_vacuum: The same where there is vacuum along none of the axes: nobody asked for them.
        fixed: Which atoms keep their fractional coordinates; None where none does. They say where
            the crystal as a whole stands, so that no displacement is shifted.
    """

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, "3"]
    held_strain: Float[np.ndarray, "rows 9"] = field(
        default_factory=lambda: np.zeros((0, 9)), repr=False
    )
    across_vacuum: Float[np.ndarray, "rows_too 9"] = field(
        default_factory=lambda: np.zeros((0, 9)), repr=False
    )
    fixed: Bool[np.ndarray, " atoms"] | None = None
    _known: dict[float, Pairs] = field(default_factory=dict, init=False, repr=False, compare=False)

    def pairs_within(self, cutoff: float) -> Pairs:
        """All pairs closer than the cutoff (Å); searched for once."""
        if cutoff not in self._known:
            self._known[cutoff] = find_pairs(self.positions, self.cell, self.pbc, cutoff)
        return self._known[cutoff]

    def __len__(self) -> int:
        return len(self.numbers)

    def moved(
        self, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
    ) -> "Crystal":
        """The crystal elsewhere.

        Args:
            displacements: Å, in the frame of the cell.
            deformation: Acts after them, and on the vectors along which the crystal repeats.
        """
        cell = self.cell.copy()
        cell[self.pbc] = cell[self.pbc] @ deformation
        return replace(self, positions=(self.positions + displacements) @ deformation, cell=cell)

    def strain_freedom(self) -> Float[np.ndarray, "9 9"]:
        """Projector of flat matrices onto the strains that the crystal may have."""
        return strain_freedom(self.strain_constraints, self.cell, self.pbc)

    @property
    def strain_constraints(self) -> Float[np.ndarray, "rows 9"]:
        """All constraints on the strain along periodic axes, see `held.py`."""
        return np.concatenate([self.held_strain, self.across_vacuum])

    def held_strains(self) -> tuple[int, int]:
        """How many independent strains are held, of how many it could have."""
        possible = strain_freedom(self.across_vacuum, self.cell, self.pbc)
        count, left = (
            round(np.trace(COMPONENTS @ projector @ COMPONENTS.T))
            for projector in (possible, self.strain_freedom())
        )
        return count - left, count

    def told_holds(self) -> Float[np.ndarray, "atoms 2"]:
        """What a network is told: of each atom, whether it is fixed, and whether the cell is held.

        Networks learned of cells that are held as a whole, and of fixed atoms in slabs and in such
        cells. Of anything else they are not told, and the solve alone obeys it.
        """
        told = np.zeros((len(self), 2))
        held, count = self.held_strains() if len(self.held_strain) else (0, 0)
        is_held = held > 0 and held == count
        told[:, 1] = is_held
        if self.fixed is not None and (is_held or not self.pbc.all()):
            told[:, 0] = self.fixed
        return told

    def settled(self, moves: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
        """Moves without those of fixed atoms; where no atom is fixed, of mean zero."""
        if self.fixed is None:
            return moves - moves.mean(axis=0)
        return np.where(self.fixed[:, None], 0.0, moves)

    def strain_projector(self) -> Float[np.ndarray, "3 3"]:
        """Projector onto the space the periodic axes span: all of it, a plane, a line or nothing.

        A strain `s` is admissible if `projector @ s @ projector == s`.
        """
        if self.pbc.all():
            return np.eye(3)
        periodic = self.cell[self.pbc]
        return np.linalg.pinv(periodic) @ periodic


def as_before(
    cell: Float[np.ndarray, "3 3"], old: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3"]:
    """A cell whose vectors are exactly the old ones where they differ by rounding only."""
    is_same = np.abs(cell - old).max(axis=1) <= _ROUNDING * np.abs(old).max()
    return np.where(is_same[:, None], old, cell)


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


def nearest_pair(
    crystal: Crystal, cutoff: float, search: float = 0.0
) -> tuple[int, int, float] | None:
    """The two nearest atoms and their distance (Å), if that is less than the cutoff (Å).

    Args:
        crystal: Where to search.
        cutoff: Å.
        search: Cutoff (Å) of pairs that will be needed later and can be searched for now.
    """
    # A cell list of cells much smaller than an atom is slow.
    pairs = crystal.pairs_within(max(cutoff, search or _SEARCH))
    if not len(pairs.first) or pairs.lengths.min() >= cutoff:
        return None
    nearest = int(pairs.lengths.argmin())
    return int(pairs.first[nearest]), int(pairs.second[nearest]), float(pairs.lengths[nearest])


def exp_symmetric(matrices: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Exponential of symmetric matrices: the deformation of a strain."""
    values, axes = np.linalg.eigh(matrices)
    return (axes * np.exp(values)[..., None, :]) @ axes.swapaxes(-1, -2)


def log_symmetric(matrices: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Logarithm of symmetric positive definite matrices: the strain of a deformation."""
    values, axes = np.linalg.eigh(matrices)
    return (axes * np.log(values)[..., None, :]) @ axes.swapaxes(-1, -2)
