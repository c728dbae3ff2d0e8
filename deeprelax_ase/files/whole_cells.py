"""Refuse files of which the readers of ASE and pymatgen leave out symmetry, occupancies or more.

They take the atoms that are listed for all atoms of the cell. Layouts are those of SHELXL
(https://shelx.uni-goettingen.de), the PDB (https://www.wwpdb.org, version 3.3), CSSR, fort.34 of
CRYSTAL, Materials Studio's .xsd, and geometry.in of FHI-aims (its manual, section 2.1). What holds
atoms or the cell is left out in `left_out_holds.py`.
"""

import re
from collections.abc import Callable, Mapping

from deeprelax_ase.files.left_out_holds import HOLDS
from deeprelax_ase.structures.validation import FULL, StructureError

_P1 = {"", "1", "P1", "1P1", "GroupName"}
"""Ways to say that there is no symmetry; ASE writes the last one into .xsd."""
_SYMMETRY = re.compile(r"^SYMM\s+(.+)$", re.MULTILINE | re.IGNORECASE)
_LATTICE = re.compile(r"^\s*LATT\s+(-?\d+)", re.MULTILINE | re.IGNORECASE)
_ATOM_OF_RES = re.compile(
    r"^([A-Z]+\d*\w*)\s+\d+(?:\s+[-+\d.]+){3}\s+([-+\d.]+)", re.MULTILINE | re.IGNORECASE
)
_WORDS = (
    "TITL CELL ZERR LATT SYMM SFAC DISP UNIT TEMP SIZE HKLF END ABIN ACTA AFIX ANIS "
    "ANSC ANSR BASF BIND BLOC BOND BUMP CGLS CHIV CONF CONN DAMP DANG DEFS DELU DFIX "
    "EADP EQIV EXTI EXYZ FEND FLAT FMAP FRAG FREE FVAR GRID HFIX HTAB ISOR LAUE LIST "
    "MERG MORE MOVE MPLA NCSY NEUT OMIT PART PLAN PRIG REM RESI RIGU RTAB SADI SAME "
    "SHEL SIMU SPEC STIR SUMP SWAT TIME TWIN TWST WGHT WIGL WPDB XNPD "
)
_INSTRUCTIONS = frozenset(_WORDS.split())
"""Words that begin no atom in SHELXL."""
_BOX = re.compile(r"^CRYST1.{49}(.{1,11})", re.MULTILINE)
_ATOM_OF_PDB = re.compile(r"^(?:ATOM  |HETATM).{6}(.{4}).{38}(.{1,6})", re.MULTILINE)
_GROUP_OF_CSSR = re.compile(r"SPGR\s*=(.*?)(?:OPT|$)", re.MULTILINE)
_GROUP_OF_XSD = re.compile(r"<SpaceGroup\b[^>]*\bGroupName=\"([^\"]*)\"")
_OPERATIONS_OF_CRYSTAL = 4
"""Line of fort.34 that says how many symmetry operations follow, counted from zero."""
_HOLDERS = ("lattice_vector", "atom", "atom_frac")
_AIMS = (*_HOLDERS, "constrain_relaxation", "initial_moment", "initial_charge", "velocity")
_FIXED = 10.0
"""SHELXL adds it to an occupancy that is not refined."""


def _of_res(text: str) -> str:
    found = _SYMMETRY.search(text)
    if found:
        return f"the operation {found[1].strip()}"
    lattice = _LATTICE.search(text)
    if lattice is None:
        return "no LATT, which SHELXL takes for a centre of symmetry (LATT 1)"
    if lattice[1] != "-1":
        return f"the lattice LATT {lattice[1]}"
    for label, occupancy in _ATOM_OF_RES.findall(text):
        is_atom = label.upper().split("_")[0] not in _INSTRUCTIONS  # of a residue: DFIX_2
        if is_atom and abs(float(occupancy) % _FIXED - 1.0) > FULL:
            return f"the occupancy {occupancy} of {label}"
    return ""


def _of_pdb(text: str) -> str:
    for group in _BOX.findall(text):
        if re.sub(r"\s", "", group) not in _P1:
            return f"the space group {group.strip()}"
    for label, occupancy in _ATOM_OF_PDB.findall(text):
        if occupancy.strip() and abs(float(occupancy) - 1.0) > FULL:
            return f"the occupancy {occupancy.strip()} of {label.strip()}"
    return ""


def _of_cssr(text: str) -> str:
    found = _GROUP_OF_CSSR.search(text)
    is_p1 = found is None or re.sub(r"\s", "", found[1]) in _P1
    return "" if is_p1 or found is None else f"the space group {found[1].strip()}"


def _of_xsd(text: str) -> str:
    found = next((group for group in _GROUP_OF_XSD.findall(text) if group not in _P1), "")
    return f"the space group {found}" if found else ""


def _of_crystal(text: str) -> str:
    count = (text.splitlines()[_OPERATIONS_OF_CRYSTAL : _OPERATIONS_OF_CRYSTAL + 1] or [""])[0]
    return f"{count.strip()} symmetry operations" if count.strip() not in ("", "1") else ""


def _of_aims(text: str) -> str:
    holder = ""
    for line in text.splitlines():
        word = (line.split("#")[0].split() or [""])[0].lower()
        if word == "constrain_relaxation" and holder == "lattice_vector":
            return "a constrain_relaxation of a lattice vector"
        if word and word not in _AIMS:
            return f"the entry {word}"
        holder = word if word in _HOLDERS else holder
    return ""


_LISTED: Mapping[str, Callable[[str], str]] = {
    "res": _of_res,
    "proteindatabank": _of_pdb,
    "cssr": _of_cssr,
    "xsd": _of_xsd,
    "crystal": _of_crystal,
    "aims": _of_aims,
}
"""Formats, and what a reader leaves out of a text in each; nothing, where it reads all."""
PARTLY_READ = {*_LISTED, *HOLDS}
"""Formats whose readers leave something out."""


def check_whole_cell(file_format: str, text: str) -> None:
    """Refuse a text that lists less than all atoms of the cell, or parts of atoms.

    Args:
        file_format: Its format, one of `PARTLY_READ`.
        text: Of the file.

    Raises:
        StructureError: The message names what its reader leaves out.
    """
    lost = _LISTED[file_format](text) if file_format in _LISTED else ""
    way = "list all atoms of the cell in P 1, or give a CIF"
    if file_format == "aims":
        way = "take it out (--hold holds cell vectors), or give a CIF"
    if not lost and file_format in HOLDS:
        lost = HOLDS[file_format](text)
        way = "take it out (--hold holds the cell), or give a POSCAR with selective dynamics"
    if lost:
        msg = f"has {lost}, which the reader of the format {file_format!r} leaves out: {way}"
        raise StructureError(msg)
