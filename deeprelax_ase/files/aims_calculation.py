"""What a control.in of FHI-aims beside a geometry.in says of the relaxation that it asks for.

Meanings are those of its manual, sections 3.3 and 3.10; without `relax_unit_cell` the cell stays.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from deeprelax_ase.files.calculation import Calculation, with_dispersion
from deeprelax_ase.files.file_text import decode, inner_name, read_bytes
from deeprelax_ase.structures.exact_holds import HeldParameters
from deeprelax_ase.structures.held import Held

_FUNCTIONALS = {"pbe": "PBE", "pbesol": "PBEsol"}
_NEAREST = {"rpbe": "PBE", "revpbe": "PBE", "scan": "r2SCAN"}
_DISPERSION = ("vdw_correction_hirshfeld", "many_body_dispersion", "d3")


def control_beside(path: Path) -> Path:
    """Where the control.in of a geometry lies."""
    return path.absolute().with_name("control.in")


def read_aims_calculation(path: Path, cell: Float[np.ndarray, "3 3"]) -> Calculation:
    """Read what the control.in beside a geometry asks for; nothing, if there is none.

    Args:
        path: Of the geometry.
        cell: Row vectors, Å.
    """
    control = control_beside(path)
    if inner_name(path) != "geometry.in" or not control.is_file():  # all that FHI-aims reads
        return Calculation()
    keywords = _keywords(decode(read_bytes(control)))
    kind = keywords.get("relax_geometry", "none")
    functional, nearest = _functional(keywords)
    if "md_run" in keywords or kind == "none":
        none = f"no relaxation (relax_geometry {kind})"
        what = "molecular dynamics" if "md_run" in keywords else none
        return Calculation(Held(), "", functional, f"{control} asks for {what}", nearest)
    pressure = keywords.get("external_pressure", "0")
    given, refusal = keywords.get("relax_unit_cell", "none"), ""
    if given != "none" and not re.fullmatch(r"[-+]?[0.]+([ed][-+]?\d+)?", pressure):
        refusal = f"{control} asks for an external pressure: external_pressure {pressure}"
    held = Held.of("nothing")
    if given == "none":
        held = Held.of("cell")
    elif given == "fixed_angles":
        held = Held(parts=(HeldParameters(cell, np.eye(6)[3:]),))
    reason = f"relax_unit_cell {given}" if held else ""
    return Calculation(held, reason, functional, refusal, nearest)


def _functional(keywords: dict[str, str]) -> tuple[str | None, str]:
    """Functional that is named, and the nearest where that is none that weights know."""
    named = keywords.get("xc", "").split()
    if not named:
        return None, "unknown"
    last = named[-1]
    plain = _FUNCTIONALS.get(last, "unknown")
    nearest = _NEAREST.get(last, "unknown")
    if any(name in keywords for name in _DISPERSION):
        return with_dispersion(plain, nearest, is_d3=False)
    return plain, nearest


def _keywords(text: str) -> dict[str, str]:
    """The general keywords with their values; those of species come after them."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].lower().split()
        if words and words[0] == "species":
            break
        if words:
            found[words[0]] = " ".join(words[1:]) or "true"
    return found
