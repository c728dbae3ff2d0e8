"""The cards of a pw.x input: their lines, units and words.

https://www.quantum-espresso.org/Doc/INPUT_PW.html
"""

import re
from collections.abc import Iterator

from deeprelax_ase.files.pw_namelists import hide_quoted, without_comment

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
CARD = re.compile(rf"^\s*({'|'.join(_CARDS)})\b", re.IGNORECASE)


def has_card(text: str, name: str) -> bool:
    """Whether a text has a card of this name."""
    return any(card == name for card, _, _ in lines_of(text))


def read_card(text: str, name: str) -> tuple[str, list[list[str]]]:
    """Unit of a card, in small, and the words of its lines.

    Raises:
        ValueError: There is none, or there are several.
    """
    found = [line for card, _, line in lines_of(text) if card == name]
    heads = [line for line in found if CARD.match(line)]
    if len(heads) != 1:
        msg = f"the card {name} is there {len(heads)} times, and has to be there once"
        raise ValueError(msg)
    # pw.x itself prints (alat= 8.50000000).
    units = re.sub(r"[{}()=]", " ", " ".join(words_of(heads[0]))).lower().split()[1:2]
    return "".join(units), [words_of(line) for line in found if line != heads[0] and words_of(line)]


def lines_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Lines, each with the card it stands in and the namelist it stands in, in small."""
    card, name = "", ""
    for line in text.splitlines():
        start = None if name else re.match(r"\s*[&$](\w+)", line)
        name = start[1].lower() if start else name
        found = None if name else CARD.match(line)
        card = found[1].upper() if found else "" if name else card
        yield card, name, line
        if name and re.search(r"/|[&$]end\b", hide_quoted(without_comment(line)), re.IGNORECASE):
            name = ""


def words_of(line: str) -> list[str]:
    """Words of a line of a card, without its comment."""
    return re.split(r"[!#]", line, maxsplit=1)[0].split()
