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
_MOMENTS = "_atom_site_moment"
_OF_MOMENTS = re.compile(
    r"^\s*loop_\s*\n(?:\s*_atom_site_moment\S*\s*\n)+(?:(?!\s*(?:[_#;]|loop_|data_)).*\n)*",
    re.MULTILINE | re.IGNORECASE,
)
_OF_GROUP = re.compile(r"^\s*_space_group_magn\S*[ \t]+\S.*$", re.MULTILINE | re.IGNORECASE)
_NO_GROUPS = ("P1", "P1.1", "1.1", "1.1.1", "?", ".")
_ALONG_Z = 1e-6


def usual_tags(text: str) -> str:
    """A text with the tags of magnetic symmetry as pymatgen knows them, of several spellings."""
    text = _ELSEWHERE.sub(lambda tag: "_space_group_symop_magn_{}.{}".format(*tag.groups()), text)
    return _GROUP_ELSEWHERE.sub(lambda tag: f"_space_group_magn.{tag[1].lower()}_BNS", text)


def without_moments(text: str) -> str:
    """A text without the loop of moments, beside which pymatgen knows no ordinary symmetry."""
    return _OF_MOMENTS.sub("\n", text)


def without_group(text: str) -> str:
    """A text without the name of its magnetic group, of which pymatgen knows no P 1."""
    return _OF_GROUP.sub("", text)


def magnetism_of(block: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a block has moments or a magnetic group, and what it says of that group.

    Raises:
        StructureError: It is a modulated structure.
    """
    if any("_ssg" in tag for tag in block):
        msg = "is a modulated structure (its space group is one of superspace): give a supercell"
        raise StructureError(msg)
    named = [str(block[tag]) for tag in _GROUPS if tag in block]
    group = (named or (["listed"] if _OPERATIONS in block else [""]))[0]
    is_grouped = any(tag.startswith("_space_group_magn") for tag in block)
    return bool(group) or is_grouped or _has_moments(block), group


def _has_moments(block: Mapping[str, Any]) -> bool:
    """Whether a component of a moment is no zero."""
    for tag, values in block.items():
        if tag.startswith(_MOMENTS) and not tag.endswith(("label", "symmform")):
            for value in values if isinstance(values, list) else [values]:
                if re.search(r"[1-9]", re.sub(r"\(.*", "", str(value))):
                    return True
    return False


def check_moments(block: Mapping[str, Any], symmetry: CifSymmetry) -> None:
    """Refuse moments of which only an ordinary group is known: it does not turn them.

    Raises:
        StructureError: Its group is not P 1, or it says nothing of it and its parent group is not.
    """
    group = symmetry.name or "of its operations"
    is_p1 = bool(symmetry.operations) and all(len(one) == 1 for one in symmetry.operations)
    if not symmetry.name and not symmetry.is_listed:
        named = [value for tag, value in block.items() if tag.startswith("_space_group_magn.name")]
        group = str([*named, block.get(_PARENT, "P 1")][0]).strip("'\" ")
        is_p1 = group.replace(" ", "") in _NO_GROUPS
    if not is_p1:
        msg = (
            f"has magnetic moments, the space group {group!r}, and no magnetic "
            f"operations ({_OPERATIONS}), which say how moments turn: add these, list all atoms in "
            "P 1, or take the moments out"
        )
        raise StructureError(msg)


def is_whole(group: str) -> bool:
    """Whether a magnetic group makes no other atoms of those that are listed."""
    return group.replace(" ", "") in ("", *_NO_GROUPS)


def plain_moments(structure: Structure, block: Mapping[str, Any]) -> list[str]:
    """Make moments numbers, or vectors where some are not along z; tell of those that are lost.

    Writers of JSON and of VASP inputs know no objects of pymatgen there.
    """
    found = [moment.get_moment() for moment in structure.site_properties.get("magmom", [])]
    moments = np.array(found, dtype=float).reshape(-1, 3)
    if not moments.any():
        if "magmom" in structure.site_properties:
            structure.remove_site_property("magmom")
        lost = "its magnetic moments are left out: they are not along crystal axes, or of no site"
        return [lost] if _has_moments(block) else []
    is_along_z = bool((np.abs(moments[:, :2]) < _ALONG_Z).all())
    values = (moments[:, 2] if is_along_z else moments).tolist()
    structure.add_site_property("magmom", values)
    return []
