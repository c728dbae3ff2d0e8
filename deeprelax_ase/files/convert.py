"""Turn ASE Atoms into pymatgen Structures and back, for writers; what files say of constraints."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Bool
from pymatgen.core import Composition, Structure

from deeprelax_ase.files.moments import moments_of, up_or_down
from deeprelax_ase.structures.ase_adapter import (
    copied,
    directions_of,
    free_coordinates,
    holds_coordinates,
)
from deeprelax_ase.structures.boxes import cell_with_box
from deeprelax_ase.structures.read_structure import plain_crystal

_ALL = ("traj", "json", "db")
"""Formats of ASE that hold every constraint."""
_OWN_WORDS = ("castep-cell", "espresso-in")
"""Formats whose writers say themselves what they leave out."""
_SOME = {
    "extxyz": (FixAtoms, FixCartesian),
    "aims": (FixAtoms, FixCartesian),
    "eon": (FixAtoms,),
    "turbomole": (FixAtoms,),
}
"""Formats of ASE that hold some."""
_PARALLEL = 1e-6


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
        if "magmom" in made.site_properties:  # numbers of numpy, which no writer of YAML knows
            made.add_site_property("magmom", structure.get_initial_magnetic_moments().tolist())
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
    numbers = up_or_down(moments_of(structure))
    if numbers:  # as ASE has them; the direction of collinear moments is of no account
        structure = structure.copy(site_properties={"magmom": numbers})
    return structure.to_ase_atoms()


def _selective_dynamics(atoms: Atoms) -> Bool[np.ndarray, "atoms 3"] | None:
    """Flags of the fractional coordinates that may change; None where no constraint is said.

    Directions of space along which atoms are fixed are fractional coordinates where they span what
    these change along. Of other constraints a warning says that they are left out.
    """
    if not atoms.constraints:
        return None
    free, lost = free_coordinates(atoms), []
    across = np.linalg.inv(atoms.cell.array)
    across /= np.linalg.norm(across, axis=0)
    for constraint in atoms.constraints:
        if holds_coordinates(constraint):
            continue
        indices, directions = directions_of(constraint)
        held = np.zeros(3, dtype=bool)
        if len(directions):
            axes = np.linalg.svd(directions, full_matrices=False)[2]
            held = np.linalg.norm(across - axes.T @ (axes @ across), axis=0) < _PARALLEL
        if held.sum() == len(directions) and held.any():
            free[np.ix_(indices, held)] = False
        else:
            lost.append(type(constraint).__name__)
    _warn(lost, "selective dynamics")
    return None if free.all() else free


def warn_of_lost(frames: Sequence[Atoms], file_format: str) -> None:
    """Say which constraints a format of ASE does not hold."""
    if file_format in (*_ALL, *_OWN_WORDS):
        return
    said = _SOME.get(file_format, ())
    lost = [c for atoms in frames for c in atoms.constraints if not isinstance(c, said)]
    _warn([type(constraint).__name__ for constraint in lost], f"the format {file_format!r}")


def without_constraints(structure: Any, file_format: str) -> Any:
    """A structure for a format that holds no constraints."""
    if not isinstance(structure, Atoms) or not structure.constraints:
        return structure
    warn_of_lost([structure], file_format)
    return _unheld(structure)


def _unheld(atoms: Atoms) -> Atoms:
    plain = copied(atoms)
    plain.set_constraint()
    return plain


def _warn(lost: Sequence[str], what: str) -> None:
    if lost:
        names = ", ".join(sorted(set(lost)))
        text = f"constraints that {what} cannot hold are left out: {names} (a .traj holds them)"
        warnings.warn(text, stacklevel=4)
