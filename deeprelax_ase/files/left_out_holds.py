"""What inputs of other codes hold, and the readers of ASE and pymatgen leave out.

Meanings are those of the manuals: of PWmat (atom.config), ABINIT (natfix, natcon, optcell,
strtarget), DFTB+ (Driver), v_sim (its ascii format), Octopus (Coordinates), Turbomole ($periodic),
CP2K (MOTION/CONSTRAINT, CELL_OPT), ONETEP (species_constraints), Materials Studio (.xsd).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile

from deeprelax_ase.files.file_text import has_value

_IGNORED = re.IGNORECASE | re.MULTILINE
_NUMBER = r"[-+]?[\d.]+(?:[edED][-+]?\d+)?"
_ATOM_OF_PWMAT = re.compile(rf"^\s*\d+(?:\s+{_NUMBER}){{3}}\s+([01])\s+([01])\s+([01])(?=\s|$)")
_ENTRY_OF_ABINIT = re.compile(r"(natfix[xyz]?|natcon|optcell|strtarget)(\d*[?:+]*)")
_COUNTS = ("natfix", "natfixx", "natfixy", "natfixz", "natcon")
_STRESSES = 6
_ALL_MOVE = re.compile(r"\{?\s*1\s*:\s*(-1|\d+)\s*\}?")
_COUNT_OF_DFTB = re.compile(r"GenFormat\s*\{\s*(\d+)", re.IGNORECASE)
_FREE_OF_DFTB = (
    ("LatticeOpt", r"Yes"),
    ("FixAngles", r"No"),
    ("FixLengths", r"No|\{\s*No\s+No\s+No\s*\}"),
    ("Isotropic", r"No"),
    ("Pressure", r"[-+]?[0.]+(?:e[-+]?\d+)?"),
)
_FLAG_OF_V_SIM = re.compile(rf"^\s*(?:{_NUMBER}\s+){{3}}(\w+)\s+(f[xyz]{{0,2}})\s*$", _IGNORED)
_ATOMS_OF_OCTOPUS = re.compile(r"^\s*%(?:Reduced)?Coordinates\s*$(.*?)^\s*%", _IGNORED | re.DOTALL)
_FLAG_OF_OCTOPUS = re.compile(
    r"^\s*[\'\"]?(\w+)[\'\"]?\s*(?:\|[^|\n]+){3}\|\s*(no|false|0)\s*$", _IGNORED
)


def _of_pwmat(text: str) -> str:
    lines = text[text.lower().find("position") :].splitlines()[1:]
    for number, line in enumerate(lines, start=1):
        found = _ATOM_OF_PWMAT.match(line)
        if not found:  # the next block
            return ""
        if "0" in found.groups():
            return f"the flags {' '.join(found.groups())} of its atom {number}"
    return ""


def _of_abinit(text: str) -> str:
    words = re.sub(r"[#!].*", "", text).lower().split()
    for place, word in enumerate(words):
        found = _ENTRY_OF_ABINIT.fullmatch(word)
        values = words[place + 1 : place + 1 + _STRESSES]
        if not found or not values:
            continue
        name, value = found[1], values[0]
        is_free = value == "0" if name in _COUNTS else value == "2"
        if name == "strtarget":
            numbers = takewhile(re.compile(rf"(\d+\*)?{_NUMBER}").fullmatch, values)
            value = next((each for each in numbers if has_value(each)), "")
            is_free = not value
        if not is_free:
            return f"{word} {value}"
    return ""


def _of_dftb(text: str) -> str:
    plain = re.sub(r"#.*", "", text)
    found = _entry_of_dftb("MovedAtoms", plain)
    if found:
        span, count = _ALL_MOVE.fullmatch(found[1]), _COUNT_OF_DFTB.search(plain)
        last = span[1] if span else ""
        if last != "-1" and not (last and count and last == count[1]):
            return " = ".join(found)
    for name, free in _FREE_OF_DFTB:
        found = _entry_of_dftb(name, plain)
        if found and not re.fullmatch(free, found[1], re.IGNORECASE):
            return " = ".join(found)
    is_constrained = re.search(r"\bConstraints\s*=?\s*\{\s*[^\s}]", plain, re.IGNORECASE)
    return "Constraints" if is_constrained else ""


def _entry_of_dftb(name: str, text: str) -> tuple[str, str] | None:
    """Name as it stands there and value of an entry."""
    entry = rf"\b({name})\s*(?:\[\w+\])?\s*=\s*(\{{[^}}]*\}}|[^\n;}}]*)"
    found = re.search(entry, text, re.IGNORECASE)
    return None if found is None else (found[1], " ".join(found[2].split()))


def _of_v_sim(text: str) -> str:
    return next(_flags(_FLAG_OF_V_SIM, text), "")


def _of_octopus(text: str) -> str:
    return next(_flags(_FLAG_OF_OCTOPUS, "".join(_ATOMS_OF_OCTOPUS.findall(text))), "")


def _flags(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (f"the flag {flag} of an atom {atom}" for atom, flag in pattern.findall(text))


def _of_turbomole(text: str) -> str:
    found = re.search(r"^\s*(\$periodic\s+[123])", text, _IGNORED)
    return found[1] if found else ""


def _of_xsd(text: str) -> str:
    found = re.search(r"\bRestrictedProperties=\"([^\"]+)\"", text)
    return f"the restriction of {found[1]}" if found else ""


def _of_cp2k(text: str) -> str:
    """Of a restart, whose sections of constraints and of CELL_OPT are written out."""
    within: list[str] = []
    for line in re.sub(r"[!#].*", "", text).upper().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "&END":
            del within[-1:]
        elif words[0].startswith("&"):
            if "&CONSTRAINT" in within:
                return f"the section {words[0]}"
            within.append(words[0])
        elif "&CELL_OPT" in within:
            value = words[1].strip(".") if len(words) > 1 else "T"
            is_kept = words[0].startswith("KEEP_") and value[:1] not in ("F", "N", "0")
            is_kept = is_kept and value != "OFF"
            if is_kept or (words[0] == "CONSTRAINT" and value != "NONE"):
                return f"the entry {' '.join(words[:2])}"
    return ""


def _of_onetep(text: str) -> str:
    block = re.search(
        r"^\s*%block\s+species_constraints\s*$(.*?)^\s*%endblock", text, _IGNORED | re.DOTALL
    )
    for line in block[1].splitlines() if block else ():
        words = re.sub(r"[!#].*", "", line).split()
        if len(words) > 1 and words[1].upper() != "NONE":
            return f"the constraint {words[1].upper()} of {words[0]}"
    return ""


HOLDS: Mapping[str, Callable[[str], str]] = {
    "pwmat": _of_pwmat,
    "abinit-in": _of_abinit,
    "dftb": _of_dftb,
    "v-sim": _of_v_sim,
    "octopus-in": _of_octopus,
    "turbomole": _of_turbomole,
    "cp2k-restart": _of_cp2k,
    "onetep-in": _of_onetep,
    "xsd": _of_xsd,
}
"""Formats, and what of a text in each its reader leaves out; nothing, where it reads all."""
