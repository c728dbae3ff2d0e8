"""Structure files in, structure files out, in the same format, never half written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser
from pymatgen.io.vasp import Poscar

from deeprelax_ase.structure import StructureError

_POSCAR_NAMES = ("POSCAR", "CONTCAR")


@dataclass(frozen=True)
class StructureFile:
    """What was read from a file.

    Attributes:
        path: The file.
        format: `poscar`, `cif`, `json` (of pymatgen), or the name ASE gives the format.
        structures: pymatgen Structures of the first three, ASE Atoms of the others.
        comment: First line of a POSCAR.
    """

    path: Path
    format: str
    structures: Sequence[Any]
    comment: str = ""


def read_structures(path: Path) -> StructureFile:
    """Read every structure of a file that ASE or pymatgen reads.

    POSCAR, CIF and pymatgen's JSON go through pymatgen, which keeps their labels and selective
    dynamics; all else goes through ASE.

    Raises:
        StructureError: The file is missing, a folder, empty, or nothing that either reads.
    """
    if path.is_dir():
        msg = f"{path} is a folder: name the structure file in it"
        raise StructureError(msg)
    if not path.is_file():
        msg = f"no file {path}"
        raise StructureError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty"
        raise StructureError(msg)
    try:
        return _read(path)
    except StructureError:
        raise
    except Exception as error:  # the parsers raise whatever their code runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path} cannot be read as a structure file: {reason[:200]}"
        raise StructureError(msg) from error


def _read(path: Path) -> StructureFile:
    name = path.name
    if name.startswith(_POSCAR_NAMES) or path.suffix in (".vasp", ".poscar"):
        poscar = Poscar.from_str(path.read_text(encoding="utf-8"), read_velocities=False)
        if not poscar.true_names:
            msg = f"{path} names no species (VASP 4): add a line with their symbols"
            raise StructureError(msg)
        # Poscar keeps the flags beside the structure; as a site property they stay with it.
        structure = poscar.structure
        return StructureFile(path, "poscar", [structure], poscar.comment)
    if path.suffix in (".cif", ".mcif"):
        parser = CifParser(path, check_cif=False)
        structures = parser.parse_structures(primitive=False, on_error="raise")
        return StructureFile(path, "cif", structures)
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8")
        if '"pymatgen' in text:
            return StructureFile(path, "json", [Structure.from_str(text, fmt="json")])
    try:
        file_format = filetype(str(path))
    except UnknownFileTypeError as error:
        msg = f"{path} is in no format that ASE or pymatgen reads"
        raise StructureError(msg) from error
    frames = ase_read(str(path), index=":", format=file_format)
    return StructureFile(path, file_format, frames)


def output_path(source: StructureFile, output: Path | None) -> Path:
    """Where the relaxed structures of a file go: beside it, or where the user said.

    Raises:
        StructureError: The format can be read but not written, and no output was named.
    """
    path = source.path
    if output is not None:
        is_folder = output.is_dir() or str(output).endswith(os.sep)
        return output / path.name if is_folder else output
    writable = source.format in ("poscar", "cif", "json") or ioformats[source.format].can_write
    if not writable:
        msg = f"{path} is in the format {source.format!r}, which can only be read: name an --output"
        raise StructureError(msg)
    if path.name.startswith(_POSCAR_NAMES) and path.suffix not in (".vasp", ".poscar"):
        return path.with_name(f"{path.name}_relaxed")
    return path.with_name(f"{path.stem}_relaxed{path.suffix}")


def write_structures(source: StructureFile, structures: Sequence[Any], path: Path) -> None:
    """Write structures in the source's format, or in that of the path's ending if it differs.

    Raises:
        StructureError: The format cannot be written.
        OSError: The disk says no; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        _write(source, structures, path, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(source: StructureFile, structures: Sequence[Any], path: Path, beside: Path) -> None:
    wanted = _format_of(path) or source.format
    if wanted in ("poscar", "cif", "json"):
        own = [_as_structure(structure) for structure in structures]
        if wanted == "cif":
            text = "".join(structure.to(fmt="cif") for structure in own)
        elif len(own) > 1:
            msg = f"{path}: a {wanted} file holds one structure, and there are {len(own)}"
            raise StructureError(msg)
        elif wanted == "json":
            text = own[0].to(fmt="json")
        else:
            comment = source.comment or own[0].formula
            text = Poscar(own[0], comment=comment).get_str(significant_figures=16)
        beside.write_text(text, encoding="utf-8")
        return
    if wanted not in ioformats or not ioformats[wanted].can_write:
        msg = f"cannot write the format {wanted!r} of {path}"
        raise StructureError(msg)
    frames = [s if isinstance(s, Atoms) else s.to_ase_atoms() for s in structures]
    ase_write(str(beside), frames, format=wanted)


def _format_of(path: Path) -> str | None:
    """Format by name; None where the name says nothing."""
    if path.name.startswith(_POSCAR_NAMES) or path.suffix in (".vasp", ".poscar"):
        return "poscar"
    if path.suffix in (".cif", ".mcif"):
        return "cif"
    try:
        return str(filetype(path.name, read=False)) if path.suffix not in ("", ".json") else None
    except UnknownFileTypeError:
        return None


def _as_structure(structure: Any) -> Structure:
    if isinstance(structure, Atoms):
        from pymatgen.io.ase import AseAtomsAdaptor

        return AseAtomsAdaptor.get_structure(structure)
    return structure
