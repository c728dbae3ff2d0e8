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
    Axes,
    check_vacuum,
    find_vacuum,
    given_axes,
)
from deeprelax_ase.structures.validation import check_distances, check_input

_AXES_OF_A_SHEET = 2
_KEPT = "its fixed atoms ({}) keep the cell, as it has vacuum: hold='nothing' frees it"
_NOTHING = Held()
_LEVEL = 1e-3
"""Heights (Å) and components of unit vectors that differ by less are the same."""


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
        held: What must stay, besides what the structure itself says. Where nobody says what
            becomes of its cell, a slab (or chain) with fixed atoms keeps it, as is the custom.

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
    if _is_slab_with_fixed_atoms(free, periodic, axes) and not held.decides_on(
        ~np.linalg.inv(axes.basis)[:, ~periodic].round().any(axis=1)  # those not across vacuum
    ):
        held |= Held.of("cell")
        notes.append(Note("slab_cell_held", _KEPT.format(np.count_nonzero(~free.any(axis=1)))))
    is_given = bool((axes.basis == np.eye(3)).all())
    given_cell, cell = cell, axes.basis @ cell
    shifted = positions + axes.shifts @ cell
    directions = adapter.fixed_directions(structure)[1]
    keeps_places = not is_given and held.says_of(np.ones(3, dtype=bool))
    if not (periodic.all() or keeps_places) and (len(directions) or not free.all()):
        keeps_places = _leans_matter(shifted, cell, periodic, free, directions, is_given=is_given)
    # Vectors across vacuum stay, unless that moves what is held against each other.
    kept = ~periodic & (is_given and not keeps_places)
    keeps_across = held.says_of(kept)
    held = held.without(kept)
    # The shape of a sheet is that of its plane, as its volume is its area.
    rows = held.strain_rows(given_cell, cell[periodic], kept)
    across = [np.zeros((0, 9)), *(np.kron(np.eye(3), normal) for normal in axes.normals)]
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
    crystal = Crystal(numbers, shifted, cell, periodic, rows, np.concatenate(across), _fixed(free))
    check_distances(crystal, search)
    if held.parts:
        count, possible = crystal.held_strains()
        if 0 < count == possible:  # of a skewed cell, no strain may change one component alone
            notes.append(Note("cell_held", "what is held leaves no strain: the cell is kept"))
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
        keeps_across,
        held.exact,
    )


def _is_slab_with_fixed_atoms(
    free: Bool[np.ndarray, "atoms 3"], periodic: Bool[np.ndarray, "3"], axes: Axes
) -> bool:
    """Whether it repeats with vacuum beside it, as slabs and chains do, and has fixed atoms."""
    has_vacuum = not periodic.all() or len(axes.normals) > 0
    return bool(has_vacuum and periodic.any() and not free.any(axis=1).all())


def _leans_matter(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    periodic: Bool[np.ndarray, "3"],
    free: Bool[np.ndarray, "atoms 3"],
    directions: Float[np.ndarray, "fixed 3"],
    *,
    is_given: bool,
) -> bool:
    """Whether what is held tells apart whether vectors across vacuum are strained with the rest.

    They are where these vectors lean over it: for atoms at several heights that are held along it,
    at their fractional coordinates, or along directions of space.

    Args:
        positions: Å, in one piece.
        cell: Row vectors, Å.
        periodic: Which of them are strained.
        free: Which fractional coordinates may change.
        directions: Unit vectors along which atoms are fixed.
        is_given: Whether the coordinates are along the vectors of this cell.
    """
    plane = np.linalg.qr(cell[periodic].T)[0]
    if (np.abs(directions @ plane) > _LEVEL).any():
        return True
    held = ~free[:, periodic] if is_given else ~free
    scaled = (positions @ np.linalg.inv(cell))[held.any(axis=1)][:, ~periodic]
    if not len(scaled):
        return False
    lengths = np.linalg.norm(cell[~periodic], axis=1)
    return bool((np.ptp(scaled, axis=0) * lengths > _LEVEL).any())


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
