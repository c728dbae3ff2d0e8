"""Edit the text of a pw.x input of Quantum ESPRESSO: read its structure, write a new one into it.

All other namelists and cards stay:
https://www.quantum-espresso.org/Doc/INPUT_PW.html. `pw_namelists` reads namelists and ibrav.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Float

from deeprelax_ase.files.pw_cards import CARD, has_card, lines_of, read_card, words_of
from deeprelax_ase.files.pw_namelists import (
    BOHR,
    cell_of_ibrav,
    integer_of,
    lattice_parameters,
    namelists_of,
    number_of,
    without_comment,
)
from deeprelax_ase.structures.elements import HYDROGEN_ISOTOPES, atomic_numbers
from deeprelax_ase.structures.validation import StructureError

_LEFT_OUT = ("ATOMIC_VELOCITIES",)
_K_UNITS = {"automatic", "gamma", "crystal", "crystal_b", "crystal_c"}
_SAME = 1e-9
"""A cell that differs by no more (Å) stays as it is written."""
_ROUNDING = 1e-6
_COLUMNS = (4, 7)
"""Words of a position, without flags and with them."""
_IBRAV = re.compile(r"\bibrav\s*=\s*[-+\d.eEdD]+", re.IGNORECASE)
_CELL_KEYS = re.compile(
    r"\b(?:celldm(?:\s*\(\s*\d\s*\))?|A|B|C|cosAB|cosAC|cosBC)\s*="
    r"\s*[-+\d.eEdD*]+(?:[\s,]+[-+\d.][-+\d.eEdD*]*)*\s*,?",
    re.IGNORECASE,
)


def is_pw_text(text: str) -> bool:
    """Whether a text looks like an input of pw.x."""
    namelists = re.findall(r"^\s*&(\w+)", text, flags=re.MULTILINE)
    cards = {line.split()[0].upper() for line in text.splitlines() if CARD.match(line)}
    is_pw = {"ATOMIC_SPECIES", "ATOMIC_POSITIONS"} & cards
    return "system" in map(str.lower, namelists) and bool(is_pw)


def read_pw_text(text: str) -> Atoms:
    """Read the structure of a pw.x input; coordinates that it fixes are constraints.

    Raises:
        StructureError: It cannot be read; the message says why.
    """
    if re.search(r"^\s*BEGIN", text, flags=re.MULTILINE | re.IGNORECASE):
        msg = "holds several engine inputs (NEB): give it one of pw.x"
        raise StructureError(msg)
    system = namelists_of(text).get("system")
    if system is None:
        msg = "cannot be read as an input of pw.x: it has no namelist &SYSTEM"
        raise StructureError(msg)
    if "space_group" in system:
        msg = "names a space_group, so lists only some of its atoms: give all, with ibrav"
        raise StructureError(msg)
    try:
        cell, alat = _cell(text, system)
        units, rows = read_card(text, "ATOMIC_POSITIONS")
        _check_species(text, integer_of(system, "ntyp"), rows)
        return _atoms(units, rows, integer_of(system, "nat"), cell, alat)
    except StructureError:
        raise
    except ValueError as error:
        msg = f"cannot be read as an input of pw.x: {error}"
        raise StructureError(msg) from error


def dropped_cards(text: str) -> tuple[str, ...]:
    """Cards that `with_atoms` leaves out: velocities and forces of the unrelaxed atoms."""
    return tuple(sorted({card for card, _, _ in lines_of(text) if card in _LEFT_OUT}))


def notes_of_dropped(text: str) -> tuple[str, ...]:
    """What a user should know of what is left out."""
    notes = [
        f"{card} are dropped: they belong to the unrelaxed atoms" for card in dropped_cards(text)
    ]
    namelists = namelists_of(text)
    ibrav = namelists.get("system", {}).get("ibrav", "0")
    freedom = namelists.get("cell", {}).get("cell_dofree", "")
    if number_of(ibrav) and freedom.lower().startswith("ibrav"):
        notes.append(
            f"a cell that changes is written with ibrav = 0 in place of {ibrav}, and of that pw.x "
            f"keeps less with cell_dofree = '{freedom}'"
        )
    return tuple(notes)


def with_atoms(text: str, atoms: Atoms) -> str:
    """Write the text with another cell and other positions, its atoms in the same order.

    Labels and the flags of fixed coordinates stay. A cell that is the same stays as it is written;
    another is written as CELL_PARAMETERS in Å, with ibrav = 0 and without celldm or A. Velocities
    and forces are left out.

    Raises:
        StructureError: The text is laid out in a way that cannot be followed, or has k-points that
            would be wrong in another cell.
    """
    is_new = not np.allclose(read_pw_text(text).cell[:], atoms.cell[:], atol=_SAME, rtol=0)
    if is_new:
        _check_k_points(text)
    lines: list[str] = []
    places = iter(atoms.positions)
    for card, name, line in lines_of(text):
        if card in _LEFT_OUT or (is_new and card == "CELL_PARAMETERS"):
            continue
        if card == "ATOMIC_POSITIONS" and CARD.match(line):
            lines.append("ATOMIC_POSITIONS angstrom")
        elif card == "ATOMIC_POSITIONS" and words_of(line):
            label, *rest = line.split()
            x, y, z = next(places)
            lines.append(f"{label} {x:18.12f} {y:18.12f} {z:18.12f} {' '.join(rest[3:])}".rstrip())
        else:
            lines.append(_without_lattice(line) if is_new and name == "system" else line)
    if is_new:
        cell = [" ".join(f"{value:18.12f}" for value in vector) for vector in atoms.cell]
        lines += ["CELL_PARAMETERS angstrom", *cell]
    written = "\n".join([*lines, ""])
    try:
        found = read_pw_text(written)
    except StructureError:  # a value over several lines stayed in part
        found = Atoms()
    same = len(found) == len(atoms) and np.allclose(found.cell[:], atoms.cell[:], atol=_ROUNDING)
    if not same or not np.allclose(found.positions, atoms.positions, atol=_ROUNDING):
        msg = "cannot be rewritten: its layout is not followed; give one atom, or one value, a line"
        raise StructureError(msg)
    return written


def _cell(text: str, system: Mapping[str, str]) -> tuple[Float[np.ndarray, "3 3"], float]:
    """Vectors of the cell, and the unit `alat`, both in Å."""
    ibrav = integer_of(system, "ibrav")
    if ibrav is None:
        msg = "ibrav is missing in &SYSTEM"
        raise ValueError(msg)
    parameters = lattice_parameters(system, ibrav)
    if ibrav:
        made = cell_of_ibrav(ibrav, parameters)
        if has_card(text, "CELL_PARAMETERS"):
            msg = f"ibrav = {ibrav} and CELL_PARAMETERS give the cell twice: take one of them out"
            raise ValueError(msg)
        return made, parameters[0]
    units, rows = read_card(text, "CELL_PARAMETERS")
    if len(rows) < 3:  # noqa: PLR2004 - three vectors
        msg = f"ibrav is 0, and CELL_PARAMETERS gives {len(rows)} of three vectors"
        raise ValueError(msg)
    vectors = np.array([_three(row) for row in rows[:3]])
    alat = parameters[0]
    if units == "alat" and not alat:
        msg = "CELL_PARAMETERS are in alat, and neither celldm(1) nor A is given"
        raise ValueError(msg)
    factors = {"angstrom": 1.0, "bohr": BOHR, "alat": alat, "": alat or BOHR}
    if units not in factors:
        msg = f"CELL_PARAMETERS are in {units}: choose angstrom, bohr or alat"
        raise ValueError(msg)
    cell: np.ndarray = vectors * factors[units]
    return cell, alat or float(np.linalg.norm(cell[0]))


def _check_species(text: str, count: int | None, rows: Sequence[Sequence[str]]) -> None:
    """Refuse positions of species that have no pseudopotential.

    pw.x reads `ntyp` lines of ATOMIC_SPECIES, and ignores what comes after them.
    """
    if not has_card(text, "ATOMIC_SPECIES"):
        return
    known = [row[0] for row in read_card(text, "ATOMIC_SPECIES")[1]]
    if count is not None and count > len(known):
        msg = f"says ntyp is {count}, and ATOMIC_SPECIES has {len(known)} species"
        raise StructureError(msg)
    known = known[:count]
    for row in rows:
        if row[0].lower() not in map(str.lower, known):
            names = ", ".join(known)
            msg = f"has {row[0]!r} in ATOMIC_POSITIONS, and ATOMIC_SPECIES knows {names}: add it"
            raise StructureError(msg)


def _atoms(
    units: str,
    rows: Sequence[Sequence[str]],
    count: int | None,
    cell: Float[np.ndarray, "3 3"],
    alat: float,
) -> Atoms:
    if count != len(rows):
        given = "does not give nat" if count is None else f"says nat is {count}"
        msg = f"{given}, and there are {len(rows)} positions"
        raise StructureError(msg)
    frames = {
        "crystal": cell,
        "angstrom": np.eye(3),
        "bohr": BOHR * np.eye(3),
        "alat": alat * np.eye(3),
        "": alat * np.eye(3),
    }
    if units not in frames:
        msg = f"ATOMIC_POSITIONS are in {units}: choose alat, bohr, angstrom or crystal"
        raise ValueError(msg)
    places = np.array([_three(row[1:]) for row in rows]).reshape(-1, 3)
    symbols = [_element(row[0]) for row in rows]
    atoms = Atoms(symbols, positions=places @ frames[units], cell=cell, pbc=True)
    atoms.set_constraint(_constraints(rows))
    return atoms


def _constraints(rows: Sequence[Sequence[str]]) -> list[FixAtoms | FixCartesian]:
    """What the flags behind the coordinates fix: 0 holds one."""
    held: dict[tuple[bool, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if len(row) not in _COLUMNS:
            msg = (
                f"{' '.join(row)!r} in ATOMIC_POSITIONS has {len(row)} columns: write a label and "
                "three coordinates, and three flags where some are fixed"
            )
            raise ValueError(msg)
        flags = tuple(number_of(word) == 0 for word in row[4:7])
        if any(flags):
            held.setdefault(flags, []).append(index)
    return [
        FixAtoms(indices) if all(mask) else FixCartesian(indices, mask)
        for mask, indices in held.items()
    ]


def _element(label: str) -> str:
    """Element of a label such as Fe1, fe_up or O-h."""
    letters = re.match("[A-Za-z]*", label)
    name = letters[0] if letters else ""
    for symbol in (name[:2].title(), name[:1].upper()):
        if symbol in atomic_numbers and symbol != "X":
            return symbol
    if name.upper() in HYDROGEN_ISOTOPES:
        return "H"
    msg = f"{label!r} in ATOMIC_POSITIONS begins with no element"
    raise ValueError(msg)


def _three(words: Sequence[str]) -> list[float]:
    if len(words) < 3:  # noqa: PLR2004 - x, y and z
        msg = f"{' '.join(words)!r} are no three numbers"
        raise ValueError(msg)
    return [number_of(word) for word in words[:3]]


def _check_k_points(text: str) -> None:
    for card, _, line in lines_of(text):
        if card in ("K_POINTS", "ADDITIONAL_K_POINTS") and CARD.match(line):
            words = re.sub(r"[{}()]", " ", line).lower().split()[1:2]
            if not _K_UNITS & set(words):
                msg = (
                    f"has k-points in {words[0] if words else 'tpiba'}, units of a lattice "
                    "parameter that changes: give them as automatic, gamma or crystal"
                )
                raise StructureError(msg)


def _without_lattice(line: str) -> str:
    """A line of &SYSTEM, in which CELL_PARAMETERS alone give the cell."""
    code = without_comment(line)
    comment = line[len(code) :]
    pieces = re.split(r"('[^'\n]*'|\"[^\"\n]*\")", code)
    pieces[::2] = [_IBRAV.sub("ibrav = 0", _CELL_KEYS.sub("", piece)) for piece in pieces[::2]]
    return "".join((*pieces, comment))
