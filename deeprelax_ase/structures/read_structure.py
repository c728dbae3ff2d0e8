"""ASE `Atoms` and pymatgen `Structure` to a `Crystal` and back, losing nothing.

The only module that takes either. It checks what comes in, finds the axes that are vacuum, and
puts relaxed positions and cell into a copy of the input: labels, site properties, constraints,
charge, tags, info and calculator stay. `ase_atoms.py` and `pymatgen_structure.py` know how.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int
from pymatgen.core import IStructure
from scipy.linalg import polar

from deeprelax_ase.structures.ase_adapter import copied_atoms, read_atoms, relaxed_atoms
from deeprelax_ase.structures.crystal import Crystal, complete_cell, log_symmetric
from deeprelax_ase.structures.pymatgen_adapter import (
    copied_structure,
    read_sites,
    relaxed_structure,
)
from deeprelax_ase.structures.vacuum import SHEET_GAP, check_vacuum, find_vacuum, given_axes
from deeprelax_ase.structures.validation import StructureError, check_distances, check_input

_AXES_OF_A_SHEET = 2


@dataclass(frozen=True)
class StructureInput:
    """A checked input.

    Attributes:
        source: What came in, untouched.
        crystal: What is computed with; atoms are shifted so that no sheet is cut by a boundary,
            and where vacuum does not lie along the axes of the source, it has others.
        basis: Cell vectors of the crystal, in those of the source.
        shifts: Cells each atom was shifted by: `crystal position = position + shift @ cell`, with
            the cell of the crystal.
        free: Which fractional coordinates of each atom may change.
        notes: What the user should be told.
        is_sheet: Whether it is one sheet by itself: periodic along two axes, and not periodic
            along the third, or with so much vacuum there that no layered crystal has it.
    """

    source: Any
    crystal: Crystal
    basis: Int[np.ndarray, "3 3"]
    shifts: Int[np.ndarray, "atoms 3"]
    free: Bool[np.ndarray, "atoms 3"]
    notes: tuple[str, ...]
    is_sheet: bool

    @property
    def formula(self) -> str:
        """Reduced chemical formula."""
        if isinstance(self.source, Atoms):
            return str(self.source.get_chemical_formula(empirical=True))
        return str(self.source.composition.reduced_formula)

    def copy_of_source(self) -> Any:
        """The source as it was, for somebody to change."""
        if isinstance(self.source, Atoms):
            return copied_atoms(self.source)
        return copied_structure(self.source, self.source.lattice, self.source.frac_coords)

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
            deformation: Symmetric; acts on the periodic rows of the cell.
        """
        moved = self.hold_still(displacements)
        positions = (self.crystal.positions + moved) @ deformation
        cell = self.crystal.cell.copy()
        cell[self.crystal.pbc] = cell[self.crystal.pbc] @ deformation
        positions = positions - self.shifts @ cell
        cell = self._back @ cell
        if isinstance(self.source, Atoms):
            return relaxed_atoms(self.source, positions, cell, deformation)
        return relaxed_structure(self.source, positions, cell)

    def measure(
        self, relaxed: Any
    ) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]:
        """Displacements (Å) and strain that took the source to what it is now.

        Constraints and filters can make them less than what was predicted.
        """
        cell = self.crystal.cell.copy()
        pbc = self.crystal.pbc
        cell[pbc] = (self.basis @ np.array(relaxed.cell))[pbc]
        gradient = np.linalg.solve(self.crystal.cell, cell)
        projector = self.crystal.strain_projector()
        identity = np.eye(3)
        gradient = identity + projector @ (gradient - identity) @ projector
        rotation, deformation = polar(gradient, side="left")
        positions = relaxed.positions + self.shifts @ cell
        displacements = positions @ np.linalg.inv(deformation @ rotation) - self.crystal.positions
        return displacements, log_symmetric((deformation + deformation.T) / 2)

    def hold_still(
        self, displacements: Float[np.ndarray, "atoms 3"]
    ) -> Float[np.ndarray, "atoms 3"]:
        """Displacements without the fractional components that are held.

        The crystal as a whole may be anywhere, so it is first shifted to where its held atoms
        move least.
        """
        if self.free.all():
            return displacements
        cell = self._back @ self.crystal.cell
        scaled = displacements @ np.linalg.inv(cell)
        held = ~self.free
        scaled = scaled - (scaled * held).sum(axis=0) / np.maximum(held.sum(axis=0), 1)
        return (scaled * self.free) @ cell


def read_structure(structure: Any, vacuum: str = "auto", search: float = 0.0) -> StructureInput:
    """Check an ASE Atoms or a pymatgen Structure and read it as a crystal.

    Args:
        structure: The input; it is never changed.
        vacuum: `auto` takes gaps of more than 8 Å along an axis, and of 14 Å along any other
            direction, for vacuum, which is never strained; `none` strains every periodic axis.
        search: Cutoff (Å) of the pairs that will be asked for.

    Raises:
        StructureError: It is no crystal, or one that cannot be relaxed; see the message.
    """
    check_vacuum(vacuum)
    given, free = _as_it_stands(structure)
    numbers, positions, pbc = given.numbers, given.positions, given.pbc
    check_input(numbers, positions, given.cell, pbc)
    cell = complete_cell(given.cell, pbc)
    axes = find_vacuum(positions, cell, pbc) if vacuum == "auto" else given_axes(len(numbers))
    cell = axes.basis @ cell
    periodic = pbc & ~axes.is_vacuum
    notes = [
        f"{axes.name(k)} is vacuum (a gap of {axes.gaps[k]:.1f} Å): its length is kept"
        for k in np.flatnonzero(axes.is_vacuum).tolist()
    ]
    alone = ~pbc | (axes.gaps > SHEET_GAP)
    is_sheet = bool(periodic.sum() == _AXES_OF_A_SHEET and alone[~periodic].all())
    if not periodic.any() and len(numbers) == 1:
        notes.append("a single atom: nothing to relax")
    crystal = Crystal(numbers, positions + axes.shifts @ cell, cell, periodic)
    check_distances(crystal, search)
    return StructureInput(structure, crystal, axes.basis, axes.shifts, free, tuple(notes), is_sheet)


def plain_crystal(structure: Any) -> Crystal:
    """Species, positions, cell and pbc of a structure as they stand there.

    Raises:
        StructureError: It is neither Atoms nor Structure, or disordered.
    """
    return _as_it_stands(structure)[0]


def atoms_of(crystal: Crystal) -> Atoms:
    """A crystal as ASE Atoms."""
    return Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=crystal.pbc)


def _as_it_stands(structure: Any) -> tuple[Crystal, Bool[np.ndarray, "atoms 3"]]:
    """The crystal, and which of its coordinates may change."""
    if isinstance(structure, Atoms):
        return read_atoms(structure)
    if isinstance(structure, IStructure):
        return read_sites(structure)
    msg = (
        f"cannot relax a {type(structure).__module__}.{type(structure).__name__}: "
        "give an ase.Atoms or a pymatgen Structure"
    )
    raise StructureError(msg)
