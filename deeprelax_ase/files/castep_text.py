"""Edit the text of a CASTEP .cell file: read its structure, write a new one into it, keep the rest.

Only the blocks of lattice and positions change. What the calculation holds in the cell is not read
here, what it holds of the atoms is.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.geometry import cellpar_to_cell
from jaxtyping import Float

from deeprelax_ase.files.file_text import fortran_float
from deeprelax_ase.structures.elements import atomic_numbers, chemical_symbols
from deeprelax_ase.structures.validation import StructureError

_UNITS = {"ang": 1.0, "bohr": 0.529177210903, "a0": 0.529177210903, "nm": 10.0, "pm": 0.01}
_UNITS |= {"m": 1e10, "cm": 1e8}
_BLOCK = re.compile(r"^\s*%(end)?block\s+(\w+)", re.IGNORECASE)
_LATTICES = ("LATTICE_CART", "LATTICE_ABC")
_POSITIONS = ("POSITIONS_FRAC", "POSITIONS_ABS")
_SPIN = re.compile(r"\bspin\s*[=:]?\s*([-+]?\d*\.?\d+)", re.IGNORECASE)
_FIXED = re.compile(r"^\s*FIX_ALL_IONS\s*[:=]?\s*T", re.IGNORECASE | re.MULTILINE)


def read_castep_text(text: str) -> Atoms:
    """Read the structure of a .cell file; atoms that it fixes are constraints.

    Raises:
        StructureError: It cannot be read; the message says why.
    """
    try:
        cell = _cell(text)
        name, rows, factor = _block(text, _POSITIONS)
        places = np.array([_numbers(row[1:4]) for row in rows]).reshape(-1, 3)
        positions = places @ cell if name == "POSITIONS_FRAC" else places * factor
        atoms = Atoms([_element(row[0]) for row in rows], positions, cell=cell, pbc=True)
        spins = _spins(rows)
        if any(spins):
            atoms.set_initial_magnetic_moments(spins)
    except ValueError as error:
        msg = f"cannot be read as a CASTEP .cell file: {error}"
        raise StructureError(msg) from error
    labels = [re.split(r"[:|]", row[0])[0].lower() for row in rows]
    atoms.set_constraint(_constraints(text, labels))
    return atoms


def write_castep_text(text: str, atoms: Atoms) -> str:
    """Write the text with another cell and other positions, its atoms in the same order."""
    lines: list[str] = []
    scaled = iter(atoms.get_scaled_positions(wrap=False))
    for block, line in _lines(text):
        mark = _BLOCK.match(line)
        if block in _LATTICES:
            if mark and not mark[1]:
                vectors = [" ".join(f"{x:18.12f}" for x in vector) for vector in atoms.cell]
                lines += ["%BLOCK LATTICE_CART", "ang", *vectors, "%ENDBLOCK LATTICE_CART"]
        elif block in _POSITIONS and mark:
            lines.append(f"%{(mark[1] or '').upper()}BLOCK POSITIONS_FRAC")
        elif block in _POSITIONS and len(_words(line)) > 1:
            label, *rest = line.split()
            place = " ".join(f"{x:18.14f}" for x in next(scaled))
            lines.append(f"{label} {place} {' '.join(rest[3:])}".rstrip())
        elif block not in (*_POSITIONS, "IONIC_VELOCITIES"):
            lines.append(line)
    return "\n".join([*lines, ""])


def has_velocities(text: str) -> bool:
    """Whether there are velocities, which `write_castep_text` leaves out."""
    return any(block == "IONIC_VELOCITIES" for block, _ in _lines(text))


def _cell(text: str) -> Float[np.ndarray, "3 3"]:
    name, rows, factor = _block(text, _LATTICES)
    values = np.array([_numbers(row[:3]) for row in rows])
    if values.shape != ((3, 3) if name == "LATTICE_CART" else (2, 3)):
        msg = f"{name} holds {len(values)} lines of numbers"
        raise ValueError(msg)
    if name == "LATTICE_CART":
        return values * factor
    cell: np.ndarray = cellpar_to_cell([*values[0] * factor, *values[1]])
    return cell


def _spins(rows: Sequence[Sequence[str]]) -> list[float]:
    """Moments behind the coordinates of atoms, such as SPIN= 2.0."""
    found = [_SPIN.search(" ".join(row[4:])) for row in rows]
    return [float(spin[1]) if spin else 0.0 for spin in found]


def _block(text: str, names: Sequence[str]) -> tuple[str, list[list[str]], float]:
    """Name of the one block of these that is there, the words of its lines, and its unit in Å."""
    found = [(block, _words(line)) for block, line in _lines(text) if block in names]
    kinds = {block for block, _ in found}
    if len(kinds) != 1:
        msg = f"it has {len(kinds)} of the blocks {' and '.join(names)}: one is needed"
        raise ValueError(msg)
    rows = [words for _, words in found if words and not words[0].startswith("%")]
    factor = 1.0
    if rows and len(rows[0]) == 1:
        unit = rows.pop(0)[0].lower()
        if unit not in _UNITS:
            msg = f"{unit!r} is no unit of length: choose {', '.join(_UNITS)}"
            raise ValueError(msg)
        factor = _UNITS[unit]
    return kinds.pop(), rows, factor


def _constraints(text: str, labels: Sequence[str]) -> list[FixAtoms | FixCartesian]:
    """What FIX_ALL_IONS and IONIC_CONSTRAINTS hold.

    Raises:
        StructureError: It is more than single Cartesian coordinates of single atoms.
    """
    if _FIXED.search(text):
        return [FixAtoms(list(range(len(labels))))]
    rows = [_words(line) for block, line in _lines(text) if block == "IONIC_CONSTRAINTS"]
    held: dict[int, set[int]] = {}
    numbers: set[str] = set()
    for row in rows:
        if not row or row[0].startswith("%"):
            continue
        species = re.split(r"[:|]", row[1])[0].lower() if len(row) > 1 else ""
        same = [k for k, label in enumerate(labels) if label == species]
        axes = [k for k, word in enumerate(row[3:6]) if float(word) != 0]
        if len(row) < 6 or row[0] in numbers or len(axes) != 1:  # noqa: PLR2004 - as described
            msg = f"IONIC_CONSTRAINTS {' '.join(row)!r} holds more than one coordinate of one atom"
            raise StructureError(msg)
        if not 1 <= int(row[2]) <= len(same):
            msg = f"IONIC_CONSTRAINTS {' '.join(row)!r} names an atom that is not there"
            raise StructureError(msg)
        numbers.add(row[0])
        held.setdefault(same[int(row[2]) - 1], set()).add(axes[0])
    masks = {atom: tuple(k in axes for k in range(3)) for atom, axes in held.items()}
    return [
        FixAtoms([atom]) if all(mask) else FixCartesian([atom], mask)
        for atom, mask in sorted(masks.items())
    ]


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Lines, each with the name of the block it belongs to."""
    block = ""
    for line in text.splitlines():
        mark = _BLOCK.match(line)
        block = mark[2].upper() if mark else block
        yield block, line
        if mark and mark[1]:
            block = ""


def _words(line: str) -> list[str]:
    return re.split(r"[!#;]", line, maxsplit=1)[0].split()


def _element(label: str) -> str:
    """Element of a label such as Fe, fe:1, or an atomic number."""
    name = re.split(r"[:|]", label)[0]
    if name.isdecimal() and 0 < int(name) < len(chemical_symbols):
        return chemical_symbols[int(name)]
    if name.capitalize() not in atomic_numbers or name.upper() == "X":
        msg = f"{label!r} is no element"
        raise ValueError(msg)
    return name.capitalize()


def _numbers(words: Sequence[str]) -> list[float]:
    values = [fortran_float(word) for word in words]
    if len(values) != 3:  # noqa: PLR2004 - x, y and z
        msg = f"{' '.join(words)!r} are no three numbers"
        raise ValueError(msg)
    return values
