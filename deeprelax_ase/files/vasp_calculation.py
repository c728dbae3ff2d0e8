"""What an INCAR says of the relaxation: what of the cell is held, with which functional.

Defaults and meanings are those of the VASP manual: https://www.vasp.at/wiki/NSW, IBRION, ISIF,
LATTICE_CONSTRAINTS, PSTRESS, IMAGES, GGA, METAGGA, LHFCALC, LUSE_VDW, IVDW, LVDW.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monty.io import zopen
from monty.os.path import zpath

from deeprelax_ase.files.calculation import Calculation, refused
from deeprelax_ase.files.file_text import decode, fortran_float, is_binary
from deeprelax_ase.structures.held import Held, held_strain
from deeprelax_ase.structures.validation import StructureError

_D3 = ("11", "12")
"""IVDW of DFT-D3, with zero and with Becke-Johnson damping."""
_FUNCTIONALS = {"": "PBE", "--": "PBE", "PE": "PBE", "PS": "PBEsol"}
_TAGS: Mapping[str, Mapping[str, Any]] = {
    "unknown": {},
    "PBE": {},
    "PBEsol": {"GGA": "PS"},
    "r2SCAN": {"METAGGA": "R2SCAN", "LASPH": True},
    "optB88-vdW": {
        "GGA": "BO",
        "PARAM1": 0.1833333333,
        "PARAM2": 0.22,
        "AGGAC": 0.0,
        "LUSE_VDW": True,
    },
    "PBE-D3": {"IVDW": 12},
}
_NAMING = ("GGA", "METAGGA", "LHFCALC", "LUSE_VDW", "IVDW", "LVDW")
"""Tags of which each says something of the functional."""
_EXCHANGE = re.compile(r"^\s*LEXCH\s*=\s*(\S+)", re.MULTILINE)
_NOT_RELAXED = {
    -1: "a static calculation: no atom moves",
    0: "molecular dynamics",
    5: "phonons by finite differences",
    6: "phonons by finite differences",
    7: "phonons by perturbation theory",
    8: "phonons by perturbation theory",
    11: "moves that another program gives",
    12: "moves that a Python plugin gives",
    40: "a reaction path",
    44: "a search for a saddle point",
}
_RELAXED = (1, 2, 3)
HELD_BY_ISIF = {
    0: "cell",
    1: "cell",
    2: "cell",
    3: "",
    4: "volume",
    5: "volume,positions",
    6: "positions",
    7: "shape,positions",
    8: "shape",
}
"""What each ISIF holds, as `hold` names it."""
_ORDER = ("NSW", "IBRION", "ISIF", "PSTRESS", "LATTICE_CONSTRAINTS", "IMAGES", "ICHAIN")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d{1,2})?")
_QUOTED = re.compile(r"(?<==)[ \t]*\"[^\"]*\"")
_NOT_IN_TEXT = str.maketrans(dict.fromkeys('\n;#!="', " "))
_LOGICALS = {"T": True, "F": False}


def read_vasp_calculation(folder: Path, ending: str = "") -> Calculation:
    """Read what the INCAR of a run folder asks for; without one, all is free.

    Args:
        folder: With the INCAR.
        ending: Of the structure's name behind POSCAR, as custodian writes `.relax1` or `.orig`;
            an INCAR of the same ending goes before INCAR itself.

    Raises:
        StructureError: A tag that it hangs on cannot be read, or contradicts itself.
    """
    above = Path(os.path.abspath(folder)).parent / "INCAR"  # noqa: PTH100 - of .. too
    images = _integer(above, read_tags(text_of(above) or "", above), "IMAGES", 0)
    if images:
        return refused(
            f"{folder} is an image of a path: IMAGES = {images} in the INCAR of the folder above"
        )
    for incar in incars_beside(folder, ending):
        text = text_of(incar)
        if text is not None:
            return _read_tags(incar, read_tags(text, incar))
    return Calculation()


def incars_beside(folder: Path, ending: str) -> list[Path]:
    """Where the INCAR of a structure may lie in its folder, compressed or not; the first counts."""
    return [folder / name for name in dict.fromkeys((f"INCAR{ending}", "INCAR"))]


def _read_tags(incar: Path, tags: Mapping[str, str]) -> Calculation:
    for name in _ORDER:
        if name in tags and not tags[name]:
            msg = f"{incar}: {name} has no value"
            raise StructureError(msg)
    hybrid = logical(tags.get("LHFCALC", "F"))
    isif = _integer(incar, tags, "ISIF", 0 if hybrid else 2)
    refusal = _refusal(incar, tags, isif)
    if refusal:
        return refused(refusal)
    held, reasons = Held.of(HELD_BY_ISIF[isif]), []
    if held:
        reasons.append(f"ISIF = {isif}" if "ISIF" in tags else f"no ISIF in INCAR (ISIF = {isif})")
    if "cell" not in held.names:
        kept = ~np.array(_constraints(incar, tags))
        if kept.any():
            held |= Held(rows=held_strain(kept[:, None] | kept))
            reasons.append(f"LATTICE_CONSTRAINTS = {tags['LATTICE_CONSTRAINTS']}")
    functional = functional_of({**tags, "LHFCALC": hybrid}) if set(_NAMING) & {*tags} else None
    if not tags.get("GGA") and functional in (None, "PBE") and not _is_of_pbe(incar.parent):
        functional = "unknown"
    return Calculation(held, " and ".join(reasons), functional)


def names_pbe(folder: Path) -> bool:
    """Whether the POTCAR of a folder says that it is of PBE, and nothing else."""
    return _exchanges(folder) == {"PE"}


def _is_of_pbe(folder: Path) -> bool:
    """Whether the POTCAR of a folder is of PBE, whose functional is taken where GGA names none."""
    return _exchanges(folder) <= {"PE"}


def _exchanges(folder: Path) -> set[str]:
    """What the POTCAR of a folder says of exchange, for each of its species."""
    return {*_EXCHANGE.findall(text_of(folder / "POTCAR") or "")}


def _refusal(incar: Path, tags: Mapping[str, str], isif: int) -> str:
    """Say why the structure of an INCAR is not to be relaxed; nothing, if it is."""
    if _integer(incar, tags, "IMAGES", 0):
        return f"{incar} asks for a path: IMAGES = {tags['IMAGES']}"
    steps = _integer(incar, tags, "NSW", 0)
    is_static = steps <= 0
    kind = _integer(incar, tags, "IBRION", -1 if is_static else 0)
    if is_static or kind not in _RELAXED:
        given = [f"{name} = {tags[name]}" for name in ("NSW", "IBRION") if name in tags]
        what = _NOT_RELAXED[-1] if is_static else _NOT_RELAXED.get(kind, "no relaxation")
        missing = "" if "NSW" in tags and "IBRION" in tags else ", and VASP's defaults"
        return f"{incar} asks for {what} ({', '.join(given) or 'no NSW'}{missing})"
    if _integer(incar, tags, "ICHAIN", 0):
        return f"{incar} asks for a search for a saddle point: ICHAIN = {tags['ICHAIN']}"
    if isif not in HELD_BY_ISIF:
        return f"{incar} has ISIF = {isif}, which is none of 0 to 8"
    return "" if "cell" in HELD_BY_ISIF[isif] else _refusal_of_cell(incar, tags)


def _refusal_of_cell(incar: Path, tags: Mapping[str, str]) -> str:
    """Say why the cell of an INCAR that frees it is not to be relaxed; nothing, if it is."""
    pressure = number_of_tag(incar, tags, "PSTRESS", 0.0)
    if pressure:
        return f"{incar} asks for an external pressure: PSTRESS = {pressure:g} kB"
    if (incar.parent / "OPTCELL").exists():  # of a patch of VASP that many use
        return f"{incar.parent / 'OPTCELL'} holds part of the cell: name that part with --hold"
    return ""


def functional_of(tags: Mapping[str, Any]) -> str:
    """Functional that tags of an INCAR name, where POTCAR is of PBE: `unknown` for all others."""
    dispersion = str(tags.get("IVDW") or "0").strip()
    plain = _plain_functional(tags)
    if dispersion == "0":
        return "unknown" if _is_set(tags, "LVDW") else plain
    return "PBE-D3" if plain == "PBE" and dispersion in _D3 else "unknown"


def _plain_functional(tags: Mapping[str, Any]) -> str:
    """The functional without a pairwise correction for dispersion."""
    meta, gga = (str(tags.get(name, "")).strip().upper() for name in ("METAGGA", "GGA"))
    is_meta = meta not in ("", "NONE", "--")
    if tags.get("LHFCALC"):
        return "unknown"
    if _is_set(tags, "LUSE_VDW"):  # a nonlocal functional of van der Waals forces
        return "optB88-vdW" if gga == "BO" and not is_meta else "unknown"
    if is_meta:
        return "r2SCAN" if meta == "R2SCAN" else "unknown"
    return _FUNCTIONALS.get(gga, "unknown")


def _is_set(tags: Mapping[str, Any], name: str) -> bool:
    value = tags.get(name, False)
    return bool(logical(value) if isinstance(value, str) else value)


def read_tags(text: str, incar: Path = Path("INCAR")) -> dict[str, str]:
    """Tags of an INCAR in capitals, with the text of their values.

    Args:
        text: Of the INCAR.
        incar: Its name in messages.

    Raises:
        StructureError: A tag that decides what moves stands there twice with other values, or
            without an equals sign.
    """
    tags: dict[str, str] = {}
    joined = re.sub(r"\\[ \t]*\n", " ", text.replace("\r", ""))
    # A text in quotes, as of WANNIER90_WIN, goes over several lines and holds no tags.
    joined = _QUOTED.sub(lambda found: found[0].translate(_NOT_IN_TEXT), joined)
    for line in joined.split("\n"):
        for statement in re.split(r"[#!]", line, maxsplit=1)[0].split(";"):
            name, equals, value = statement.partition("=")
            name, value = name.strip().upper(), value.strip()
            first = (name.split() or [""])[0]
            if not equals and first in _ORDER:
                msg = f"{incar} has the line {statement.strip()!r}: put = after {first}"
                raise StructureError(msg)
            if not equals:
                continue
            if name in _ORDER and tags.get(name, value) != value:
                msg = f"{incar} has {name} = {tags[name]} and {name} = {value}: keep one of them"
                raise StructureError(msg)
            tags.setdefault(name, value)
    return tags


def tags_of(functional: str, held: Held) -> dict[str, Any]:
    """Tags of an INCAR that relaxes with a functional and holds the same; POTCAR is of PBE.

    Raises:
        ValueError: No ISIF holds that.
    """
    names = held.names
    if "cell" in names:  # and with it all that is of the cell
        names = names & {"cell", "positions"}
    # Of several ISIF that hold the same, the last: 0 and 1 leave out the stress as well.
    isif = {Held.of(names).names: isif for isif, names in HELD_BY_ISIF.items()}.get(names)
    if isif is None or len(held.rows):
        msg = (
            f"no ISIF of VASP holds {','.join(sorted(held.names)) or 'part of the cell'}: hold the "
            "cell, its volume or shape, or positions, or write LATTICE_CONSTRAINTS yourself"
        )
        raise ValueError(msg)
    return {"ISIF": isif, **_TAGS[functional]}


def text_of(path: Path) -> str | None:
    """Text of a file, which may be compressed, with the ending of that; None without one."""
    found = Path(zpath(str(path)))
    if not os.path.lexists(found):
        return None
    try:
        with zopen(found, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError) as error:
        msg = f"{found} cannot be read: {error}"
        raise StructureError(msg) from error
    if is_binary(data):
        msg = f"{found} cannot be read: it is no text"
        raise StructureError(msg)
    return decode(data)


def _integer(incar: Path, tags: Mapping[str, str], name: str, default: int) -> int:
    value = number_of_tag(incar, tags, name, float(default))
    if value != int(value):
        msg = f"{incar}: {name} = {tags[name]} has to be a whole number"
        raise StructureError(msg)
    return int(value)


def number_of_tag(incar: Path, tags: Mapping[str, str], name: str, default: float) -> float:
    """Number that a tag of an INCAR has; the default where it has none.

    Raises:
        StructureError: Its value is no number, or several.
    """
    words = tags.get(name, "").split()
    if not words:
        return default
    # VASP reads one number, and takes words behind it for a comment: NSW = 9 number of steps.
    if not _NUMBER.fullmatch(words[0]) or (len(words) > 1 and _NUMBER.fullmatch(words[1])):
        msg = f"{incar}: {name} = {tags[name]} has to be one number"
        raise StructureError(msg)
    return fortran_float(words[0])


def _constraints(incar: Path, tags: Mapping[str, str]) -> list[bool]:
    """Which Cartesian directions of the lattice may change."""
    text = tags.get("LATTICE_CONSTRAINTS", "T T T")
    values = [logical(word) for word in text.split()[:3]]
    if len(values) != 3 or None in values:  # noqa: PLR2004 - x, y and z
        msg = f"{incar}: LATTICE_CONSTRAINTS = {text} has to be three of .TRUE. and .FALSE."
        raise StructureError(msg)
    return [bool(value) for value in values]


def logical(word: str) -> bool | None:
    """A Fortran logical, or None."""
    return _LOGICALS.get(word.strip().lstrip(".")[:1].upper())
