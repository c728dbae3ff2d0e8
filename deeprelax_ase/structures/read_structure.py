"""Read ASE `Atoms` and pymatgen `Structure` as a `Crystal`: check them and find their vacuum."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.structures.adapter import KINDS, adapter_of
from deeprelax_ase.structures.ase_adapter import atoms_of
from deeprelax_ase.structures.crystal import Crystal, complete_cell
from deeprelax_ase.structures.exact_holds import HeldStrains
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.structure_input import StructureInput
from deeprelax_ase.structures.vacuum import (
    SAME_GAP,
    SHEET_GAP,
    check_vacuum,
    find_vacuum,
    given_axes,
)
from deeprelax_ase.structures.validation import check_distances, check_input

_AXES_OF_A_SHEET = 2
_NOTHING = Held()
_LEVEL = 1e-6


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


def copy_of(structure: Any) -> Any:
    """A copy of a structure or `HeldStructure`; what is neither as it is."""
    if isinstance(structure, HeldStructure):
        return structure._replace(structure=copy_of(structure.structure))
    return adapter_of(structure).copied(structure) if isinstance(structure, KINDS) else structure


def read_structure(
    structure: Any, vacuum: str = "auto", search: float = 0.0, held: Held = _NOTHING
) -> StructureInput:
    """Check an ASE Atoms, a pymatgen Structure or a `HeldStructure` and read it as a crystal.

    Args:
        structure: The input; it is never changed.
        vacuum: `auto` takes gaps of at least 8 Å along an axis (given, or of the Niggli cell), and
            of 14 Å along any other direction, for vacuum, which is never strained; `none` strains
            every periodic axis.
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
    adapter = adapter_of(structure)
    given, free = adapter.read(structure)
    numbers, positions, pbc = given.numbers, given.positions, given.pbc
    check_input(numbers, positions, given.cell, pbc)
    cell = complete_cell(given.cell, pbc)
    if held.positions:
        free = np.zeros_like(free)
    axes = (
        find_vacuum(positions, cell, pbc, numbers) if vacuum == "auto" else given_axes(len(numbers))
    )
    periodic = pbc & ~axes.is_vacuum
    is_given = bool((axes.basis == np.eye(3)).all())
    keeps_places = False
    if not periodic.all():
        scaled = positions @ np.linalg.inv(axes.basis @ cell) + axes.shifts
        is_level = _are_level(scaled[~free.all(axis=1)][:, ~periodic])
        keeps_places = not is_level or len(adapter.fixed_directions(structure)[0]) > 0
    # Vectors across vacuum stay, unless that moves what is held against each other.
    kept = ~periodic & (is_given and not keeps_places)
    held = held.without(kept)
    # The shape of a sheet is that of its plane, as its volume is its area.
    rows = held.strain_rows(cell, (axes.basis @ cell)[periodic], kept)
    across = [np.zeros((0, 9)), *(np.kron(np.eye(3), normal) for normal in axes.normals)]
    cell = axes.basis @ cell
    notes += [
        Note(
            "vacuum_axis",
            f"{axes.name(k)} is vacuum (a gap of {axes.gaps[k]:.1f} Å): no strain along it is made",
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
    alone = ~pbc | (axes.gaps > SHEET_GAP - SAME_GAP)
    is_sheet = bool(periodic.sum() == _AXES_OF_A_SHEET and alone[~periodic].all())
    if not periodic.any() and len(numbers) == 1:
        notes.append(Note("single_atom", "a single atom: nothing to relax"))
    shifted = positions + axes.shifts @ cell
    crystal = Crystal(numbers, shifted, cell, periodic, rows, np.concatenate(across), _fixed(free))
    check_distances(crystal, search)
    return StructureInput(
        structure,
        adapter,
        crystal,
        axes.basis,
        axes.shifts,
        pbc,
        axes.rotations,
        free,
        keeps_places,
        tuple(notes),
        is_sheet,
        functional,
        bool((held.vectors & kept).any()),
        held.exact,
    )


def _are_level(scaled: Float[np.ndarray, "held across"]) -> bool:
    """Whether atoms have the same fractional coordinates along vectors across vacuum."""
    return bool((np.ptp(scaled, axis=0) < _LEVEL).all()) if len(scaled) else True


def _fixed(free: Bool[np.ndarray, "atoms 3"]) -> Bool[np.ndarray, " atoms"] | None:
    """Which atoms cannot move at all; a single one says only where the crystal stands."""
    fixed = np.array(~free.any(axis=1), dtype=bool)
    return fixed if fixed.sum() > 1 or fixed.all() else None


def plain_crystal(structure: Any) -> Crystal:
    """Species, positions, cell and pbc of a structure as they stand there.

    Raises:
        StructureError: It is neither Atoms nor Structure, or disordered.
    """
    return adapter_of(structure).read(structure)[0]


def held_structure(crystal: Crystal) -> HeldStructure:
    """A crystal as a structure for a `Relaxer`, with all that it holds."""
    return HeldStructure(atoms_of(crystal), Held(parts=(HeldStrains(crystal.held_strain),)))
