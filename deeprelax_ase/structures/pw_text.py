"""The text of a pw.x input of Quantum ESPRESSO: read by ASE, given a new cell and positions.

All other namelists and cards stay as they are: https://www.quantum-espresso.org/Doc/INPUT_PW.html.
"""

import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read as ase_read

from deeprelax_ase.structures.validation import StructureError

_CARDS = (
    "ATOMIC_SPECIES",
    "ATOMIC_POSITIONS",
    "K_POINTS",
    "ADDITIONAL_K_POINTS",
    "CELL_PARAMETERS",
    "CONSTRAINTS",
    "OCCUPATIONS",
    "ATOMIC_VELOCITIES",
    "ATOMIC_FORCES",
    "SOLVENTS",
    "HUBBARD",
)
_CARD = re.compile(rf"^\s*({'|'.join(_CARDS)})\b", re.IGNORECASE)
_LEFT_OUT = ("CELL_PARAMETERS", "ATOMIC_VELOCITIES", "ATOMIC_FORCES")
_K_UNITS = {"automatic", "gamma", "crystal", "crystal_b", "crystal_c"}
_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+\d])")
_MISMATCH = "cannot be rewritten: is nat the number of its atoms?"
_ROUNDING = 1e-6
_CELL_KEYS = re.compile(
    r"\b(?:celldm\s*\(\s*\d\s*\)|A|B|C|cosAB|cosAC|cosBC)\s*=\s*[-+\d.eEdD]+\s*,?", re.IGNORECASE
)


def read_pw_text(text: str) -> Atoms:
    """The structure of a pw.x input.

    Raises:
        StructureError: It cannot be read, or holds what would not be right with another cell.
    """
    for card, line in _lines(text):
        words = re.sub(r"[{}()]", " ", line).lower().split()
        if line.strip().upper().startswith("BEGIN"):
            msg = "holds several engine inputs (NEB): give it one of pw.x"
            raise StructureError(msg)
        if card == "K_POINTS" and words[:1] == ["k_points"] and not _K_UNITS & set(words[1:2]):
            msg = (
                f"has k-points in {words[1] if len(words) > 1 else 'tpiba'}, units of a lattice "
                "parameter that changes: give them as automatic, gamma or crystal"
            )
            raise StructureError(msg)
    try:
        return ase_read(StringIO(_tidy(text)), format="espresso-in")
    except Exception as error:  # the parser raises whatever its code runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"cannot be read as an input of pw.x: {reason[:200]}"
        raise StructureError(msg) from error


def keeps_cell(text: str) -> bool:
    """Whether the calculation is one of a fixed cell."""
    found = re.search(r"calculation\s*=\s*['\"]([\w-]+)", text, flags=re.IGNORECASE)
    return found is None or not found[1].lower().startswith("vc-")


def with_atoms(text: str, atoms: Any) -> str:
    """The text with another cell and other positions, its atoms in the same order.

    Labels and the flags of fixed coordinates stay. CELL_PARAMETERS are in Å from then on, so
    `celldm` or `A` as their unit goes. Velocities and forces are left out.

    Raises:
        StructureError: The text is laid out in a way that cannot be followed.
    """
    lines: list[str] = []
    left, places = 0, iter(atoms.positions)
    for card, line in _lines(text):
        is_head = bool(card) and bool(_CARD.match(line))
        if card in _LEFT_OUT:
            continue
        if card == "ATOMIC_POSITIONS" and is_head:
            lines.append("ATOMIC_POSITIONS angstrom")
            left = len(atoms)
        elif card == "ATOMIC_POSITIONS" and _is_entry(line):
            if not left:
                raise StructureError(_MISMATCH)
            label, *rest = line.split()
            x, y, z = next(places)
            lines.append(f"{label} {x:18.12f} {y:18.12f} {z:18.12f} {' '.join(rest[3:])}".rstrip())
            left -= 1
        else:
            lines.append(line if card else _without_lattice(line))
    cell = [" ".join(f"{value:18.12f}" for value in vector) for vector in atoms.cell]
    written = "\n".join([*lines, "CELL_PARAMETERS angstrom", *cell, ""])
    found = read_pw_text(written)
    same = len(found) == len(atoms) and np.allclose(found.cell[:], atoms.cell[:], atol=_ROUNDING)
    if not same or not np.allclose(found.positions, atoms.positions, atol=_ROUNDING):
        raise StructureError(_MISMATCH)
    return written


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Lines, each with the card it stands in; none in the namelists."""
    card, is_namelist = "", False
    for line in text.splitlines():
        is_namelist = is_namelist or line.lstrip().startswith("&")
        found = None if is_namelist else _CARD.match(line)
        card = found[1].upper() if found else card
        yield "" if is_namelist else card, line
        if is_namelist and line.partition("!")[0].rstrip().endswith("/"):
            is_namelist = False


def _tidy(text: str) -> str:
    """The text as ASE reads it: names of cards in capitals, their units small, no comments."""
    tidy = []
    for card, line in _lines(text):
        plain = re.split(r"[!#]", line, maxsplit=1)[0] if card else line
        found = _CARD.match(plain) if card else None
        if found:
            plain = f"{found[1].upper()} {plain[found.end() :].strip().lower()}"
        elif card:
            plain = _FORTRAN.sub("e", plain)
        tidy.append(plain)
    return "\n".join([*tidy, ""])


def _is_entry(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("!", "#"))


def _without_lattice(line: str) -> str:
    """A line of a namelist, in which CELL_PARAMETERS alone give the cell."""
    code, mark, comment = line.partition("!")
    if code.count("'") % 2 or code.count('"') % 2:  # the mark stands in a text
        code, mark, comment = line, "", ""
    pieces = re.split(r"('[^']*'|\"[^\"]*\")", code)
    pieces[::2] = [_CELL_KEYS.sub("", piece) for piece in pieces[::2]]
    return "".join((*pieces, mark, comment))
