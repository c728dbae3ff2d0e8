"""What an input of Quantum ESPRESSO's pw.x says of the relaxation that it asks for.

Meanings are those of https://www.quantum-espresso.org/Doc/INPUT_PW.html.
"""

import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.files.calculation import Calculation, with_dispersion
from deeprelax_ase.files.file_text import has_value
from deeprelax_ase.files.pw_cards import has_card, read_card
from deeprelax_ase.files.pw_namelists import namelists_of, number_of
from deeprelax_ase.structures.exact_holds import HeldEntries
from deeprelax_ase.structures.held import Held
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
_NEAREST = {"scan": "r2SCAN", "rscan": "r2SCAN", "rpbe": "PBE", "revpbe": "PBE"}
_D3 = ("grimme-d3", "dft-d3")
_OF_PSEUDOPOTENTIAL = (
    (r"pbesol", "PBEsol"),
    (r"r2scan", "r2SCAN"),
    (r"scan|lda|blyp|hse|(?<![a-z])(pz(?![a-z])|vwn|revpbe|rpbe|wc(?![a-z]))", "unknown"),
    (r"pbe|gga", "PBE"),
)
_FREE = {
    "fixa": (1, 2),
    "fixb": (0, 2),
    "fixc": (0, 1),
    "epitaxial_ab": (2,),
    "epitaxial_ac": (1,),
    "epitaxial_bc": (0,),
}
"""Cell vectors that may change."""
_COMPONENTS = ("a", "b", "c")
"""That component of a cell vector is fixed which is on the diagonal, and nothing else."""
_DIRECTIONS = ("x", "y", "z", "xy", "xz", "yz", "xyz")
"""Those components on the diagonal may change, and nothing else."""


def read_pw_calculation(text: str, cell: Float[np.ndarray, "3 3"]) -> Calculation:
    """Read what an input of pw.x asks for.

    Args:
        text: Of the input.
        cell: Its row vectors, Å.

    Raises:
        StructureError: `cell_dofree` or `press` cannot be read.
    """
    namelists = namelists_of(text)
    control, system, cell_entries = (
        namelists.get(one, {}) for one in ("control", "system", "cell")
    )
    kind = control.get("calculation", "scf").lower()
    refusal = _refusal(kind, control, system, namelists.get("electrons", {}), text)
    functional, nearest = _functional(system, text)
    if kind == "relax":
        return Calculation(Held.of("cell"), "calculation = 'relax'", functional, refusal, nearest)
    if kind != "vc-relax":
        return Calculation(Held(), "", functional, refusal, nearest)
    if _number(cell_entries, "press", 0.0) and not refusal:
        refusal = f"press = {cell_entries['press']} asks for an external pressure"
    freedom = cell_entries.get("cell_dofree", "all")
    held = _held(freedom.lower(), cell)
    reason = f"cell_dofree = '{freedom}'" if held else ""
    return Calculation(held, reason, functional, refusal, nearest)


def _refusal(
    kind: str,
    control: Mapping[str, str],
    system: Mapping[str, str],
    electrons: Mapping[str, str],
    text: str,
) -> str:
    """Say why the structure of an input is not to be relaxed; nothing, if it is."""
    if kind not in ("relax", "vc-relax"):
        unknown = "is none that pw.x knows: write relax or vc-relax"
        asked = f"asks for {_NOT_RELAXED[kind]}" if kind in _NOT_RELAXED else unknown
        return f"calculation = '{kind}' {asked}"
    if _number(control, "nstep", 1.0) == 0:
        return "nstep = 0 asks for a single point: no atom moves"
    if has_card(text, "CONSTRAINTS"):
        return "the card CONSTRAINTS holds distances or angles, which cannot be honoured"
    forces = read_card(text, "ATOMIC_FORCES")[1] if has_card(text, "ATOMIC_FORCES") else []
    if any(has_value(word) for row in forces for word in row[1:]):
        return "the card ATOMIC_FORCES asks for forces from outside"
    is_on = {name for name, value in control.items() if value.lower().strip(".").startswith("t")}
    # With eamp = 0 it only corrects for a dipole.
    if "tefield" in is_on and _number(system, "eamp", 0.001):
        return f"tefield asks for an electric field: eamp = {system.get('eamp', '0.001')}"
    fields = [value for name, value in electrons.items() if name.startswith("efield")]
    has_field = "lelfield" in is_on and any(has_value(value) for value in fields)
    return "lelfield asks for an electric field" if has_field else ""


def _held(freedom: str, cell: Float[np.ndarray, "3 3"]) -> Held:
    """What `cell_dofree` keeps of a cell."""
    # The symmetry of the crystal, and with it that of the lattice (ibrav), always stays.
    part = freedom.removeprefix("ibrav+")
    if part in ("all", "default", "ibrav"):
        return Held.of("nothing")
    if part in ("volume", "shape"):
        return Held.of("shape" if part == "volume" else "volume")
    names = {"volume"} if part == "2dshape" else set()
    if part in ("2dshape", "2dxy"):
        kept = _all_but_plane()
    else:
        kept = np.ones((3, 3), dtype=bool)
        if part in _FREE:
            kept[list(_FREE[part])] = False
        elif part in _DIRECTIONS:
            axes = ["xyz".index(letter) for letter in part]
            kept[axes, axes] = False
        elif part in _COMPONENTS:
            kept = np.diag([part == one for one in _COMPONENTS])
        else:
            planes = ("all", "ibrav", "volume", "shape", "2Dxy", "2Dshape")
            known = ", ".join((*planes, *_DIRECTIONS, *_COMPONENTS, *_FREE))
            msg = f"cell_dofree = '{freedom}' is unknown: pw.x takes {known}"
            raise StructureError(msg)
    return Held(frozenset(names), (HeldEntries(cell, kept),))


def _all_but_plane() -> Bool[np.ndarray, "3 3"]:
    """Components of the cell that do not lie in the plane of x and y, or are of c."""
    kept = np.zeros((3, 3), dtype=bool)
    kept[:, 2] = kept[2] = True
    return kept


def _number(entries: Mapping[str, str], name: str, default: float) -> float:
    try:
        return number_of(entries[name]) if name in entries else default
    except ValueError as error:
        msg = f"{name} = {entries[name]} has to be a number"
        raise StructureError(msg) from error


def _functional(system: Mapping[str, str], text: str) -> tuple[str | None, str]:
    """Functional with its correction for dispersion; None where nothing says. And the nearest."""
    dispersion = system.get("vdw_corr", "none").lower()
    plain, nearest = _plain_functional(system, text)
    if dispersion in ("", "none"):
        return plain, nearest
    return with_dispersion(plain, nearest, is_d3=dispersion in _D3)


def _plain_functional(system: Mapping[str, str], text: str) -> tuple[str | None, str]:
    """Functional that `input_dft` names, or else the files of the pseudopotentials."""
    if "input_dft" in system:
        named = system["input_dft"].lower()
        return _DFT.get(named, "unknown"), _NEAREST.get(named, "unknown")
    species = read_card(text, "ATOMIC_SPECIES")[1] if has_card(text, "ATOMIC_SPECIES") else []
    found = {_of_pseudopotential(row[2]) for row in species if len(row) > 2}  # noqa: PLR2004
    if None in found or not found:
        return None, "unknown"
    return found.pop() if len(found) == 1 else "unknown", "unknown"


def _of_pseudopotential(name: str) -> str | None:
    lower = name.lower()
    return next(
        (known for pattern, known in _OF_PSEUDOPOTENTIAL if re.search(pattern, lower)), None
    )
