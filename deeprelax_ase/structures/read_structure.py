"""ASE `Atoms` and pymatgen `Structure` to a `Crystal` and back, losing nothing.

The only module that takes either. It checks what comes in, finds the axes that are vacuum, and
puts relaxed positions and cell into a copy of the input: labels, site properties, constraints,
charge, tags, info and calculator stay. `ase_atoms.py` and `pymatgen_structure.py` know how.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int
from pymatgen.core import IStructure
from scipy.linalg import polar

from deeprelax_ase.structures.ase_adapter import (
    broken_bonds,
    copied_atoms,
    read_atoms,
    relaxed_atoms,
)
from deeprelax_ase.structures.ase_adapter import stale_in as stale_in_atoms
from deeprelax_ase.structures.crystal import (
    Crystal,
    complete_cell,
    exp_symmetric,
    log_symmetric,
)
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.pymatgen_adapter import (
    copied_structure,
    read_sites,
    relaxed_structure,
)
from deeprelax_ase.structures.pymatgen_adapter import stale_in as stale_in_structure
from deeprelax_ase.structures.vacuum import SHEET_GAP, check_vacuum, find_vacuum, given_axes
from deeprelax_ase.structures.validation import StructureError, check_distances, check_input

_AXES_OF_A_SHEET = 2
_NOTHING = Held()
_SAME_METRIC = 1e-3
"""Products of cell vectors (Å^2) that differ by less are those of an input that is symmetric to so
many digits."""
_HELD = 1e-8
"""What is fixed may be so far (Å) from where it was: rounding."""


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
        repeats: Which cell vectors of the crystal the source repeats along, those across vacuum too.
        rotations: What its rotations make of the cell vectors of the source, if it has vacuum.
        free: Which fractional coordinates of each atom may change.
        notes: What the user should know.
        is_sheet: Whether it is one sheet by itself: periodic along two axes, and not periodic
            along the third, or with so much vacuum there that no layered crystal has it.
        functional: To relax to; None leaves that to the relaxer.
    """

    source: Any
    crystal: Crystal
    basis: Int[np.ndarray, "3 3"]
    shifts: Int[np.ndarray, "atoms 3"]
    repeats: Bool[np.ndarray, "3"]
    rotations: Float[np.ndarray, "rotations 3 3"]
    free: Bool[np.ndarray, "atoms 3"]
    notes: tuple[Note, ...]
    is_sheet: bool
    functional: str | None = None

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
    def is_all_held(self) -> bool:
        """Whether nothing of it may change."""
        return not self.free.any() and not self.crystal.strain_freedom().any()

    def stale(self) -> list[str]:
        """Names of what the source stores that belongs to its geometry of now."""
        is_atoms = isinstance(self.source, Atoms)
        return stale_in_atoms(self.source) if is_atoms else stale_in_structure(self.source)

    def broken_constraint(self, relaxed: Any) -> str | None:
        """Say which constraint a relaxed copy of the source does not obey, or None.

        Constraints of ASE are applied one after the other, so that together they can fail.
        """
        if not isinstance(self.source, Atoms) or not self.source.constraints:
            return None
        old, new = (
            complete_cell(np.array(atoms.cell), atoms.pbc) for atoms in (self.source, relaxed)
        )
        change = relaxed.positions @ np.linalg.inv(new) - self.source.positions @ np.linalg.inv(old)
        moved = np.abs(change * ~self.free) @ np.abs(new)
        if moved.max() > _HELD:
            atom = int(moved.max(axis=1).argmax())
            return f"atom {atom} is fixed, and other constraints move it by {moved.max():.2g} Å"
        return broken_bonds(self.source, relaxed)

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
        positions = positions - self.shifts @ cell
        cell = self._back @ cell
        if isinstance(self.source, Atoms):
            return relaxed_atoms(self.source, positions, cell, deformation)
        return relaxed_structure(self.source, positions, cell)

    def _deformed_cell(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """Cell of the crystal once it is deformed.

        Vectors across vacuum stay, unless they lean over what is strained and the symmetry of the
        crystal wants them to lean along.
        """
        old, pbc = self.crystal.cell, self.crystal.pbc
        kept = np.where(pbc[:, None], old @ deformation, old)
        if not len(self.rotations):
            return kept
        cell = self._back @ kept
        images = self.rotations @ cell
        metrics = images @ images.swapaxes(1, 2)
        if np.abs(metrics - cell @ cell.T).max() < _SAME_METRIC:
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
        displacements = positions @ np.linalg.inv(deformation @ rotation) - self.crystal.positions
        return displacements, log_symmetric((deformation + deformation.T) / 2)

    def hold_strain(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """Deformation without the strains that are held."""
        if not len(self.crystal.held_strain):
            return deformation
        free = self.crystal.strain_freedom() @ log_symmetric(deformation).ravel()
        return exp_symmetric(free.reshape(3, 3))

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


class HeldStructure(NamedTuple):
    """A structure and what the calculation around it says; a `Relaxer` takes it as a structure.

    Attributes:
        structure: ASE Atoms or a pymatgen Structure.
        held: What must stay as it is.
        notes: What the user should know of it.
        functional: To relax to; None leaves that to the relaxer.
    """

    structure: Any
    held: Held = _NOTHING
    notes: tuple[Note, ...] = ()
    functional: str | None = None


def plain_structure(structure: Any) -> Any:
    """The structure itself of a `HeldStructure`; any other as it is."""
    return structure.structure if isinstance(structure, HeldStructure) else structure


def read_structure(
    structure: Any, vacuum: str = "auto", search: float = 0.0, held: Held = _NOTHING
) -> StructureInput:
    """Check an ASE Atoms, a pymatgen Structure or a `HeldStructure` and read it as a crystal.

    Args:
        structure: The input; it is never changed.
        vacuum: `auto` takes gaps of more than 8 Å along an axis, and of 14 Å along any other
            direction, for vacuum, which is never strained; `none` strains every periodic axis.
        search: Cutoff (Å) of the pairs that will be asked for.
        held: What must stay, besides what the structure itself says.

    Raises:
        StructureError: It is no crystal, or one that cannot be relaxed; see the message.
    """
    check_vacuum(vacuum)
    notes: list[Note] = []
    functional = None
    if isinstance(structure, HeldStructure):
        held = held | structure.held
        notes += structure.notes
        functional = structure.functional
        structure = structure.structure
    given, free = _as_it_stands(structure)
    numbers, positions, pbc = given.numbers, given.positions, given.pbc
    check_input(numbers, positions, given.cell, pbc)
    cell = complete_cell(given.cell, pbc)
    rows = [held.strain_rows(cell, pbc)]
    if held.positions:
        free = np.zeros_like(free)
    axes = given_axes(len(numbers))
    if vacuum == "auto":
        axes = find_vacuum(positions, cell, pbc, numbers)
    rows += [np.kron(np.eye(3), normal) for normal in axes.normals]
    cell = axes.basis @ cell
    periodic = pbc & ~axes.is_vacuum
    notes += [
        Note(
            "vacuum_axis",
            f"{axes.name(k)} is vacuum (a gap of {axes.gaps[k]:.1f} Å): its length is kept",
        )
        for k in np.flatnonzero(axes.is_vacuum).tolist()
    ]
    if len(axes.normals):
        text = f"there is vacuum in {len(axes.normals)} directions: no strain across it is made"
        notes.append(Note("vacuum_directions", text))
    if not pbc.any() and given.cell.any(axis=1).all() and len(numbers) > 1:
        text = (
            "pbc is False along all axes: it was taken for a molecule, and its cell is kept; set "
            "pbc to True for a crystal"
        )
        notes.append(Note("molecule_in_cell", text))
    alone = ~pbc | (axes.gaps > SHEET_GAP)
    is_sheet = bool(periodic.sum() == _AXES_OF_A_SHEET and alone[~periodic].all())
    if not periodic.any() and len(numbers) == 1:
        notes.append(Note("single_atom", "a single atom: nothing to relax"))
    shifted = positions + axes.shifts @ cell
    crystal = Crystal(numbers, shifted, cell, periodic, np.concatenate(rows))
    check_distances(crystal, search)
    return StructureInput(
        structure,
        crystal,
        axes.basis,
        axes.shifts,
        pbc,
        axes.rotations,
        free,
        tuple(notes),
        is_sheet,
        functional,
    )


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
