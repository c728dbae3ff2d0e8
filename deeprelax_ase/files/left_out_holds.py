"""What inputs of other codes hold, and the readers of ASE and pymatgen leave out.

Meanings are those of the manuals: of PWmat (atom.config), ABINIT (natfix, natcon, optcell,
strtarget), DFTB+ (Driver), v_sim (its ascii format), Octopus (Coordinates), Turbomole ($periodic).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

_IGNORED = re.IGNORECASE | re.MULTILINE
_NUMBER = r"[-+]?[\d.]+(?:[edED][-+]?\d+)?"
_ATOM_OF_PWMAT = re.compile(rf"^\s*\d+(?:\s+{_NUMBER}){{3}}((?:\s+[01]){{3}})\s*$")
_FREE_OF_ABINIT = {"natfix": "0", "natcon": "0", "optcell": "2"}
_FREE_OF_DFTB = (
    ("MovedAtoms", r"1\s*:\s*-1"),
    ("LatticeOpt", "Yes"),
    ("FixAngles", "No"),
    ("FixLengths", r"No|\{\s*No\s+No\s+No\s*\}"),
    ("Isotropic", "No"),
    ("Pressure", r"0*\.?0*"),
)
_FLAG_OF_V_SIM = re.compile(rf"^\s*(?:{_NUMBER}\s+){{3}}(\w+)\s+(f[xyz]{{0,2}})\s*$", _IGNORED)
_FLAG_OF_OCTOPUS = re.compile(
    r"^\s*[\'\"]?(\w+)[\'\"]?\s*(?:\|[^|\n]+){3}\|\s*(no|false|0)\s*$", _IGNORED
)


def _of_pwmat(text: str) -> str:
    atoms = text[text.lower().find("position") :].splitlines()[1:]
    for number, line in enumerate(atoms, start=1):
        found = _ATOM_OF_PWMAT.match(line)
        if found and "0" in found[1]:
            return f"the flags {' '.join(found[1].split())} of its atom {number}"
    return ""


def _of_abinit(text: str) -> str:
    words = re.sub(r"[#!].*", "", text).lower().split()
    for name, value in pairwise(words):
        if name in _FREE_OF_ABINIT and value != _FREE_OF_ABINIT[name]:
            return f"{name} {value}"
        if name == "strtarget" and float(re.sub("d", "e", value)):
            return f"strtarget {value}"
    return ""


def _of_dftb(text: str) -> str:
    plain = re.sub(r"#.*", "", text)
    for name, free in _FREE_OF_DFTB:
        found = re.search(
            rf"\b({name})\s*(?:\[\w+\])?\s*=\s*(\{{[^}}]*\}}|[^\n}}]*)", plain, re.IGNORECASE
        )
        if found and not re.fullmatch(free, found[2].strip(), re.IGNORECASE):
            return f"{found[1]} = {' '.join(found[2].split())}"
    return "Constraints" if re.search(r"\bConstraints\s*=?\s*\{", plain, re.IGNORECASE) else ""


def _of_v_sim(text: str) -> str:
    return next(_flags(_FLAG_OF_V_SIM, text), "")


def _of_octopus(text: str) -> str:
    return next(_flags(_FLAG_OF_OCTOPUS, text), "")


def _flags(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (f"the flag {flag} of an atom {atom}" for atom, flag in pattern.findall(text))


def _of_turbomole(text: str) -> str:
    found = re.search(r"^\s*(\$periodic\s+[123])", text, _IGNORED)
    return found[1] if found else ""


HOLDS: Mapping[str, Callable[[str], str]] = {
    "pwmat": _of_pwmat,
    "abinit-in": _of_abinit,
    "dftb": _of_dftb,
    "v-sim": _of_v_sim,
    "octopus-in": _of_octopus,
    "turbomole": _of_turbomole,
}
"""Formats, and what of a text in each its reader leaves out; nothing, where it reads all."""
