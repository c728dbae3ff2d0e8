"""What an INCAR says of the relaxation: what of the cell is held, with which functional.

Defaults and meanings are those of the VASP manual: https://www.vasp.at/wiki/NSW, IBRION, ISIF,
LATTICE_CONSTRAINTS, PSTRESS, IMAGES, GGA, METAGGA, LHFCALC, LUSE_VDW, IVDW, LVDW.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deeprelax_ase.files.calculation import Calculation
from deeprelax_ase.files.file_text import has_value
from deeprelax_ase.files.incar_text import (
    DECISIVE,
    integer_of_tag,
    logical,
    number_of_tag,
    read_tags,
    text_of,
)
from deeprelax_ase.structures.exact_holds import HeldStrains
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
_NEAREST_GGA = {"RP": "PBE", "RE": "PBE"}
_NEAREST_META = ("SCAN", "RSCAN", "SCANL", "RSCANL", "R2SCANL")
_FIELDS = ("EFIELD", "EFIELD_PEAD", "EFOR")
"""Tags of electric fields, and of forces from outside."""
_NAMING = ("GGA", "METAGGA", "LHFCALC", "LUSE_VDW", "IVDW", "LVDW", "XC")
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
    3: "nothing",
    4: "volume",
    5: "volume,positions",
    6: "positions",
    7: "shape,positions",
    8: "shape",
}
"""What each ISIF holds, as `hold` names it."""


def read_vasp_calculation(folder: Path, ending: str = "") -> Calculation:
    """Read what the INCAR of a run folder asks for; without one, nothing is said.

    Args:
        folder: With the INCAR.
        ending: Of the structure's name behind POSCAR, as custodian writes `.relax1` or `.orig`;
            an INCAR of the same ending goes before INCAR itself.

    Raises:
        StructureError: A tag that it hangs on cannot be read, or contradicts itself.
    """
    above = Path(os.path.abspath(folder)).parent / "INCAR"  # noqa: PTH100 - of .. too
    asked = "" if above.is_dir() else text_of(above) or ""
    images = integer_of_tag(above, read_tags(asked, above, ("IMAGES",)), "IMAGES", 0)
    if images:
        what = f"{folder} is an image of a path: IMAGES = {images} in the INCAR of the folder above"
        return replace(_read_tags(above, read_tags(asked, above)), refusal=what)
    for incar in incars_beside(folder, ending):
        text = text_of(incar)
        if text is not None:
            return _read_tags(incar, read_tags(text, incar))
    return Calculation()


def incars_beside(folder: Path, ending: str) -> list[Path]:
    """Where the INCAR of a structure may lie in its folder, compressed or not; the first counts."""
    return [folder / name for name in dict.fromkeys((f"INCAR{ending}", "INCAR"))]


def _read_tags(incar: Path, tags: Mapping[str, str]) -> Calculation:
    for name in DECISIVE:
        if name in tags and not tags[name]:
            msg = f"{incar}: {name} has no value"
            raise StructureError(msg)
    hybrid = logical(tags.get("LHFCALC", "F"))
    isif = integer_of_tag(incar, tags, "ISIF", 0 if hybrid else 2)
    refusal = _refusal(incar, tags, isif)
    # Of what is no relaxation, ISIF says nothing.
    is_relaxation = _is_relaxation(incar, tags)
    held, reasons = Held.of(HELD_BY_ISIF.get(isif) if is_relaxation else None), []
    if held:
        reasons.append(f"ISIF = {isif}" if "ISIF" in tags else f"no ISIF in INCAR (ISIF = {isif})")
    if is_relaxation and "cell" not in held.names:
        kept = ~np.array(_constraints(incar, tags))
        if kept.any():
            held |= Held(parts=(HeldStrains(held_strain(kept[:, None] | kept)),))
            reasons.append(f"LATTICE_CONSTRAINTS = {tags['LATTICE_CONSTRAINTS']}")
    named = {**tags, "LHFCALC": hybrid}
    functional = functional_of(named) if set(_NAMING) & {*tags} else None
    nearest = _nearest_functional(named)
    if not tags.get("GGA") and functional in (None, "PBE") and not _is_of_pbe(incar.parent):
        functional = nearest = "unknown"
    return Calculation(held, " and ".join(reasons), functional, refusal, nearest)


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
    if integer_of_tag(incar, tags, "IMAGES", 0):
        return f"{incar} asks for a path: IMAGES = {tags['IMAGES']}"
    if not _is_relaxation(incar, tags):
        is_static, kind = _kind(incar, tags)
        given = [f"{name} = {tags[name]}" for name in ("NSW", "IBRION") if name in tags]
        what = _NOT_RELAXED[-1] if is_static else _NOT_RELAXED.get(kind, "no relaxation")
        missing = "" if "NSW" in tags and "IBRION" in tags else ", and VASP's defaults"
        return f"{incar} asks for {what} ({', '.join(given) or 'no NSW'}{missing})"
    if integer_of_tag(incar, tags, "ICHAIN", 0):
        return f"{incar} asks for a search for a saddle point: ICHAIN = {tags['ICHAIN']}"
    for name in _FIELDS:
        if any(has_value(word) for word in tags.get(name, "").split()):
            return f"{incar} asks for a field or forces from outside: {name} = {tags[name]}"
    if isif not in HELD_BY_ISIF:
        return f"{incar} has ISIF = {isif}, which is none of 0 to 8"
    return "" if "cell" in HELD_BY_ISIF[isif] else _refusal_of_cell(incar, tags)


def _kind(incar: Path, tags: Mapping[str, str]) -> tuple[bool, int]:
    """Whether no atom moves, and IBRION."""
    is_static = integer_of_tag(incar, tags, "NSW", 0) <= 0
    return is_static, integer_of_tag(incar, tags, "IBRION", -1 if is_static else 0)


def _is_relaxation(incar: Path, tags: Mapping[str, str]) -> bool:
    is_static, kind = _kind(incar, tags)
    return not is_static and kind in _RELAXED


def _refusal_of_cell(incar: Path, tags: Mapping[str, str]) -> str:
    """Say why the cell of an INCAR that frees it is not to be relaxed; nothing, if it is."""
    pressure = number_of_tag(incar, tags, "PSTRESS", 0.0)
    if pressure:
        return f"{incar} asks for an external pressure: PSTRESS = {pressure:g} kB"
    if (incar.parent / "OPTCELL").exists():  # of a patch of VASP that many use
        return f"{incar.parent / 'OPTCELL'} holds part of the cell: name it with --hold and --force"
    components = re.sub(r"(\d+)\*(\d)", lambda of: of[2] * int(of[1]), tags.get("IOPTCELL", ""))
    if "0" in components:  # the same as a tag
        return f"{incar} holds part of the cell by IOPTCELL: name it with --hold and --force"
    return ""


def functional_of(tags: Mapping[str, Any]) -> str:
    """Functional that tags of an INCAR name, where POTCAR is of PBE: `unknown` for all others."""
    dispersion = str(tags.get("IVDW") or "0").strip()
    plain = _plain_functional(tags)
    if dispersion == "0":
        return "unknown" if _is_set(tags, "LVDW") else plain
    return "PBE-D3" if plain == "PBE" and dispersion in _D3 else "unknown"


def _nearest_functional(tags: Mapping[str, Any]) -> str:
    """The functional that weights know which is nearest to an unknown one; see docs/index.md."""
    meta, gga = _named(tags)
    if tags.get("LHFCALC") or tags.get("XC"):
        return "unknown"
    if meta in _NEAREST_META or meta == "R2SCAN":
        return "r2SCAN"
    if _is_set(tags, "LUSE_VDW"):
        return "unknown"
    has_dispersion = str(tags.get("IVDW") or "0").strip() != "0" or _is_set(tags, "LVDW")
    plain = _plain_functional(tags)
    if has_dispersion and not meta and plain in ("PBE", "PBEsol"):
        return "PBE-D3" if plain == "PBE" else plain
    return _NEAREST_GGA.get(gga, "unknown") if not meta else "unknown"


def _named(tags: Mapping[str, Any]) -> tuple[str, str]:
    """METAGGA, nothing where there is none, and GGA."""
    meta, gga = (str(tags.get(name, "")).strip().upper() for name in ("METAGGA", "GGA"))
    return ("" if meta in ("NONE", "--") else meta), gga


def _plain_functional(tags: Mapping[str, Any]) -> str:
    """The functional without a pairwise correction for dispersion."""
    meta, gga = _named(tags)
    if tags.get("LHFCALC"):
        return "unknown"
    if tags.get("XC"):
        return _FUNCTIONALS.get(str(tags["XC"]).strip().upper(), "unknown")
    if _is_set(tags, "LUSE_VDW"):  # a nonlocal functional of van der Waals forces
        return "optB88-vdW" if gga == "BO" and not meta else "unknown"
    if meta:
        return "r2SCAN" if meta == "R2SCAN" else "unknown"
    return _FUNCTIONALS.get(gga, "unknown")


def _is_set(tags: Mapping[str, Any], name: str) -> bool:
    value = tags.get(name, False)
    return bool(logical(value) if isinstance(value, str) else value)


def tags_of(functional: str, held: Held) -> dict[str, Any]:
    """Tags of an INCAR that relaxes with a functional and holds the same; POTCAR is of PBE.

    Raises:
        ValueError: No ISIF holds that.
    """
    names = held.names or frozenset({"nothing"})
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


def _constraints(incar: Path, tags: Mapping[str, str]) -> list[bool]:
    """Which Cartesian directions of the lattice may change."""
    text = tags.get("LATTICE_CONSTRAINTS", "T T T")
    values = [logical(word) for word in text.split()[:3]]
    if len(values) != 3 or None in values:  # noqa: PLR2004 - x, y and z
        msg = f"{incar}: LATTICE_CONSTRAINTS = {text} has to be three of .TRUE. and .FALSE."
        raise StructureError(msg)
    return [bool(value) for value in values]
