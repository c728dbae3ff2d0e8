"""What has to be known of ASE's `Atoms`: how to read, copy and move them, losing nothing."""

from contextlib import suppress
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixScaled,
    Hookean,
    MirrorForce,
    MirrorTorque,
)
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.crystal import Crystal, as_before, complete_cell
from deeprelax_ase.structures.stale import stale_entries, stale_names, without_stale
from deeprelax_ase.structures.validation import FULL, StructureError, disordered

KIND = Atoms
_FROM_OUTSIDE = (ExternalForce, MirrorForce, MirrorTorque)
"""What changes forces, so that a relaxation ends elsewhere."""
_USUAL_FMAX = 0.05
"""eV/Å, within which forces of a relaxation have vanished."""
_LARGEST_STRAIN_STEP = 0.1
_SAME_LENGTH = 1e-6
_HELD = 1e-8
"""What is fixed may be so far (Å) from where it was: rounding."""
_EXACT = (FixAtoms, FixCartesian, FixScaled, FixedLine, FixedPlane)
"""Constraints that a move obeys to within `_HELD`; the others are solved for, to `_SAME_LENGTH`."""


def read(atoms: Atoms) -> tuple[Crystal, Bool[np.ndarray, "atoms 3"]]:
    """Atoms as they stand there, and which of their coordinates may change.

    Raises:
        StructureError: A site is not fully occupied by one species.
    """
    occupancy = atoms.info.get("occupancy")
    if isinstance(occupancy, dict):  # as ASE's reader of CIF writes it; others write other things
        for site in occupancy.values():
            shares = [*site.values()] if isinstance(site, dict) else []
            if not all(isinstance(share, int | float | np.number) for share in shares):
                continue
            if len(shares) > 1 or any(abs(share - 1) > FULL for share in shares):
                raise disordered(site)
    try:
        free = free_coordinates(atoms)
    except IndexError as error:
        msg = f"a constraint names an atom that is none of the {len(atoms)}: {error}"
        raise StructureError(msg) from error
    crystal = Crystal(
        atoms.numbers.astype(np.int64),
        atoms.positions.astype(float),
        np.array(atoms.cell, dtype=float),
        atoms.pbc.copy(),
    )
    return crystal, free


def holds_coordinates(constraint: Any) -> bool:
    """Whether a constraint fixes fractional coordinates, and nothing else."""
    is_of_all = isinstance(constraint, FixCartesian) and bool(constraint.mask.all())
    return is_of_all or isinstance(constraint, FixAtoms | FixScaled)


def free_coordinates(atoms: Atoms) -> Bool[np.ndarray, "atoms 3"]:
    """Fractional coordinates that no constraint fixes."""
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        named: Any = getattr(constraint, "index", [])
        with suppress(NotImplementedError, AttributeError):  # of other people's classes
            named = constraint.get_indices()
        _ = free[named]  # an IndexError where it names no atom
        if isinstance(constraint, FixScaled):
            free[np.ix_(constraint.index, constraint.mask)] = False
        elif holds_coordinates(constraint):
            free[constraint.index] = False
    return free


def fixed_directions(
    atoms: Atoms,
) -> tuple[Int[np.ndarray, " fixed"], Float[np.ndarray, "fixed 3"]]:
    """Atoms that constraints fix along Cartesian directions, and unit vectors along these."""
    indices: list[int] = []
    directions: list[np.ndarray] = []
    for constraint in atoms.constraints:
        of_it, along = directions_of(constraint)
        for index in of_it.tolist():
            indices += [index] * len(along)
            directions += [*along]
    return np.array(indices, dtype=np.int64), np.reshape(directions, (-1, 3)).astype(float)


def directions_of(
    constraint: Any,
) -> tuple[Int[np.ndarray, " atoms"], Float[np.ndarray, "some 3"]]:
    """Atoms that a constraint fixes along directions of space, and unit vectors along these."""
    if isinstance(constraint, FixCartesian) and not constraint.mask.all():
        along = np.eye(3)[constraint.mask]
    elif isinstance(constraint, FixedPlane):
        along = np.reshape(constraint.dir, (1, 3)).astype(float)
    elif isinstance(constraint, FixedLine):
        along = np.linalg.svd(np.reshape(constraint.dir, (1, 3)))[2][1:]
    else:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    return np.atleast_1d(constraint.index).astype(np.int64), along


def stale_in(atoms: Atoms) -> list[str]:
    """Names of what belongs to the geometry of now: in `info`, `arrays`, and results of a file."""
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    told = [name for name, value in results.items() if value is not None]
    return [*dict.fromkeys([*stale_entries(atoms.info), *stale_names(atoms.arrays), *told])]


