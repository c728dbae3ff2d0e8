"""Tell the format of a structure file: by its name, or else by its content.

Names of formats are those of ASE, and a few of our own and of pymatgen's.
"""

import re
from fnmatch import fnmatch
from pathlib import Path

from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from deeprelax_ase.files.file_text import (
    decode,
    inner_name,
    is_binary,
    peek,
    read_bytes,
    split_suffix,
)
from deeprelax_ase.files.poscar_text import poscar_ending, read_poscar_text
from deeprelax_ase.files.pw_text import is_pw_text
from deeprelax_ase.files.records import CIF_SIGN
from deeprelax_ase.structures.validation import StructureError

POSCAR, CIF, MCIF, PW, CASTEP = "poscar", "cif", "mcif", "espresso-in", "castep-cell"
JSON, TABLE, AIMS = "pymatgen-json", "records", "aims"
"""JSON of one pymatgen Structure; a file of records, which can only be read; FHI-aims."""
PYMATGEN = {
    "vasprun": ("vasprun.xml", ("vasprun*.xml*",)),
    "cssr": ("a.cssr", ("*.cssr",)),
    "yaml": ("a.yaml", ("*.yaml", "*.yml")),
    "exciting": ("input.xml", ("input*.xml",)),
    "mcsqs": ("bestsqs.out", ("*rndstr.in*", "*lat.in*", "*bestsqs*")),
    "lmto": ("CTRL", ("CTRL*",)),
    "pwmat": ("atom.config", ("*atom.config*", "*.pwmat", "*.config")),
}
"""Formats that pymatgen reads by the name of the file: a name that it knows, and all of them."""
VOLUMETRIC = "chgcar"
"""CHGCAR, LOCPOT and the like, which begin as a POSCAR does."""
_VOLUMETRIC_NAMES = ("CHGCAR*", "CHG", "CHG.*", "LOCPOT*", "AECCAR*", "PARCHG*", "ELFCAR*")
TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson", ".zip")
_OWN_SUFFIXES = {".cif": CIF, ".mcif": MCIF, ".vasp": POSCAR, ".poscar": POSCAR, ".cell": CASTEP}
_ALIASES = {
    "vasp": POSCAR,
    "contcar": POSCAR,
    "qe": PW,
    "pw": PW,
    "pwi": PW,
    "castep": CASTEP,
    "lammps": "lammps-data",
    "lammps-dump": "lammps-dump-text",
    "xdatcar": "vasp-xdatcar",
    "locpot": VOLUMETRIC,
}
_LAMMPS = re.compile(r"^\s*\d+\s+atoms\b.*^\s*\S+\s+\S+\s+xlo\s+xhi", re.MULTILINE | re.DOTALL)
_SQS = re.compile(r"(?:\s*(?:[-+.\deE]+\s+){3}){6}(?:\s*(?:[-+.\deE]+\s+){3}[A-Z][a-z]?(?:\s|$))+")
_OWN = (POSCAR, CIF, MCIF, JSON, PW, CASTEP, VOLUMETRIC, *PYMATGEN)


def readable_formats() -> list[str]:
    """Names that `--format` takes."""
    return sorted(
        {*_OWN, *(name for name, entry in ioformats.items() if entry.can_read)} - {"vasp"}
    )


def writable_formats() -> list[str]:
    """Names that `--output-format` takes."""
    names = {name for name, entry in ioformats.items() if entry.can_write}
    return sorted({POSCAR, CIF, MCIF, JSON, "yaml", *names} - {"vasp"})


def named_format(name: str, *, for_output: bool = False) -> str:
    """Find a format by the name that a user gave it.

    Raises:
        StructureError: There is none of that name.
    """
    plain = name.lower().lstrip(".")
    found = _ALIASES.get(plain, plain)
    valid = writable_formats() if for_output else readable_formats()
    if found not in valid:
        verb = "written" if for_output else "read"
        msg = f"no format {name!r} is {verb}: choose one of {', '.join(valid)}"
        raise StructureError(msg)
    return found


def format_of(path: Path) -> str | None:
    """Tell the format of a file; None if it is none that is read."""
    found = format_of_name(path)
    if found is not None and found not in PYMATGEN:
        return found
    data = peek(path)
    head = "" if is_binary(data) else decode(data)
    if is_pw_text(head):  # whose name may hold lat.in, or begin with CTRL
        found = PW
    if found is not None:
        return found
    if re.match(r"\s*[\[{]", head) and split_suffix(path) in ("", ".json"):
        return TABLE
    if _LAMMPS.search(head):
        return "lammps-data"
    by_ase = ase_format(path)
    if by_ase == "espresso-out" and _SQS.match(head):
        return "mcsqs"
    return by_ase or (_of_content(head, path) if head else None)


def format_of_name(path: Path) -> str | None:
    """Tell the format of a file whose name alone decides; None for those of ASE."""
    name, suffix = inner_name(path), split_suffix(path)
    if suffix in _OWN_SUFFIXES:
        return _OWN_SUFFIXES[suffix]
    if suffix in TABLE_SUFFIXES or (suffix == ".json" and path.suffix != ".json"):
        return TABLE
    if any(fnmatch(name, pattern) for pattern in _VOLUMETRIC_NAMES):
        return VOLUMETRIC
    # POSCAR.start is one, CONTCAR.xyz is not.
    is_named = poscar_ending(name) is not None
    if is_named and suffix.removeprefix(".") not in {*_ase_suffixes(), "json"}:
        return POSCAR
    for own, (_, patterns) in PYMATGEN.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return own
    return None


def ase_format(path: Path, *, read: bool = True) -> str | None:
    """Tell what ASE takes a file for, by its name and perhaps its content."""
    found = _ase_format(path, read=read)
    if found == "vasp":  # ASE goes by POSCAR anywhere in a name, also in that of my_POSCAR.xyz
        found = _ase_format(Path(f"structure{split_suffix(path)}"), read=False) or POSCAR
    return found


def _ase_format(path: Path, *, read: bool) -> str | None:
    try:
        found = str(filetype(str(path), read=read))
    except UnknownFileTypeError:
        return None
    return found if found in ioformats else None  # an ending that ASE knows nothing of comes back


def _ase_suffixes() -> set[str]:
    return {extension for entry in ioformats.values() for extension in entry.extensions}


def _of_content(head: str, path: Path) -> str | None:
    """Format of a text that no name gives away."""
    if CIF_SIGN in head and re.search(r"^\s*data_", head, re.MULTILINE):
        return CIF
    if re.search(r"^\s*%block\s+lattice_(cart|abc)", head, re.MULTILINE | re.IGNORECASE):
        return CASTEP
    if _SQS.match(head):
        return "mcsqs"
    try:
        read_poscar_text(decode(read_bytes(path)))
    except StructureError:
        return None
    return POSCAR
