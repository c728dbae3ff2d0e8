"""What an input of Quantum ESPRESSO's pw.x says of the relaxation that it asks for.

Meanings are those of https://www.quantum-espresso.org/Doc/INPUT_PW.html.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.structures.calculation import Calculation, refused
from deeprelax_ase.structures.held import Held, held_entries
from deeprelax_ase.structures.validation import StructureError

_NOT_RELAXED = {
    "scf": "a single point: no atom moves",
    "nscf": "a single point: no atom moves",
    "bands": "bands: no atom moves",
    "md": "molecular dynamics",
    "vc-md": "molecular dynamics",
    "ensemble": "an ensemble of functionals: no atom moves",
}
_DFT = {
    "pbe": "PBE",
    "sla+pw+pbx+pbc": "PBE",
    "pbesol": "PBEsol",
    "ps": "PBEsol",
    "sla+pw+psx+psc": "PBEsol",
    "r2scan": "r2SCAN",
    "vdw-df-ob88": "optB88-vdW",
}
_OF_PSEUDOPOTENTIAL = (
    (r"pbesol", "PBEsol"),
    (r"r2scan", "r2SCAN"),
    (r"scan|lda|blyp|hse|(?<![a-z])(pz(?![a-z])|vwn|revpbe|rpbe|wc(?![a-z]))", "unknown"),
    (r"pbe|gga", "PBE"),
)
_FREE = {
    "a": (0,),
    "b": (1,),
    "c": (2,),
    "fixa": (1, 2),
    "fixb": (0, 2),
    "fixc": (0, 1),
    "epitaxial_ab": (2,),
    "epitaxial_ac": (1,),
    "epitaxial_bc": (0,),
}
"""Cell vectors that may change."""
_VALUE = r"('[^']*'|\"[^\"]*\"|[^\s,!]+)"


def read_pw_calculation(text: str, cell: Float[np.ndarray, "3 3"]) -> Calculation:
    """Read what an input of pw.x asks for.

    Args:
        text: Of the input.
        cell: Its row vectors, Å.

    Raises:
        StructureError: `cell_dofree` or `press` cannot be read.
    """
    entries = _entries(text)
    kind = entries.get("calculation", "scf").lower()
    if kind not in ("relax", "vc-relax"):
        what = _NOT_RELAXED.get(kind, "no relaxation")
        return refused(f"calculation = '{kind}' asks for {what}")
    if entries.get("nstep", "1") == "0":
        return refused("nstep = 0 asks for a single point: no atom moves")
    if re.search(r"^\s*CONSTRAINTS\b", text, flags=re.IGNORECASE | re.MULTILINE):
        return refused("the card CONSTRAINTS holds distances or angles, which cannot be honoured")
    functional = _functional(entries, text)
    if kind == "relax":
        return Calculation(Held.of("cell"), "calculation = 'relax'", functional)
    press = entries.get("press", "0")
    try:
        pressure = float(re.sub("[dD]", "e", press))
    except ValueError as error:
        msg = f"press = {press} has to be a number"
        raise StructureError(msg) from error
    if pressure:
        return refused(f"press = {press} asks for an external pressure")
    freedom = entries.get("cell_dofree", "all")
    held = _held(freedom.lower(), cell)
    return Calculation(held, f"cell_dofree = '{freedom}'" if held else "", functional)


def _held(freedom: str, cell: Float[np.ndarray, "3 3"]) -> Held:
    """What `cell_dofree` keeps of a cell."""
    held = Held()
    for part in freedom.split("+"):
        if part in ("all", "ibrav"):
            continue  # the symmetry of the crystal, and with it that of the lattice, stays
        if part == "volume":
            held |= Held.of("shape")
        elif part == "shape":
            held |= Held.of("volume")
        elif part == "2dshape":
            held |= Held(frozenset({"volume"}), held_entries(cell, _all_but_plane()))
        elif part == "2dxy":
            held |= Held(rows=held_entries(cell, _all_but_plane()))
        elif part in _FREE:
            kept = np.ones((3, 3), dtype=bool)
            kept[list(_FREE[part])] = False
            held |= Held(rows=held_entries(cell, kept))
        elif part and set(part) <= set("xyz"):
            kept = np.ones((3, 3), dtype=bool)
            for axis in map("xyz".index, part):
                kept[axis, axis] = False
            held |= Held(rows=held_entries(cell, kept))
        else:
            msg = f"cell_dofree = '{freedom}' is none that pw.x knows"
            raise StructureError(msg)
    return held


def _all_but_plane() -> Bool[np.ndarray, "3 3"]:
    """Components of the cell that do not lie in the plane of x and y, or are of c."""
    kept = np.zeros((3, 3), dtype=bool)
    kept[:, 2] = kept[2] = True
    return kept


def _functional(entries: Mapping[str, str], text: str) -> str | None:
    """Functional that `input_dft` names, or else the files of the pseudopotentials."""
    if "vdw_corr" in entries and entries["vdw_corr"].lower() not in ("", "none"):
        return "unknown"
    if "input_dft" in entries:
        return _DFT.get(entries["input_dft"].lower(), "unknown")
    found = {_of_pseudopotential(name) for name in _pseudopotentials(text)}
    if None in found or not found:
        return None
    return found.pop() if len(found) == 1 else "unknown"


def _of_pseudopotential(name: str) -> str | None:
    lower = name.lower()
    return next(
        (known for pattern, known in _OF_PSEUDOPOTENTIAL if re.search(pattern, lower)), None
    )


def _pseudopotentials(text: str) -> Iterable[str]:
    """Names of the files of the card ATOMIC_SPECIES."""
    lines = iter(text.splitlines())
    for line in lines:
        if re.match(r"\s*ATOMIC_SPECIES\b", line, flags=re.IGNORECASE):
            break
    for line in lines:
        words = re.split(r"[!#]", line, maxsplit=1)[0].split()
        if not words:
            continue
        if len(words) < 3 or not re.fullmatch(r"[-+.\deEdD]+", words[1]):  # noqa: PLR2004
            return
        yield words[2]


def _entries(text: str) -> dict[str, str]:
    """Entries of the namelists, with small names, without quotes."""
    entries: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: "x" * len(m[0]), line)
        mark = bare.find("!")
        code = line if mark < 0 else line[:mark]
        if code.lstrip().startswith("&"):
            inside = True
            code = code.lstrip().split(maxsplit=1)[1] if len(code.split()) > 1 else ""
        if inside:
            for name, value in re.findall(rf"([A-Za-z_]\w*)\s*=\s*{_VALUE}", code):
                entries.setdefault(name.lower(), value.strip("'\"").strip())
            if code.rstrip().endswith("/"):
                inside = False
    return entries
