"""Structure files in, structure files out, in the same format, never half written."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from monty.io import zopen
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser, CifWriter
from pymatgen.io.vasp import Poscar

from deeprelax_ase.structures.atomic_write import written_beside
from deeprelax_ase.structures.validation import StructureError

COMPRESSED = (".gz", ".bz2", ".xz")
"""Endings of compressed files that are read."""
_OWN_SUFFIXES = {".cif": "cif", ".mcif": "mcif", ".vasp": "poscar", ".poscar": "poscar"}
_PYMATGEN_FORMATS = ("poscar", "cif", "mcif", "pymatgen-json")


@dataclass(frozen=True)
class StructureFile:
    """What was read from a file.

    Attributes:
        path: The file.
        format: `poscar`, `cif`, `mcif`, `pymatgen-json`, or the name ASE gives the format.
        structures: pymatgen Structures of the first four, ASE Atoms of the others.
        comment: First line of a POSCAR.
        notes: What of the file is not carried over.
    """

    path: Path
    format: str
    structures: Sequence[Any]
    comment: str = ""
    notes: tuple[str, ...] = ()


def read_structures(path: Path) -> StructureFile:
    """Read every structure of a file that ASE or pymatgen reads.

    POSCAR, CIF and pymatgen's JSON go through pymatgen, which keeps their labels and selective
    dynamics; all else goes through ASE.

    Raises:
        StructureError: The file is missing, a folder, empty, holds no structure, or is nothing
            that either reads.
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
        found = _read(path)
    except StructureError:
        raise
    except Exception as error:  # the parsers raise whatever their code runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path} cannot be read as a structure file: {reason[:200]}"
        raise StructureError(msg) from error
    if not found.structures:
        msg = f"{path} holds no structure"
        raise StructureError(msg)
    return found


def _read(path: Path) -> StructureFile:
    own = _own_format(path)
    if own == "poscar":
        return _read_poscar(path)
    if own in ("cif", "mcif"):
        parser = CifParser(path, check_cif=False)
        structures = parser.parse_structures(primitive=False, on_error="raise")
        return StructureFile(path, own, structures)
    if split_suffix(path) == ".json":
        with zopen(path, mode="rt", encoding="utf-8") as stream:
            text = stream.read()
        if '"pymatgen' in text:
            return StructureFile(path, "pymatgen-json", [Structure.from_str(text, fmt="json")])
    file_format = _format_of_ase(str(path))
    if file_format == "vasp":  # by its name alone: a POSCAR would have been read by now
        file_format = _format_of_ase(f"structure{split_suffix(path)}", read=False)
    if file_format is None:
        msg = f"{path} is in no format that ASE or pymatgen reads"
        raise StructureError(msg)
    frames = ase_read(str(path), index=":", format=file_format)
    return StructureFile(path, file_format, frames)


def _format_of_ase(name: str, *, read: bool = True) -> str | None:
    """What ASE takes a file for, by its name and perhaps its content."""
    try:
        found = str(filetype(name, read=read))
    except UnknownFileTypeError:
        return None
    return found if found in ioformats else None  # an ending that ASE knows nothing of comes back


def _read_poscar(path: Path) -> StructureFile:
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        poscar = Poscar.from_str(stream.read())
    if not poscar.true_names:
        msg = f"{path} names no species (VASP 4): add a line with their symbols"
        raise StructureError(msg)
    structure = poscar.structure
    notes: tuple[str, ...] = ()
    if "velocities" in structure.site_properties:
        structure.remove_site_property("velocities")
        notes = ("velocities are dropped: they belong to the unrelaxed atoms",)
    return StructureFile(path, "poscar", [structure], poscar.comment, notes)


def split_name(path: Path) -> tuple[str, str, str]:
    """Stem, suffix, and suffix of compression of a file's name."""
    compression = path.suffix if path.suffix in COMPRESSED else ""
    inner = Path(path.name.removesuffix(compression))
    return inner.stem, inner.suffix, compression


def split_suffix(path: Path) -> str:
    """Suffix of a file's name, in lower case, without that of compression."""
    return split_name(path)[1].lower()