def broken_constraint(before: Atoms, after: Atoms, free: Bool[np.ndarray, "atoms 3"]) -> str | None:
    """Say which constraint of atoms does not hold after a move, or None.

    ASE applies constraints one after the other, so that together they can fail: a later one can
    undo an earlier one. One that holds moves nothing when it is applied once more.

    Args:
        before: The atoms.
        after: The same elsewhere.
        free: Which fractional coordinates may change.
    """
    if not before.constraints:
        return None
    old_cell, new_cell = (complete_cell(np.array(a.cell), a.pbc) for a in (before, after))
    change = after.positions @ np.linalg.inv(new_cell) - before.positions @ np.linalg.inv(old_cell)
    drift = np.abs(change * ~free) @ np.abs(new_cell)
    if drift.max() > _HELD:
        atom = int(drift.max(axis=1).argmax())
        return f"atom {atom} is fixed, and other constraints move it by {drift.max():.2g} Å"
    start = before.copy()
    _take_lengths(start)
    start.set_cell(after.cell, scale_atoms=True, apply_constraint=False)
    for constraint in start.constraints:
        if isinstance(constraint, FixBondLengths):
            continue
        positions = after.positions.copy()
        constraint.adjust_positions(start, positions)
        moved = np.abs(positions - after.positions).max(axis=1)
        if moved.max() > (_HELD if isinstance(constraint, _EXACT) else _SAME_LENGTH):
            atom, name = int(moved.argmax()), type(constraint).__name__
            return f"{name} would move atom {atom} by another {moved[atom]:.2g} Å"
    for constraint in _rigid_bonds(start):
        for k, (i, j) in enumerate(constraint.pairs):
            given = constraint.bondlengths
            vector = before.get_distance(i, j, mic=True, vector=True)
            old = np.linalg.norm(vector) if given is None else given[k]
            # Another image may be the nearest one now.
            image = (vector + before.positions[i] - before.positions[j]) @ np.linalg.inv(old_cell)
            same = after.positions[j] - after.positions[i] + image.round() @ new_cell
            lengths = after.get_distance(i, j, mic=True), float(np.linalg.norm(same))
            new = min(lengths, key=lambda length: abs(length - old))
            if abs(new - old) > _SAME_LENGTH:
                return f"the bond of atoms {i} and {j} is fixed at {old:.4f} Å, and is {new:.4f} Å"
    return None


def force_from_outside(atoms: Atoms) -> str | None:
    """Say which constraint pulls at atoms, so that a relaxation ends elsewhere, or None."""
    for constraint in atoms.constraints:
        if isinstance(constraint, _FROM_OUTSIDE):
            name = type(constraint).__name__
            return f"{name} asks for forces from outside, which no prediction knows: take it out"
        if isinstance(constraint, Hookean):
            forces = np.zeros((len(atoms), 3))
            constraint.adjust_forces(atoms, forces)
            sizes = np.linalg.norm(forces, axis=1)
            if sizes.max() > _USUAL_FMAX:
                return f"Hookean would pull atom {sizes.argmax()} by {sizes.max():.3g} eV/Å"
    return None


def atoms_of(crystal: Crystal) -> Atoms:
    """A crystal as ASE Atoms, with a constraint on those that are fixed."""
    atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
    if crystal.fixed is not None:
        atoms.set_constraint(FixAtoms(mask=crystal.fixed))
    return atoms


def _rigid_bonds(atoms: Atoms) -> list[FixBondLengths]:
    return [one for one in atoms.constraints if isinstance(one, FixBondLengths)]


def _take_lengths(atoms: Atoms) -> None:
    """Let constraints that hold what is there now take it before a cell is deformed."""
    for constraint in atoms.constraints:
        is_linear = isinstance(constraint, FixLinearTriatomic) and constraint.bondlengths is None
        if is_linear or isinstance(constraint, FixInternals):
            try:
                constraint.initialize(atoms)
            except (ArithmeticError, IndexError) as error:  # a planar angle, no such atom
                msg = f"{type(constraint).__name__}: {error}"
                raise ValueError(msg) from error


def copied(atoms: Atoms) -> Atoms:
    """A copy with the same calculator."""
    copied = atoms.copy()
    copied.calc = atoms.calc
    return copied


def relaxed(
    atoms: Atoms,
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> Atoms:
    """A copy elsewhere, see `move_atoms`; cell vectors that are zero stay zero.

    A calculator that knows results of the atoms stays with them, and the copy has none.
    """
    moved = copied(atoms)
    if getattr(atoms.calc, "results", None):
        moved.calc = None
    cell = np.where(np.any(np.array(atoms.cell) != 0, axis=1)[:, None], cell, 0.0)
    move_atoms(moved, positions, cell, deformation)
    return moved


def move_atoms(
    atoms: Atoms,
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> None:
    """Give atoms a new cell and new positions in place, as far as their constraints allow.

    A SinglePointCalculator is taken off, any other forgets its results, and energies, forces and
    the like are dropped from `info` and `arrays`: they are those of the old geometry, and ASE's
    writers would store them with the new one.

    Args:
        atoms: What is moved.
        positions: Å.
        cell: Å.
        deformation: What took the old cell to the new one.

    Raises:
        ValueError: No positions are found that constraints on bonds allow.
    """
    if isinstance(atoms.calc, SinglePointCalculator):
        atoms.calc = None
    elif getattr(atoms.calc, "results", None) and callable(getattr(atoms.calc, "reset", None)):
        atoms.calc.reset()
    atoms.info = without_stale(atoms.info)
    for name in stale_names(atoms.arrays):
        del atoms.arrays[name]
    old = np.array(atoms.cell)
    cell = as_before(cell, old)
    if not atoms.constraints:
        atoms.set_cell(cell)
        atoms.positions[:] = positions
        return
    _take_lengths(atoms)
    rigid = [one for one in _rigid_bonds(atoms) if one.bondlengths is None]
    for constraint in rigid:  # else they would hold the lengths of the deformed cell
        constraint.bondlengths = constraint.initialize_bond_lengths(atoms)
    # ASE's FixSymmetry refuses a deformation of more than 25 % in one call.
    strain = float(np.abs(deformation - np.eye(3)).max())
    count = 1 + int(strain / _LARGEST_STRAIN_STEP)
    for step in range(1, count + 1) if (cell != old).any() else ():
        atoms.set_cell(old + (cell - old) * step / count, scale_atoms=True)
    try:
        atoms.set_positions(positions, apply_constraint=True)
    except RuntimeError as error:  # of FixBondLengths, which solves for the positions
        if not _rigid_bonds(atoms):
            raise
        raise ValueError(*error.args) from error
    for constraint in rigid:
        constraint.bondlengths = None
