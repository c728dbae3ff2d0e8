"""Relax what an ASE optimizer is given: atoms, or a filter that decides what of them may move."""

import copy
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.filters import (
    ExpCellFilter,
    Filter,
    FrechetCellFilter,
    OptimizableFilter,
    StrainFilter,
    UnitCellFilter,
)
from ase.optimize.optimize import OptimizableAtoms

from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.ase_adapter import copied, move_atoms
from deeprelax_ase.structures.crystal import exp_symmetric
from deeprelax_ase.structures.exact_holds import HeldComponents, HeldStrains
from deeprelax_ase.structures.held import Held, held_strain

Relaxable: TypeAlias = Atoms | Filter


def relax_target(target: Relaxable, relaxer: Relaxer, held: Held) -> RelaxResult[Atoms]:
    """Relax atoms, or what a filter shows of them, in place.

    Constraints hold. A cell filter decides on the cell: its mask, `hydrostatic_strain` and
    `constant_volume` are honoured. A plain filter moves its visible atoms in a fixed cell.

    Args:
        target: What is moved.
        relaxer: Predicts the move.
        held: What must stay, besides what a filter holds.

    Returns:
        The result, with the structure, move and bonds that the atoms have in the end.

    Raises:
        ValueError: The atoms cannot be read as a crystal.
    """
    atoms = atoms_of(target)
    source = copied(atoms)
    if isinstance(target, Filter):
        held |= _held_by(target)
        if not has_cell(target):
            everyone = np.arange(len(atoms))
            hidden = np.setdiff1d(everyone, everyone[target.index])
            source.set_constraint([*source.constraints, FixAtoms(hidden)])
    result = relaxer.relax(source, held=held)
    result.structure.set_constraint(copy.deepcopy(atoms.constraints))
    if result.status != "relaxed":
        return result
    deformation = exp_symmetric(result.strain)
    moved = result.structure
    move_atoms(atoms, moved.positions.copy(), np.array(moved.cell), deformation)
    if isinstance(target, StrainFilter):
        # Of vectors that are not given, nothing is known.
        strain = np.linalg.pinv(target.origcell) @ (np.array(atoms.cell) - target.origcell)
        target.strain[:3] = strain.diagonal()
        target.strain[3:] = (strain + strain.T)[(1, 0, 0), (2, 2, 1)]
    return result


def atoms_of(target: Relaxable) -> Atoms:
    """The atoms themselves."""
    return target.atoms if isinstance(target, Filter) else target


def _held_by(target: Filter) -> Held:
    """What a filter does not let move."""
    if not has_cell(target):
        return Held.of("cell")
    mask = np.asarray(target.mask, dtype=bool)
    if mask.shape != (3, 3):
        xx, yy, zz, yz, xz, xy = mask.ravel()
        mask = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    names = [
        name
        for name, is_held in (
            ("shape", getattr(target, "hydrostatic_strain", False)),
            ("volume", getattr(target, "constant_volume", False)),
            ("positions", isinstance(target, StrainFilter)),
        )
        if is_held
    ]
    # The masks of these are on the logarithm of the deformation, of the others on itself.
    is_logarithm = isinstance(target, FrechetCellFilter | ExpCellFilter)
    kind = HeldStrains if is_logarithm else HeldComponents
    return Held(frozenset(names), (kind(held_strain(~mask)),))


def has_cell(target: Relaxable) -> bool:
    """Whether a filter has the cell among its degrees of freedom."""
    return isinstance(target, (UnitCellFilter, StrainFilter))


def checked_target(target: Any, name: str) -> Relaxable:
    """What is to be relaxed in one move: itself, or what ASE has wrapped for its optimizers.

    Raises:
        ValueError: It is neither Atoms nor a filter, or a filter that asks for pressure.
    """
    if isinstance(target, OptimizableAtoms):
        target = target.atoms
    elif isinstance(target, OptimizableFilter):
        target = target.filterobj
    if not isinstance(target, (Atoms, Filter)):
        msg = (
            f"{name} cannot relax a {type(target).__name__}: give it one ase.Atoms, or a filter "
            "such as ase.filters.FrechetCellFilter around one"
        )
        raise ValueError(msg)
    if isinstance(target, Filter) and not isinstance(target.atoms, Atoms):
        msg = (
            f"{name} cannot relax a filter around a {type(target.atoms).__name__}: put one filter "
            "around the atoms, and constraints on them"
        )
        raise ValueError(msg)
    pressure = getattr(target, "scalar_pressure", 0.0)
    if pressure:
        msg = (
            f"{name} predicts relaxation at zero pressure, and the filter asks for "
            f"scalar_pressure={pressure} eV/Å^3: set it to 0, or use a stock ASE optimizer"
        )
        raise ValueError(msg)
    checked: Relaxable = target
    return checked
