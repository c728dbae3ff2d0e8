"""The text of a pw.x input of Quantum ESPRESSO: read by ASE, given a new cell and positions.

All other namelists and cards stay as they are: https://www.quantum-espresso.org/Doc/INPUT_PW.html.
"""

import re
from io import StringIO
from typing import Any

from ase import Atoms
from ase.io import read as ase_read

from deeprelax_ase.checks import StructureError

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
_CELL_KEYS = re.compile(
    r"\b(?:celldm\s*\(\s*\d\s*\)|A|B|C|cosAB|cosAC|cosBC)\s*=\s*[-+\d.eEdD]+\s*,?", re.IGNORECASE
)


def read_pw_text(text: str) -> Atoms:
    """The structure of a pw.x input.

    Raises:
        StructureError: It cannot be read.
    """
    try:
        return ase_read(StringIO(text), format="espresso-in")
    except Exception as error:  # the parser raises whatever its code runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"cannot be read as an input of pw.x: {reason[:200]}"
        raise StructureError(msg) from error


def with_atoms(text: str, atoms: Any) -> str:
    """The text with another cell and other positions, its atoms in the same order.

    Labels and the flags of fixed coordinates stay. CELL_PARAMETERS are in Å from then on, so
    `celldm` or `A` as their unit goes. Velocities and forces are left out.
    """
    lines: list[str] = []
    card, left, places = "", 0, iter(atoms.positions)
    for line in text.splitlines():
        found = _CARD.match(line)
        if found:
            card = found[1].upper()
            if card == "ATOMIC_POSITIONS":
                lines.append("ATOMIC_POSITIONS angstrom")
                left = len(atoms)
            elif card not in ("CELL_PARAMETERS", "ATOMIC_VELOCITIES", "ATOMIC_FORCES"):
                lines.append(line)
        elif card == "ATOMIC_POSITIONS" and left and _is_entry(line):
            label, *rest = line.split()
            x, y, z = next(places)
            lines.append(f"{label} {x:18.12f} {y:18.12f} {z:18.12f} {' '.join(rest[3:])}".rstrip())
            left -= 1
        elif card in ("CELL_PARAMETERS", "ATOMIC_VELOCITIES", "ATOMIC_FORCES"):
            continue
        else:
            lines.append(line if card else _without_lattice(line))
    cell = [" ".join(f"{value:18.12f}" for value in vector) for vector in atoms.cell]
    return "\n".join([*lines, "CELL_PARAMETERS angstrom", *cell, ""])


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
