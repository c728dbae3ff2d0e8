"""Check that the structure of a CIF block is the one that the block describes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import spglib
from pymatgen.core import Composition, Element, Structure

from deeprelax_ase.files.cif_symmetry import CifSymmetry
from deeprelax_ase.structures.crystal import LEAST_DISTANCE
from deeprelax_ase.structures.elements import HYDROGEN_ISOTOPES
from deeprelax_ase.structures.symmetry import ask_spglib
from deeprelax_ase.structures.validation import StructureError

COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_FORMULAS = ("_chemical_formula_sum", "_chemical_formula_structural")
_MULTIPLICITIES = ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity")
_MANY = ("Wat", "wat", "OH", "NO3")
"""What pymatgen takes for water, hydroxide or nitrate: sites of more than one atom."""
_VACANCY_LABEL = re.compile("vac", re.IGNORECASE)
_VACANCY = re.compile("Va(?![a-z])|[Vv][Aa][Cc]")
_RATIO = 0.02
"""Difference of two compositions in atomic fractions."""


def check_sites(block: Mapping[str, Any]) -> list[str]:
    """Refuse sites without a place, that would be left out, or that are more than one atom."""
    names = block.get("_atom_site_type_symbol", block.get("_atom_site_label", []))
    names = [names] if isinstance(names, str) else names
    vacancy = _VACANCY if "_atom_site_type_symbol" in block else _VACANCY_LABEL
    for tag in COORDINATES:
        if tag not in block:
            msg = f"gives no fractional coordinates ({tag}): it cannot be read as a crystal"
            raise StructureError(msg)
        for site, value in enumerate(block[tag] if isinstance(block[tag], list) else []):
            if value in (".", "?"):
                label = block.get("_atom_site_label", names)[site]
                msg = f"says of the site {label!r} that its {tag} is {value!r}, which is no number"
                raise StructureError(msg)
    guessed = _check_occupancies(block, names)
    for name in names:
        symbol = _symbol_of(name, vacancy)
        if not re.match(rf"{symbol}(?![a-z])", name):
            guessed.add(f"site {name!r} is read as {symbol}")
    hydrogens = block.get("_atom_site_attached_hydrogens", [])
    if any(re.search("[1-9]", value) for value in hydrogens):
        msg = "leaves out hydrogen atoms (_atom_site_attached_hydrogens): add their sites"
        raise StructureError(msg)
    return sorted(guessed)


def _symbol_of(name: str, vacancy: re.Pattern[str]) -> str:
    """Element of a site, by its symbol or label."""
    letters = re.match(r"[A-Za-z]*", name)
    symbols = [(letters[0] if letters else "")[:count].title() for count in (2, 1)]
    found = [symbol for symbol in symbols if Element.is_valid_symbol(symbol)]
    problem = "" if found else "names no element"
    problem = "is a vacancy: take it out" if vacancy.match(name) else problem
    if name.startswith(_MANY):
        problem = "is more than one atom: give each its own site"
    if problem:
        msg = f"has the site {name!r}, which {problem}"
        raise StructureError(msg)
    return found[0]


def _check_occupancies(block: Mapping[str, Any], names: Sequence[str]) -> set[str]:
    """Refuse negative occupancies; what should be told of sites that are empty."""
    values = block.get("_atom_site_occupancy", [])
    labels = block.get("_atom_site_label", names)
    if not isinstance(values, list) or not isinstance(labels, list):
        return set()
    told = set()
    for label, value in zip(labels, values, strict=False):
        number = re.match(r"-?(\d+\.?\d*|\.\d+)", value)
        if number and float(number[0]) < 0:
            msg = f"says of the site {label!r} that its occupancy is {value}: it has to be 0 to 1"
            raise StructureError(msg)
        if number and not float(number[0]):
            told.add(f"site {label!r} is left out: its occupancy is {value}")
    return told


def fits_file(structure: Structure, block: Mapping[str, Any], symmetry: CifSymmetry) -> bool:
    """Whether a structure has the formula and the multiplicities that the block gives.

    Of those that leave the origin open; without either, every one fits.
    """
    if len(symmetry.operations) < 2:  # noqa: PLR2004 - only then there is a choice
        return True
    formula = _formula(block)
    if formula is not None and _ratio(structure, formula) > _RATIO:
        return False
    counts = next((block[tag] for tag in _MULTIPLICITIES if tag in block), None)
    labels = block.get("_atom_site_label")
    if isinstance(counts, list) and isinstance(labels, list) and all(c.isdecimal() for c in counts):
        expected: dict[str, int] = {}
        for label, count in zip(labels, counts, strict=True):
            expected[label] = expected.get(label, 0) + int(count)
        return all(
            sum(site.label == label for site in structure) == count
            for label, count in expected.items()
        )
    return True


def check_group(structure: Structure, symmetry: CifSymmetry) -> None:
    """Refuse a block that names a group, and lists nothing but the identity of it.

    Unless its sites are all atoms, which then have the symmetry of that group.
    """
    if len(symmetry.operations) != 1 or len(symmetry.operations[0]) > 1 or symmetry.number <= 1:
        return
    if structure.is_ordered:
        cell = structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers
        found = ask_spglib(spglib.get_symmetry_dataset, cell, symprec=0.01, angle_tolerance=5)
        if found is not None and found.number >= symmetry.number:
            return
    msg = (
        f"names the space group {symmetry.name!r} and lists the operation x,y,z alone, which does "
        "not make its symmetry: add the operations"
    )
    raise StructureError(msg)


def check_formula(structure: Structure, block: Mapping[str, Any]) -> list[str]:
    """Refuse a structure that lacks an element of the formula, and tell of another ratio."""
    formula = _formula(block)
    if formula is None:
        return []
    given = {element.symbol for element in formula}
    found = {element.symbol for element in structure.composition.element_composition}
    hydrogen = {"H", *HYDROGEN_ISOTOPES}
    missing = given - found - (hydrogen if found & hydrogen else set())
    if missing:
        msg = (
            f"has no sites of {', '.join(sorted(missing))}, which its formula names: add them, or "
            "correct _chemical_formula_sum"
        )
        raise StructureError(msg)
    if structure.is_ordered and _ratio(structure, formula) > _RATIO:
        made = structure.composition.reduced_formula
        return [f"its sites are {made}, and its formula says {formula.reduced_formula}"]
    return []


def _formula(block: Mapping[str, Any]) -> Composition | None:
    for tag in _FORMULAS:
        text = str(block.get(tag, "")).strip(" '\"")
        try:
            formula = Composition(re.sub(r"\s", "", text)) if re.search("[A-Z]", text) else None
        except (ValueError, KeyError):
            continue
        if formula and formula.valid:
            return formula
    return None


def _ratio(structure: Structure, formula: Composition) -> float:
    """Largest difference of two compositions in atomic fractions."""
    made = structure.composition.element_composition
    elements = {*made, *formula}
    return max(
        abs(made.get_atomic_fraction(one) - formula.get_atomic_fraction(one)) for one in elements
    )


def closest(structure: Structure) -> float:
    """Smallest distance of two atoms (Å), as far as it is below the least that is allowed."""
    distances = structure.get_neighbor_list(LEAST_DISTANCE)[3]
    return float(min(distances, default=LEAST_DISTANCE))


def is_same(one: Structure, other: Structure) -> bool:
    """Whether two structures have the same atoms, as far apart."""
    if one.composition != other.composition:
        return False
    first, second = (np.sort(structure.distance_matrix, None) for structure in (one, other))
    return bool(np.allclose(first, second))
