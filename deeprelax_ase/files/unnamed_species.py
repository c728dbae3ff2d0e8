"""Give elements to files that do not say them: types of LAMMPS, old XDATCAR files.

An element is taken from what the file says, or from the user; never from the number of a type.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deeprelax_ase.structures.elements import atomic_masses, atomic_numbers, chemical_symbols
from deeprelax_ase.structures.validation import StructureError

_MASS = 0.1
"""Masses (g/mol) of an element differ by no more from file to file."""
_FEW = 3
_HEAD = 5  # comment, scale, three lattice vectors


def parse_species(text: str | None) -> tuple[str, ...]:
    """Read a list of elements such as `Mg,O`.

    Raises:
        StructureError: One of them is no element.
    """
    names = re.split(r"[\s,]+", text.strip(" ,")) if text and text.strip(" ,") else []
    unknown = [name for name in names if name not in atomic_numbers or name == "X"]
    if unknown:
        msg = f"--species {text}: {unknown[0]!r} is no element; name them as in Mg,O"
        raise StructureError(msg)
    return tuple(names)


def missing_species(count: int, what: str, more: str = "") -> StructureError:
    """The error for a file that does not say its elements."""
    if count == 1:
        msg = f"does not name the element of its one {what}{more}: give --species Mg"
        return StructureError(msg)
    numbers = " and ".join(map(str, range(1, count + 1))) if count <= _FEW else f"1 to {count}"
    msg = (
        f"does not name the elements of its {what}s {numbers}{more}: give them in order, "
        "--species Mg,O"
    )
    return StructureError(msg)


def lammps_data_numbers(text: str, species: Sequence[str]) -> dict[int, int]:
    """Atomic numbers of the types of a LAMMPS data file.

    They are those that the user names, or else those of its type labels, of the comments behind
    its masses, or of the masses.

    Raises:
        StructureError: The file does not say them, or contradicts itself, and no species are given.
    """
    count = int(_found(r"^\s*(\d+)\s+atom\s+types", text) or 0)
    if species:
        return _numbered(species, count)
    labels = {kind: name for kind, name, _ in _rows(text, "Atom Type Labels")}
    masses = {kind: (float(mass), note) for kind, mass, note in _rows(text, "Masses")}
    named = {kind: note for kind, (_, note) in masses.items() if note in atomic_numbers}
    for names in (labels, named):
        if names and len(names) == max(count, 1) and set(names.values()) <= set(atomic_numbers):
            _check_masses(names, masses)
            return {kind: atomic_numbers[name] for kind, name in names.items()}
    numbers = {kind: number_of_mass(mass) for kind, (mass, _) in masses.items()}
    all_one = {mass for mass, _ in masses.values()} == {1.0}  # in units of Lennard-Jones
    if not numbers or None in numbers.values() or len(numbers) < count or all_one:
        raise missing_species(max(count, 1), "type")
    return {kind: number for kind, number in numbers.items() if number is not None}


def _check_masses(names: Mapping[int, str], masses: Mapping[int, tuple[float, str]]) -> None:
    for kind, name in names.items():
        found = number_of_mass(masses[kind][0]) if kind in masses else None
        if found is not None and found != atomic_numbers[name]:
            msg = (
                f"calls type {kind} {name}, and gives it the mass of {chemical_symbols[found]}: "
                "name the elements of its types in order, such as --species Mg,O"
            )
            raise StructureError(msg)


def lammps_dump_species(text: str, species: Sequence[str]) -> tuple[str, ...]:
    """Elements of the types of a LAMMPS dump, or none where it names the elements itself.

    Raises:
        StructureError: It does not, and no species are given.
    """
    columns = (_found(r"^ITEM: ATOMS\s+(.*)$", text) or "").split()
    if {"element", "mass"} & set(columns):
        return ()
    if "type" not in columns:
        msg = "has neither a column of elements nor one of types"
        raise StructureError(msg)
    place, largest, is_atoms = columns.index("type"), 0, False
    for line in text.splitlines():
        if line.startswith("ITEM:"):
            is_atoms = line.startswith("ITEM: ATOMS")
        elif is_atoms and line.strip():
            largest = max(largest, int(line.split()[place]))
    if not species:
        raise missing_species(largest, "type")
    _numbered(species, largest)
    return tuple(species)


def with_xdatcar_species(text: str, species: Sequence[str]) -> str:
    """An XDATCAR with a line of species above the counts, where it has none.

    Raises:
        StructureError: It has none, and the user named none, or another number of them.
    """
    lines = text.split("\n")
    counts = lines[_HEAD].split() if len(lines) > _HEAD else []
    if not counts or not all(word.isdecimal() for word in counts):
        return text
    if not species:
        raise missing_species(len(counts), "group")
    _numbered(species, len(counts))
    return "\n".join([*lines[:_HEAD], " ".join(species), *lines[_HEAD:]])


def number_of_mass(mass: float) -> int | None:
    """Atomic number of the element of a mass (g/mol); None if no element has it."""
    number = int(abs(atomic_masses - mass)[1:].argmin()) + 1
    return number if abs(atomic_masses[number] - mass) <= _MASS else None


def _numbered(species: Sequence[str], count: int) -> dict[int, int]:
    if len(species) != count:
        msg = f"has {count} types of atoms, and --species names {len(species)}: name one for each"
        raise StructureError(msg)
    return {kind: atomic_numbers[name] for kind, name in enumerate(species, 1)}


def _found(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, flags=re.MULTILINE)
    return found[1] if found else None


def _rows(text: str, section: str) -> list[tuple[int, Any, str]]:
    """Number, value and comment of the lines of a section of a LAMMPS data file."""
    rows: list[tuple[int, Any, str]] = []
    is_inside = False
    for line in text.splitlines():
        plain, _, note = line.partition("#")
        words = plain.split()
        if is_inside and words and not words[0].isdecimal():
            break
        if is_inside and len(words) > 1:
            rows.append((int(words[0]), words[1], (note.split() or [""])[0]))
        is_inside = is_inside or plain.strip() == section
    return rows
