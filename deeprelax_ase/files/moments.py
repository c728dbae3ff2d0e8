"""Magnetic moments of atoms, as numbers or vectors, and which formats hold them."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

_VECTORS = ("traj", "json", "db", "extxyz", "cif", "mcif", "pymatgen-json", "yaml")
"""Formats that hold moments of any direction."""
_NUMBERS = ("aims", "castep-cell", "abinit-in", "elk-in", "espresso-in")
"""Formats that hold moments up and down."""
_COLLINEAR = 1e-3
"""Components of moments across the direction of the others, in Bohr magnetons."""


def moments_of(structure: Any) -> list[Any]:
    """Moments of the atoms of a structure of ASE or pymatgen; none where all are zero."""
    if isinstance(structure, Atoms):
        given = structure.arrays.get("initial_magmoms", np.zeros(0)).tolist()
    else:
        given = structure.site_properties.get("magmom", [])
    is_some = any(np.any(m) if np.ndim(m) else float(m or 0.0) for m in given)
    return list(given) if is_some else []


def up_or_down(moments: Sequence[Any]) -> list[float] | None:
    """Moments as numbers, of which the first is positive where they were vectors.

    Where they are not along one axis, None.
    """
    if not any(np.ndim(moment) for moment in moments):
        return [float(moment or 0.0) for moment in moments]
    rows = [m if np.ndim(m) else (0.0, 0.0, float(m or 0.0)) for m in moments]
    vectors = np.array(rows, dtype=float)
    axis = np.linalg.svd(vectors)[2][0]
    along = vectors @ axis
    if np.abs(vectors - np.outer(along, axis)).max() > _COLLINEAR:
        return None
    first = along[np.flatnonzero(np.abs(along) > _COLLINEAR)[:1]]
    found: list[float] = (along * np.sign(first).prod() + 0.0).tolist()
    return found


def fitting_moments(structures: Sequence[Any], file_format: str) -> list[Any]:
    """Structures with moments as a format holds them, with a warning where it does not."""
    if file_format in _VECTORS:
        return list(structures)
    fitted, is_lost = [], False
    for structure in structures:
        moments = moments_of(structure)
        numbers = up_or_down(moments) if file_format in _NUMBERS else None
        is_lost |= bool(moments) and numbers is None
        fitted.append(_with_moments(structure, numbers) if moments else structure)
    if is_lost:
        what = f"magnetic moments that the format {file_format!r} cannot hold"
        warnings.warn(f"{what} are left out (a .traj holds them)", stacklevel=3)
    return fitted


def _with_moments(structure: Any, moments: list[float] | None) -> Any:
    """A copy with other moments, or without any."""
    changed = structure.copy()
    if isinstance(structure, Atoms):
        changed.calc = structure.calc
        changed.set_initial_magnetic_moments(moments)
    elif moments is None:
        changed.remove_site_property("magmom")
    else:
        changed.add_site_property("magmom", moments)
    return changed
