"""A checked input on its way: what is held of it, its symmetry, and the way back to its type.

It puts relaxed positions and cell into a copy of the input: labels, site properties, constraints,
charge, tags, info and calculator stay.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import polar

from deeprelax_ase.structures.adapter import Adapter
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric
from deeprelax_ase.structures.elements import reduced_formula
from deeprelax_ase.structures.exact_holds import corrected, held_errors
from deeprelax_ase.structures.held import Part, strain_freedom
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.space_group import SpaceGroup
from deeprelax_ase.structures.symmetry import find_space_group, symmetrise

_SAME_METRIC = 1e-3
"""Products of cell vectors (Å^2) that differ by less are those of an input that is symmetric to so
many digits."""
_SAME_STRAIN = 1e-6
"""Strains of what is held that are smaller are rounding."""


@dataclass(frozen=True)
class StructureInput:
    """A checked input.

    Attributes:
        source: What came in, untouched.
        adapter: The module that knows it.
        crystal: What is computed with; atoms are shifted so that no sheet is cut by a boundary,
            and where vacuum does not lie along the axes of the source, it has others.
        basis: Cell vectors of the crystal, in those of the source.
        shifts: Cells each atom was shifted by: `crystal position = position + shift @ cell`, with
            the cell of the crystal.
        repeats: Which cell vectors of the crystal the source repeats along, across vacuum too.
        rotations: What its rotations make of the cell vectors of the source, if it has vacuum.
        free: Which fractional coordinates of each atom may change.
        keeps_places: Whether atoms are held against each other across vacuum, so that vectors which
            lean over what is strained have to lean along.
        notes: What the user should know.
        is_sheet: Whether it is one sheet by itself: periodic along two axes, and not periodic
            along the third, or with so much vacuum there that no layered crystal has it.
        functional: To relax to; None leaves that to the relaxer.
        keeps_across: Whether cell vectors across vacuum must stay, as somebody held them.
        exact: What is held exactly of the cell, see `exact_holds`.
    """

    source: Any
    adapter: Adapter
    crystal: Crystal
    basis: Int[np.ndarray, "3 3"]
    shifts: Int[np.ndarray, "atoms 3"]
    repeats: Bool[np.ndarray, "3"]
    rotations: Float[np.ndarray, "rotations 3 3"]
    free: Bool[np.ndarray, "atoms 3"]
    keeps_places: bool
    notes: tuple[Note, ...]
    is_sheet: bool
    functional: str | None = None
    keeps_across: bool = False
    exact: tuple[Part, ...] = ()
    _known: list[tuple[Crystal, SpaceGroup | None]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @property
    def formula(self) -> str:
        """Reduced chemical formula."""
        return reduced_formula(self.crystal.numbers)

    def copy_of_source(self) -> Any:
        """The source as it was, for somebody to change."""
        return self.adapter.copied(self.source)

    @property
    def is_all_held(self) -> bool:
        """Whether nothing of it may change."""
        return not self.free.any() and not self.crystal.strain_freedom().any()

    def stale(self) -> list[str]:
        """Names of what the source stores that belongs to its geometry of now."""
        return self.adapter.stale_in(self.source)

    def broken_constraint(self, relaxed: Any) -> str | None:
        """Say which constraint a relaxed copy of the source does not obey, or None."""
        return self.adapter.broken_constraint(self.source, relaxed, self.free)

    @property
    def _back(self) -> Float[np.ndarray, "3 3"]:
        """Cell vectors of the source, in those of the crystal."""
        back: np.ndarray = np.rint(np.linalg.inv(self.basis))
        return back

    def between_cells(
        self, edge_index: Int[np.ndarray, "2 pairs"], offsets: Int[np.ndarray, "pairs 3"]
    ) -> Int[np.ndarray, "pairs 3"]:
        """Cells of the source between atoms that are so many cells of the crystal apart."""
        i, j = edge_index
        between: np.ndarray = (offsets + self.shifts[j] - self.shifts[i]) @ self.basis
        return between

    def with_relaxed(
        self, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
    ) -> Any:
        """A copy of the source, of its type, with its atoms moved and its cell deformed.

        Args:
            displacements: Å, in the frame of the input cell.
            deformation: Symmetric; acts within what the periodic rows of the cell span.
        """
        moved = self.hold_still(displacements)
        positions = (self.crystal.positions + moved) @ deformation
        cell = self._deformed_cell(deformation)
        positions = self._put_back(positions, deformation, cell) - self.shifts @ cell
        cell = self._back @ cell
        return self.adapter.relaxed(self.source, positions, cell, deformation)

    def _put_back(
        self,
        positions: Float[np.ndarray, "atoms 3"],
        gradient: Float[np.ndarray, "3 3"],
        cell: Float[np.ndarray, "3 3"],
    ) -> Float[np.ndarray, "atoms 3"]:
        """Bring what is held to its fractional coordinates, and the crystal along with it."""
        if not self._is_put_back:
            return positions
        back = self._back @ cell
        shifted = (positions + self._shift(gradient, cell)) @ np.linalg.inv(back)
        there: np.ndarray = np.where(self.free, shifted, self._scaled) @ back
        return there

    @property
    def _scaled(self) -> Float[np.ndarray, "atoms 3"]:
        """Fractional coordinates in the cell of the source, but for whole cells."""
        scaled: np.ndarray = self.crystal.positions @ np.linalg.inv(self._back @ self.crystal.cell)
        return scaled

    @property
    def _is_put_back(self) -> bool:
        return not (self.keeps_places or self.crystal.pbc.all() or self.free.all())

    def _shift(
        self, gradient: Float[np.ndarray, "3 3"], cell: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "3"]:
        """How far (Å) a crystal has to be shifted for what is held to stay where it is in its cell.

        Vectors across vacuum that lean over what is strained, and stay, are not deformed with it.
        """
        held, back = ~self.free, self._back @ cell
        new = self.crystal.positions @ gradient @ np.linalg.inv(back)
        off: np.ndarray = ((self._scaled - new) * held).sum(axis=0) / held.sum(axis=0).clip(1)
        return off @ back

    def _deformed_cell(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """Cell of the crystal once it is deformed.

        Vectors across vacuum stay, unless they lean over what is strained and the symmetry of the
        crystal wants them to lean along, or atoms that are held against each other.
        """
        old, pbc = self.crystal.cell, self.crystal.pbc
        if self.keeps_places:
            strained: np.ndarray = old @ deformation
            return strained
        kept = np.where(pbc[:, None], old @ deformation, old)
        if self.keeps_across or not len(self.rotations):
            return kept
        cell = self._back @ kept
        images = self.rotations @ cell
        metrics = images @ images.swapaxes(1, 2)
        is_symmetric = np.abs(metrics - cell @ cell.T).max() < _SAME_METRIC
        if is_symmetric and self._symmetry[0] is self.crystal:
            return kept
        leaning: np.ndarray = np.where(self.repeats[:, None], old @ deformation, old)
        return leaning

    def measure(
        self, relaxed: Any
    ) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]:
        """Displacements (Å) and strain that took the source to what it is now.

        Constraints and filters can make them less than what was predicted.
        """
        new = np.where(
            self.repeats[:, None], self.basis @ np.array(relaxed.cell), self.crystal.cell
        )
        cell = np.where(self.crystal.pbc[:, None], new, self.crystal.cell)
        gradient = np.linalg.solve(self.crystal.cell, cell)
        projector = self.crystal.strain_projector()
        identity = np.eye(3)
        gradient = identity + projector @ (gradient - identity) @ projector
        rotation, deformation = polar(gradient, side="left")
        positions = relaxed.positions + self.shifts @ new
        if self._is_put_back:
            positions = positions - self._shift(deformation @ rotation, new)
        displacements = positions @ np.linalg.inv(deformation @ rotation) - self.crystal.positions
        return displacements, log_symmetric((deformation + deformation.T) / 2)

    def symmetrise(
        self, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
    ) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]:
        """Average a move over the space group of the input."""
        crystal, group = self._symmetry
        if group is None:
            return displacements, deformation
        return symmetrise(crystal, group, displacements, deformation)

    @property
    def _symmetry(self) -> tuple[Crystal, SpaceGroup | None]:
        """The crystal as it repeats, and its space group; searched for once.

        Not as a `cached_property`, which has one lock for all inputs up to Python 3.11.
        """
        if not self._known:
            self._known.append(self._find_symmetry())
        return self._known[0]

    def _find_symmetry(self) -> tuple[Crystal, SpaceGroup | None]:
        """The crystal as it repeats, and its space group.

        Beside vacuum that is the group of the sheet, wire or molecule by itself, or that of the
        lattice which they form, whichever has more operations; of these, those that leave what
        is held of the cell.
        """
        crystal, group = self.crystal, find_space_group(self.crystal)
        if len(self.rotations):
            lattice = replace(self.crystal, pbc=self.repeats)
            whole = find_space_group(lattice)
            if whole is not None and (group is None or whole.order > group.order):
                crystal, group = lattice, whole
        held = crystal.strain_constraints
        if group is not None and len(held):
            group = group.keeping(strain_freedom(held, crystal.cell, np.ones(3, dtype=bool)))
        return crystal, group

    def without_anchor(self) -> "StructureInput":
        """The same, where the fixed atoms are one and what translations make of it, as with one.

        A supercell then relaxes as its cell does: such atoms say only where the crystal stands.
        """
        fixed = self.crystal.fixed
        if fixed is None or fixed.all():
            return self
        crystals = [self.crystal]
        if len(self.rotations):  # images across vacuum are the same, too
            crystals.append(replace(self.crystal, pbc=self.repeats))
        for crystal in crystals:
            group = find_space_group(crystal)
            if group is None or group.num_translations != fixed.sum():
                continue
            if fixed[group.images[: group.num_translations, fixed.argmax()]].all():
                return replace(self, crystal=replace(self.crystal, fixed=None))
        return self

    def broken_hold(self, strain: Float[np.ndarray, "3 3"]) -> str | None:
        """Say that a strain, which constraints may have changed, is none that the cell may have."""
        errors = held_errors(self.exact, self.crystal.strain_constraints, strain)
        off = float(np.abs(errors).max(initial=0.0))
        if off < _SAME_STRAIN:
            return None
        return f"what is held of the cell is strained by {off:.2g}"

    def hold_strain(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """Deformation without the strains that are held."""
        if not len(self.crystal.strain_constraints) and self.crystal.pbc.all():
            return deformation
        free = self.crystal.strain_freedom() @ log_symmetric(deformation).ravel()
        held = exp_symmetric(free.reshape(3, 3))
        return corrected(self.crystal, self.exact, held) if self.exact else held

    def hold_still(
        self, displacements: Float[np.ndarray, "atoms 3"]
    ) -> Float[np.ndarray, "atoms 3"]:
        """Displacements without the fractional components that are held.

        A crystal without fixed atoms may be anywhere, so it is first shifted to where its held
        atoms move least. Cartesian components that ASE's constraints fix are held by those, later.
        """
        atoms, axes = np.nonzero(~self.free)
        more_atoms, directions = self.adapter.fixed_directions(self.source)
        if not len(atoms) + len(more_atoms):
            return displacements
        cell = self._back @ self.crystal.cell
        back = np.linalg.inv(cell)
        if self.crystal.fixed is None:  # else the move is against what is fixed already
            along = (back.T / np.linalg.norm(back.T, axis=1, keepdims=True))[axes]
            atoms, along = np.append(atoms, more_atoms), np.concatenate([along, directions])
            moves = (along * displacements[atoms]).sum(axis=1)
            displacements = displacements - np.linalg.lstsq(along, moves)[0]
        held: np.ndarray = ((displacements @ back) * self.free) @ cell
        return held
