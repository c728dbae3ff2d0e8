"""What an ASE optimizer is given: atoms, or a filter that decides what of them may move."""

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.filters import Filter, StrainFilter, UnitCellFilter
from jaxtyping import Float

from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.ase_adapter import move_atoms
from deeprelax_ase.structures.crystal import exp_symmetric
from deeprelax_ase.structures.read_structure import read_structure

Relaxable: TypeAlias = Atoms | Filter


def apply_move(target: Relaxable, result: RelaxResult, vacuum: str) -> RelaxResult:
    """Move the atoms, or what a filter shows of them, to where a result puts them, in place.

    Constraints hold. A cell filter decides on the cell: its mask, `hydrostatic_strain` and
    `constant_volume` are honoured. A plain filter moves its visible atoms in a fixed cell.

    Args:
        target: What is moved.
        result: Of a relaxation of these atoms.
        vacuum: As the relaxer was made with.

    Returns:
        The result with the strain and the displacement that were in fact made.
    """
    if not result.displacement.any() and not result.strain.any():
        return result  # nor is what a calculator knows of the atoms lost
    atoms = atoms_of(target)
    strain = result.strain
    if has_cell(target):
        strain = _filtered_strain(target, strain)
    elif isinstance(target, Filter):
        strain = np.zeros((3, 3))
    displacement = result.displacement
    if isinstance(target, StrainFilter):
        displacement = np.zeros_like(displacement)
    elif isinstance(target, Filter) and not isinstance(target, UnitCellFilter):
        visible = np.zeros((len(atoms), 1))
        visible[target.index] = 1.0
        displacement = displacement * visible
    deformation = exp_symmetric(strain)
    before = read_structure(atoms.copy(), vacuum)
    if isinstance(target, StrainFilter):
        components = deformation - np.eye(3)
        shear = 2 * components[(1, 0, 0), (2, 2, 1)]
        target.set_positions(np.concatenate([components.diagonal(), shear]).reshape(2, 3))
    else:
        moved = before.with_relaxed(displacement, deformation)
        move_atoms(atoms, moved.positions, np.array(moved.cell), deformation)
    displacement, strain = before.measure(atoms)
    return replace(result, displacement=displacement, strain=strain)


def atoms_of(target: Relaxable) -> Atoms:
    """The atoms themselves."""
    return target.atoms if isinstance(target, Filter) else target


def _filtered_strain(
    target: UnitCellFilter | StrainFilter, strain: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3"]:
    """What a cell filter lets through of a strain."""
    mask = np.asarray(target.mask, dtype=float)
    if mask.shape != (3, 3):
        xx, yy, zz, yz, xz, xy = mask.ravel()
        mask = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    strain = strain * mask
    if getattr(target, "hydrostatic_strain", False):
        strain = np.trace(strain) / 3 * np.eye(3)
    if getattr(target, "constant_volume", False):
        strain = strain - np.trace(strain) / 3 * np.eye(3)
    return strain


def has_cell(target: Relaxable) -> bool:
    """Whether a filter has the cell among its degrees of freedom."""
    return isinstance(target, (UnitCellFilter, StrainFilter))


def check_target(target: Any, name: str) -> None:
    """Refuse what cannot be relaxed in one move.

    Raises:
        ValueError: It is neither Atoms nor a filter, or a filter that asks for pressure.
    """
    if not isinstance(target, (Atoms, Filter)):
        msg = (
            f"{name} cannot relax a {type(target).__name__}: give it one ase.Atoms, or a filter "
            "such as ase.filters.FrechetCellFilter around one"
        )
        raise ValueError(msg)
    pressure = getattr(target, "scalar_pressure", 0.0)
    if pressure:
        msg = (
            f"{name} predicts relaxation at zero pressure, and the filter asks for "
            f"scalar_pressure={pressure} eV/Å^3: set it to 0, or use a stock ASE optimizer"
        )
        raise ValueError(msg)
