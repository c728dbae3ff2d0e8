"""Find the symmetry operations of a CIF block: those it lists, or those of the group it names.

What is not certain is refused, never taken for P 1: an unknown name, a name that fits no number,
an origin that nobody chose.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import spglib
from jaxtyping import Float

from deeprelax_ase.structures.symmetry import ask_spglib
from deeprelax_ase.structures.validation import StructureError

_LISTED = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NAMES = (
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_symmetry_space_group_name_h-m",
    "_symmetry_space_group_name_h_m",
    "_symmetry.space_group_name_h-m",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_HALL_NUMBERS = range(1, 531)
_UNKNOWN = {"", "?", "."}
_OLD_NAMES = {"cmca": "cmce", "abm2": "aem2", "aba2": "aea2", "cmma": "cmme", "ccca": "ccce"}
"""Names before the glide e came, in 1992, and those since."""
_CHOICES = {"s": "1", "z": "2", "o1": "1", "o2": "2", "hr": "h", "he": "h", "rh": "r"}
_TERM = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?)?\*?([xyz]?)")
_FITS = 0.01
"""Relative difference of a cell from its image under an operation."""

Operation = tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]
"""Rotation and translation of fractional coordinates."""


@dataclass(frozen=True)
class CifSymmetry:
    """The symmetry of a CIF block.

    Attributes:
        operations: Sets of operations; several where the block leaves the origin open, none where
            its name of a group is not known here.
        name: What it calls its space group; nothing where it names none.
        number: Of that group in the International Tables; 0 where it is not known.
        is_listed: Whether the block lists the operations itself.
    """

    operations: tuple[tuple[Operation, ...], ...]
    name: str
    number: int
    is_listed: bool


def cif_symmetry(block: Mapping[str, Any], metric: Float[np.ndarray, "3 3"]) -> CifSymmetry:
    """Find the operations of a block.

    Args:
        block: Its values, by tags in small letters.
        metric: Dot products of its cell vectors.

    Raises:
        StructureError: It names a space group whose operations cannot be found, or one that its
            cell does not have.
    """
    name, halls = _named(block, metric)
    number = _type(halls[0]).number if halls else 0
    texts = _first(block, _LISTED)
    if texts:
        listed = tuple(_operation(text) for text in ([texts] if isinstance(texts, str) else texts))
        _check_metric(name, listed, metric)
        return CifSymmetry((listed,), name, number, is_listed=True)
    if name and not halls:
        return CifSymmetry((), name, 0, is_listed=False)
    sets = tuple(map(_database, halls or [1]))
    _check_metric(name, sets[0], metric)
    return CifSymmetry(sets, name, number, is_listed=False)


def _named(
    block: Mapping[str, Any], metric: Float[np.ndarray, "3 3"]
) -> tuple[str, tuple[int, ...]]:
    """What the block calls its group, and the settings in spglib's list that it may be."""
    hall, name, number = (str(_first(block, tags) or "") for tags in (_HALL, _NAMES, _NUMBERS))
    name = _without_markup(name, number)
    found: tuple[int, ...] = ()
    if hall:
        found = _where(lambda one: _plain(_type(one).hall_symbol) == _plain(hall))
    if not found and name:
        found = _of_name(name)
    if number and not re.fullmatch(r"\d+(\.0*)?", number):
        msg = f"gives {number!r} as the number of its space group"
        raise StructureError(msg)
    of_number = _where(lambda one: _type(one).number == int(float(number))) if number else ()
    if found and of_number and not set(found) & set(of_number):
        msg = f"names the space group {name or hall!r} and the number {number}, which differ"
        raise StructureError(msg)
    both = tuple(hall for hall in found if hall in of_number) if found and of_number else found
    return name or hall or number, _that_fit(both or (() if name else of_number), metric)


def _without_markup(name: str, number: str) -> str:
    """A name without what journals and programs put into it; nothing where it is a number."""
    name = re.sub(r"<[^>]*>|[~$\s]*\bunknown\b", "", name, flags=re.IGNORECASE)
    name = re.sub(r"\\bar\s*\{?(\d)\}?|\\overline\s*\{?(\d)\}?", r"-\1\2", name)
    name = re.sub(r"[~\\{}$]", "", name)
    if number:
        name = re.sub(rf"\s*\(\s*(?:No\.?\s*)?{re.escape(number)}\s*\)\s*$", "", name)
    name = re.sub(r"(?<=\d)\((\d)\)", r"\1", name)  # 6(3)
    return "" if name.strip() == number else name


def _of_name(name: str) -> tuple[int, ...]:
    """Settings with a Hermann-Mauguin name, in any spelling."""
    plain = name.replace("'", "").replace('"', "").strip()
    main, _, suffix = (plain if ":" in plain else _with_colon(plain)).partition(":")
    choice = _CHOICES.get(suffix.strip(" )").lower(), suffix.strip(" )"))
    for spelling in (main, re.sub(r"(?<!-)3", "-3", main, count=1)):  # F m 3 m, of old
        wanted = {_plain(spelling), _OLD_NAMES.get(_plain(spelling), _plain(spelling))}
        found = tuple(one for one in _HALL_NUMBERS if wanted & _names(one))
        if found:
            chosen = tuple(hall for hall in found if _is_choice(_type(hall).choice, choice))
            # A choice where there is none says nothing.
            return chosen or (() if any(_type(hall).choice for hall in found) else found)
    return ()


