"""Turn ASE Atoms into pymatgen Structures and back, for writers; what files say of constraints."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Bool
from pymatgen.core import Composition, Structure

from deeprelax_ase.structures.ase_adapter import free_coordinates, holds_coordinates
from deeprelax_ase.structures.boxes import cell_with_box
from deeprelax_ase.structures.read_structure import plain_crystal

_ALL = ("traj", "json", "db")
"""Formats of ASE that hold every constraint."""
_OWN_WORDS = ("castep-cell", "espresso-in")
"""Formats whose writers say themselves what they leave out."""
_CARTESIAN = ("extxyz", "aims")
"""Formats of ASE that hold whole atoms and Cartesian components."""


def as_structure(structure: Any) -> Structure:
    """Turn ASE Atoms into a pymatgen Structure; leave a Structure as it is."""
    if isinstance(structure, Atoms):
        from pymatgen.io.ase import AseAtomsAdaptor

        if not structure.pbc.all():  # pymatgen has no crystal without a cell
            structure = structure.copy()
            box = cell_with_box(plain_crystal(structure))
            structure.set_cell(box, apply_constraint=False)
        flags = _selective_dynamics(structure)
        made = AseAtomsAdaptor.get_structure(_unheld(structure))
        if flags is not None:
            made.add_site_property("selective_dynamics", flags.tolist())
        return made
    return structure


def as_atoms(structure: Any) -> Atoms:
    """Turn a pymatgen Structure into ASE Atoms; leave Atoms as they are.

    Species of one element that share a site are one atom, which ASE cannot say in another way.
    """
    if isinstance(structure, Atoms):
        return structure
    if not structure.is_ordered:
        structure = structure.copy()
        for site in structure:
            site.species = Composition({next(iter(site.species)): 1})
    return structure.to_ase_atoms()


def _selective_dynamics(atoms: Atoms) -> Bool[np.ndarray, "atoms 3"] | None:
    """Flags of the fractional coordinates that may change; None where no constraint is said.

    Cartesian components are fractional ones where the cell vectors lie along the axes. Of other
    constraints a warning says that they are left out.
    """
    if not atoms.constraints:
        return None
    free, lost = free_coordinates(atoms), []
    is_along_axes = not (atoms.cell.array * ~np.eye(3, dtype=bool)).any()
    for constraint in atoms.constraints:
        if isinstance(constraint, FixCartesian) and is_along_axes:
            free[np.ix_(np.atleast_1d(constraint.index), constraint.mask)] = False
        elif not holds_coordinates(constraint):
            lost.append(type(constraint).__name__)
    _warn(lost, "selective dynamics")
    return None if free.all() else free


def warn_of_lost(frames: Sequence[Atoms], file_format: str) -> None:
    """Say which constraints a format of ASE does not hold."""
    if file_format in (*_ALL, *_OWN_WORDS):
        return
    said = (FixAtoms, FixCartesian) if file_format in _CARTESIAN else ()
    lost = [c for atoms in frames for c in atoms.constraints if not isinstance(c, said)]
    _warn([type(constraint).__name__ for constraint in lost], f"the format {file_format!r}")


def without_constraints(structure: Any, file_format: str) -> Any:
    """A structure for a format that holds no constraints."""
    if not isinstance(structure, Atoms) or not structure.constraints:
        return structure
    warn_of_lost([structure], file_format)
    return _unheld(structure)


def _unheld(atoms: Atoms) -> Atoms:
    plain = atoms.copy()
    plain.set_constraint()
    plain.calc = atoms.calc
    return plain


def _warn(lost: Sequence[str], what: str) -> None:
    if lost:
        names = ", ".join(sorted(set(lost)))
        text = f"constraints that {what} cannot hold are left out: {names} (a .traj holds them)"
        warnings.warn(text, stacklevel=4)
