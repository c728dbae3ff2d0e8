"""What is held exactly where it is not linear in the strain: components, lengths and angles.

The network and the solve know such constraints to first order, as rows; the last move is corrected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric
from deeprelax_ase.structures.held import Part, held_entries, strain_freedom

_OF_ANGLES = ((1, 2), (0, 2), (0, 1))
"""Vectors on either side of alpha, beta and gamma."""
_STEPS = 50
_ENOUGH = 1e-13
_HALVINGS = 4


@dataclass(frozen=True, eq=False)
class _OfSpace:
    """Constraints that are not of cell vectors.

    Attributes:
        rows: To first order.
    """

    rows: Float[np.ndarray, "rows 9"]

    def without(self, _vectors: Bool[np.ndarray, "3"]) -> Any:
        """The same."""
        return self


class HeldStrains(_OfSpace):
    """Components of the strain are zero: `rows @ log(F) == 0`."""

    is_linear = True

    def __call__(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " rows"]:
        """How far off it is."""
        off: np.ndarray = self.rows @ log_symmetric(deformation).ravel()
        return off


class HeldComponents(_OfSpace):
    """Components of the deformation itself, less the identity, are zero: `rows @ (F - 1) == 0`."""

    is_linear = False

    def __call__(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " rows"]:
        """How far off it is."""
        off: np.ndarray = self.rows @ (deformation - np.eye(3)).ravel()
        return off


@dataclass(frozen=True, eq=False)
class HeldEntries:
    """Single Cartesian components of cell vectors stay.

    Attributes:
        cell: Row vectors, Å.
        kept: Which components.
    """

    cell: Float[np.ndarray, "3 3"]
    kept: Bool[np.ndarray, "3 3"]
    is_linear = False

    @property
    def rows(self) -> Float[np.ndarray, "rows 9"]:
        """To first order."""
        return held_entries(self.cell, self.kept)

    def without(self, vectors: Bool[np.ndarray, "3"]) -> "HeldEntries":
        """Those of other vectors."""
        return HeldEntries(self.cell, self.kept & ~vectors[:, None])

    def __call__(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " rows"]:
        """How far off it is."""
        return HeldComponents(self.rows)(deformation)


@dataclass(frozen=True, eq=False)
class HeldParameters:
    """Combinations of the lengths of cell vectors, over what they were, and of their cosines stay.

    Attributes:
        cell: Row vectors, Å.
        combinations: Of the lengths of a, b, c and the cosines of alpha, beta, gamma.
    """

    cell: Float[np.ndarray, "3 3"]
    combinations: Float[np.ndarray, "rows 6"]
    is_linear = False

    @property
    def rows(self) -> Float[np.ndarray, "rows 9"]:
        """To first order."""
        units = self.cell / np.linalg.norm(self.cell, axis=1, keepdims=True)
        rows = [np.outer(unit, unit).ravel() for unit in units]
        for i, j in _OF_ANGLES:
            turn = np.outer(units[i], units[j]) + np.outer(units[j], units[i])
            stretch = np.outer(units[i], units[i]) + np.outer(units[j], units[j])
            rows.append((turn - units[i] @ units[j] * stretch).ravel())
        first_order: np.ndarray = self.combinations @ np.array(rows)
        return first_order

    def without(self, vectors: Bool[np.ndarray, "3"]) -> "HeldParameters":
        """What they say of other vectors, and of angles between those."""
        is_of = np.array([*vectors, *(vectors[i] or vectors[j] for i, j in _OF_ANGLES)])
        left = np.where(is_of, 0.0, self.combinations)
        return HeldParameters(self.cell, left[left.any(axis=1)])

    def __call__(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " rows"]:
        """How far off it is."""
        lengths = np.linalg.norm(self.cell, axis=1)
        new = _lengths_and_cosines(self.cell @ deformation, lengths)
        off: np.ndarray = self.combinations @ (new - _lengths_and_cosines(self.cell, lengths))
        return off


def _lengths_and_cosines(
    cell: Float[np.ndarray, "3 3"], before: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "6"]:
    lengths = np.linalg.norm(cell, axis=1)
    cosines = (cell @ cell.T / np.outer(lengths, lengths))[tuple(zip(*_OF_ANGLES, strict=True))]
    return np.concatenate([lengths / before, cosines])


def corrected(
    crystal: Crystal, exact: Sequence[Part], deformation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3"]:
    """A deformation nearby that obeys constraints exactly.

    Newton's method with the rows of the crystal for derivatives; from half of the strain, and half
    of that, where it finds nothing: lengths and the volume of a right-angled cell leave no strain
    at all, although to first order they leave three.

    Args:
        crystal: The unrelaxed one, with all constraints on its strain as rows.
        exact: Of the first of them; all others are on the strain.
        deformation: Symmetric; obeys them to first order.
    """
    rows = crystal.strain_constraints
    everything = strain_freedom(np.zeros((0, 9)), crystal.cell, crystal.pbc)
    back = everything @ np.linalg.pinv(rows @ everything)
    start = log_symmetric(deformation)
    for _ in range(_HALVINGS):
        strain = _newton(exact, rows, back, start)
        if strain is not None:
            return exp_symmetric(strain)
        start = start / 2
    return np.eye(3)


def held_errors(
    exact: Sequence[Part], rows: Float[np.ndarray, "rows 9"], strain: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, " rows"]:
    """How far a strain is from all constraints.

    Args:
        exact: Of the first of them; all others are on the strain.
        rows: All constraints to first order.
        strain: Symmetric.
    """
    off = [one(exp_symmetric(strain)) for one in exact]
    return np.concatenate([*off, rows[sum(map(len, off)) :] @ strain.ravel()])


def _newton(
    exact: Sequence[Part],
    rows: Float[np.ndarray, "rows 9"],
    back: Float[np.ndarray, "9 rows"],
    strain: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "3 3"] | None:
    """The strain at the end, or None where it is not found, or is much larger than the first."""
    most = 2 * np.linalg.norm(strain) + _ENOUGH
    for _ in range(_STEPS):
        errors = held_errors(exact, rows, strain)
        if np.abs(errors).max(initial=0.0) < _ENOUGH:
            return strain
        strain = strain - (back @ errors).reshape(3, 3)
        if not np.linalg.norm(strain) <= most:
            return None
    return None