def _is_choice(setting: str, wanted: str) -> bool:
    """Whether a setting of spglib, such as `2bca`, is the one that a name asks for."""
    plain = setting.lower()
    return wanted.lower() in ("", plain, plain[:1] if plain[:1] in ("1", "2") else "")


def _with_colon(name: str) -> str:
    """A name whose setting stands behind a space or in brackets: `R -3 m H`, `F d -3 m (2)`."""
    words = re.sub(r"\b(?:origin|choice|axes|setting|cell)\b|[={}]", " ", name, flags=re.IGNORECASE)
    found = re.fullmatch(
        r"(.*?)(?:\s*\(\s*(\w+)\s*\)|\s+((?i:S|Z|O[12]|HR|H|R|hexagonal|rhombohedral))"
        r"|(?<=[a-z\d])(HR?|R))\s*",
        words,
    )
    return f"{found[1]}:{(found[2] or found[3] or found[4])[:2]}" if found else name


def _plain(name: str) -> str:
    return re.sub(r"[\s_]", "", name).lower()


@lru_cache(maxsize=1024)
def _type(hall: int) -> Any:
    return ask_spglib(spglib.get_spacegroup_type, hall)


@lru_cache(maxsize=1024)
def _names(hall: int) -> frozenset[str]:
    entry = _type(hall)
    parts = [entry.international_short, entry.international_full, *entry.international.split("=")]
    short = [re.sub(r"^(\w) (?:1 )?(?:1 )?(\S\S+)(?: 1)?(?: 1)?$", r"\1\2", part) for part in parts]
    return frozenset(map(_plain, [*parts, *short]))  # P 1 2_1/n 1 is P 2_1/n too


def _where(condition: Callable[[int], bool]) -> tuple[int, ...]:
    return tuple(hall for hall in _HALL_NUMBERS if condition(hall))


def _that_fit(halls: Sequence[int], metric: Float[np.ndarray, "3 3"]) -> tuple[int, ...]:
    """Settings of the same axes as the first one whose operations keep the cell.

    Two are left where they differ in the choice of the origin alone.
    """
    fitting = [hall for hall in halls if _misfit(_database(hall), metric) < _FITS]
    if not fitting:
        return tuple(halls[:1])
    has_origins = _type(fitting[0]).choice[:1] in ("1", "2")
    return tuple(fitting[:2] if has_origins else fitting[:1])


@lru_cache(maxsize=64)
def _database(hall: int) -> tuple[Operation, ...]:
    found = ask_spglib(spglib.get_symmetry_from_database, hall)
    return tuple(
        (rotation.astype(float), translation)
        for rotation, translation in zip(found["rotations"], found["translations"], strict=True)
    )


def _operation(text: str) -> Operation:
    """An operation such as `-x+1/2, y, 1/4-z`."""
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    parts = re.sub(r"[\s'\"]", "", text).lower().strip(",").split(",")
    is_read = len(parts) == 3 and all(parts)  # noqa: PLR2004 - x, y and z
    for row, part in enumerate(parts[:3]):
        at = 0
        while at < len(part) and is_read:
            found = _TERM.match(part, at)
            is_read = bool(found and found[0].strip("+-*"))
            if not found or not is_read:
                break
            sign = -1.0 if found[1] == "-" else 1.0
            value = float(found[2] or 1) / float(found[3] or 1)
            if found[4]:
                rotation[row, "xyz".index(found[4])] += sign * value
            else:
                translation[row] += sign * value
            at = found.end()
    if not is_read or abs(abs(np.linalg.det(rotation)) - 1) > _FITS:
        msg = f"lists the symmetry operation {text!r}, which cannot be read"
        raise StructureError(msg)
    return rotation, translation


def text_of(operation: Operation) -> str:
    """An operation as CIFs write it."""
    rows = []
    for coefficients, shift in zip(*operation, strict=True):
        terms = [
            f"{'-' if value < 0 else '+'}{'' if abs(value) == 1 else f'{abs(value):g}*'}{letter}"
            for value, letter in zip(coefficients, "xyz", strict=True)
            if value
        ]
        fraction = Fraction(float(shift)).limit_denominator(48)
        last = f"{'-' if fraction < 0 else '+'}{abs(fraction)}" if fraction else ""
        rows.append("".join(terms).removeprefix("+") + last)
    return ",".join(rows)


def _misfit(operations: Iterable[Operation], metric: Float[np.ndarray, "3 3"]) -> float:
    largest = np.abs(metric).max()
    return max(float(np.abs(w.T @ metric @ w - metric).max() / largest) for w, _ in operations)


def _check_metric(
    name: str, operations: Sequence[Operation], metric: Float[np.ndarray, "3 3"]
) -> None:
    misfit = _misfit(operations, metric)
    if misfit > _FITS:
        lengths = np.sqrt(np.diag(metric))
        group = f"its space group {name!r}" if name else "its symmetry operations"
        msg = (
            f"has the cell a = {lengths[0]:g}, b = {lengths[1]:g}, c = {lengths[2]:g} Å, which "
            f"{group} cannot have: correct one of them"
        )
        raise StructureError(msg)


def _first(block: Mapping[str, Any], tags: Iterable[str]) -> Any:
    """Value of the first of some tags that is there and says something."""
    for tag in tags:
        value = block.get(tag)
        if isinstance(value, list):
            if any(one.strip() not in _UNKNOWN for one in value):
                return value
        elif value is not None and value.strip(" '\"") not in _UNKNOWN:
            return value.strip()
    return None
