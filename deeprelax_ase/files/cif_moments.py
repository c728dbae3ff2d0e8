"""Magnetic moments of a CIF block: whether its symmetry says what they are, and as numbers.

Tags are those of the magnetic dictionary (https://www.iucr.org/resources/cif/dictionaries/cif_mag).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pymatgen.core import Structure

from deeprelax_ase.files.cif_symmetry import CifSymmetry
from deeprelax_ase.structures.validation import StructureError

_OPERATIONS = "_space_group_symop_magn_operation.xyz"
_GROUPS = ("_space_group_magn.name_bns", "_space_group_magn.number_bns")
_PARENT = "_parent_space_group.name_h-m_alt"
_ELSEWHERE = re.compile(
    r"_space_group_symop[._]magn_(operation|centering)[._](xyz|id)\b", re.IGNORECASE
)
_GROUP_ELSEWHERE = re.compile(r"_space_group_magn[._](name|number)_BNS\b", re.IGNORECASE)
_ALONG_Z = 1e-6


def usual_tags(text: str) -> str:
    """A text with the tags of magnetic symmetry as pymatgen knows them, of several spellings."""
    text = _ELSEWHERE.sub(lambda tag: "_space_group_symop_magn_{}.{}".format(*tag.groups()), text)
    return _GROUP_ELSEWHERE.sub(lambda tag: f"_space_group_magn.{tag[1].lower()}_BNS", text)


def has_moments(block: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a block has moments or a magnetic group, and what it says of that group."""
    is_magnetic = any("magn" in tag or "_atom_site_moment" in tag for tag in block)
    named = [str(block[tag]) for tag in _GROUPS if tag in block]
    return is_magnetic, (named or (["listed"] if _OPERATIONS in block else [""]))[0]


def check_moments(block: Mapping[str, Any], symmetry: CifSymmetry) -> None:
    """Refuse moments of which only an ordinary group is known: it does not turn them.

    Raises:
        StructureError: The group, or that of the crystal without moments, is not P 1.
    """
    parent = str(block.get(_PARENT, "P 1")).strip("'\" ")
    is_p1 = all(len(one) == 1 for one in symmetry.operations) and symmetry.operations
    if not is_p1 or parent.replace(" ", "") not in ("P1", "?", "."):
        msg = (
            f"has magnetic moments, the space group {symmetry.name or parent!r}, and no magnetic "
            f"operations ({_OPERATIONS}), which say how moments turn: add these, list all atoms in "
            "P 1, or take the moments out"
        )
        raise StructureError(msg)


def plain_moments(structure: Structure) -> Structure:
    """The structure with moments that are numbers, or vectors where some are not along z.

    Writers of JSON and of VASP inputs know no objects of pymatgen there.
    """
    if "magmom" in structure.site_properties:
        found = [moment.get_moment() for moment in structure.site_properties["magmom"]]
        moments = np.array(found, dtype=float)
        is_along_z = bool((np.abs(moments[:, :2]) < _ALONG_Z).all())
        values = (moments[:, 2] if is_along_z else moments).tolist()
        structure.add_site_property("magmom", values)
    return structure