def _own_format(path: Path) -> str | None:
    """Format that goes through pymatgen, by name; None for those of ASE."""
    stem, suffix, _ = split_name(path)
    if suffix.lower() in _OWN_SUFFIXES:
        return _OWN_SUFFIXES[suffix.lower()]
    is_named = stem.upper().startswith(("POSCAR", "CONTCAR"))
    # POSCAR.start is one, CONTCAR.xyz is not.
    known = {extension for entry in ioformats.values() for extension in entry.extensions}
    return "poscar" if is_named and suffix.removeprefix(".") not in {*known, "json"} else None


def output_path(source: StructureFile, output: str | Path | None) -> Path:
    """Where the relaxed structures of a file go: beside it, or where the user said.

    What is a folder, or ends in a slash, is the folder they go into.

    Raises:
        StructureError: The format can be read but not written, and no output was named.
    """
    path = source.path
    if output is not None:
        named = Path(output)
        is_folder = named.is_dir() or str(output).endswith(os.sep)
        return named / path.name if is_folder else named
    if source.format not in _PYMATGEN_FORMATS and not ioformats[source.format].can_write:
        msg = f"{path} is in the format {source.format!r}, which can only be read: name an --output"
        raise StructureError(msg)
    stem, suffix, compression = split_name(path)
    if source.format == "poscar" and suffix.lower() not in _OWN_SUFFIXES:
        stem, suffix = f"{stem}{suffix}", ""
    return path.with_name(f"{stem}_relaxed{suffix}{compression}")


def write_structures(source: StructureFile, structures: Sequence[Any], path: Path) -> None:
    """Write structures in the format of the path's ending, or else in that of the source.

    Raises:
        StructureError: They cannot be written there or in that format; nothing is left behind and
            what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside:
            _write(source, structures, path, beside)
    except StructureError:
        raise
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise StructureError(msg) from error
    except Exception as error:  # the writers raise whatever their code runs into
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        msg = f"cannot write {path} in the format {_output_format(source, path)!r}: {reason[:200]}"
        raise StructureError(msg) from error


def _output_format(source: StructureFile, path: Path) -> str:
    """Format that the name asks for; that of the source where the name says nothing."""
    own = _own_format(path)
    if own is not None:
        return own
    _, suffix, _ = split_name(path)
    if suffix == ".json":
        return "pymatgen-json" if source.format in _PYMATGEN_FORMATS else "json"
    return (suffix and _format_of_ase(path.name, read=False)) or source.format


def _write(source: StructureFile, structures: Sequence[Any], path: Path, beside: Path) -> None:
    wanted = _output_format(source, path)
    if wanted in _PYMATGEN_FORMATS:
        text = _text(source, [as_structure(structure) for structure in structures], wanted, path)
        with zopen(beside, mode="wt", encoding="utf-8") as stream:
            stream.write(text)
        return
    if not ioformats[wanted].can_write:
        msg = f"cannot write {path}: the format {wanted!r} can only be read"
        raise StructureError(msg)
    frames = [s if isinstance(s, Atoms) else s.to_ase_atoms() for s in structures]
    ase_write(str(beside), frames, format=wanted)


def _text(source: StructureFile, structures: list[Structure], wanted: str, path: Path) -> str:
    """Structures in one of pymatgen's formats."""
    if wanted in ("cif", "mcif"):
        blocks = [
            str(CifWriter(s, write_magmoms=wanted == "mcif" and "magmom" in s.site_properties))
            for s in structures
        ]
        if len(blocks) > 1:  # names of data blocks have to differ
            blocks = [
                re.sub(r"^data_(.*)$", rf"data_\1_{number}", block, count=1, flags=re.MULTILINE)
                for number, block in enumerate(blocks, 1)
            ]
        return "".join(blocks)
    if len(structures) > 1:
        msg = f"{path}: a {wanted} file holds one structure, and there are {len(structures)}"
        raise StructureError(msg)
    if wanted == "pymatgen-json":
        return str(structures[0].to(fmt="json"))
    comment = source.comment or structures[0].formula
    return str(Poscar(structures[0], comment=comment).get_str(significant_figures=16))


def as_structure(structure: Any) -> Structure:
    """ASE Atoms as a pymatgen Structure; a Structure as it is."""
    if isinstance(structure, Atoms):
        from pymatgen.io.ase import AseAtomsAdaptor

        return AseAtomsAdaptor.get_structure(structure)
    return structure
