"""Read one structure file of a known format, by our own editors, pymatgen or ASE.

Nothing is lost without a word: what a reader warns of is an error or a note.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read as ase_read
from pymatgen.core import Structure
from pymatgen.io.exciting import ExcitingInput

from deeprelax_ase.files import file_formats as formats
from deeprelax_ase.files.ase_database import read_database
from deeprelax_ase.files.castep_text import (
    has_velocities,
    read_castep_text,
    write_castep_text,
)
from deeprelax_ase.files.cif import read_cif
from deeprelax_ase.files.file_text import (
    decode,
    inner_name,
    is_binary,
    is_compressed,
    is_plain_text,
    peek,
    read_bytes,
)
from deeprelax_ase.files.poscar_text import read_poscar_text
from deeprelax_ase.files.pw_text import notes_of_dropped, read_pw_text, with_atoms
from deeprelax_ase.files.records import reason_of
from deeprelax_ase.files.unnamed_species import (
    lammps_data_numbers,
    lammps_dump_species,
    missing_species,
    with_xdatcar_species,
)
from deeprelax_ase.files.whole_cells import PARTLY_READ, check_whole_cell
from deeprelax_ase.structures.validation import StructureError


@dataclass(frozen=True)
class StructureFile:
    """What was read from a file.

    Attributes:
        path: The file.
        format: `poscar`, `cif`, `mcif`, `pymatgen-json`, a format that pymatgen reads by the name
            of the file, `records` for files of records, or the name ASE gives the format.
        structures: pymatgen Structures or ASE Atoms.
        comment: First line of a POSCAR.
        notes: What of the file is not carried over.
        rewrite: Gives the text of the file with another structure in it, where a text editor keeps
            everything else.
        has_crlf: Whether its lines end with a carriage return as well.
    """

    path: Path
    format: str
    structures: Sequence[Any]
    comment: str = ""
    notes: tuple[str, ...] = ()
    rewrite: Callable[[Any], str] | None = None
    has_crlf: bool = False


def parse_file(path: Path, file_format: str, species: Sequence[str] = ()) -> StructureFile:
    """Read every structure of a file.

    Args:
        path: The file.
        file_format: Its format.
        species: Elements, in their order, of a file that does not name them.

    Raises:
        StructureError: It cannot be read, or not without a loss; the message says why.
    """
    own = {
        formats.POSCAR: _parse_poscar,
        formats.VOLUMETRIC: _parse_poscar,
        formats.CIF: _parse_cif,
        formats.MCIF: _parse_cif,
        formats.PW: _parse_pw,
        formats.CASTEP: _parse_castep,
    }
    try:
        if file_format in own:
            data = read_bytes(path)
            found = own[file_format](path, file_format, decode(data), species)
            return replace(found, has_crlf=b"\r\n" in data)
        if file_format == formats.JSON:
            structure = Structure.from_str(decode(read_bytes(path)), fmt="json")
            return StructureFile(path, file_format, [structure])
        if file_format in PARTLY_READ:
            check_whole_cell(file_format, decode(read_bytes(path)))
        if file_format in formats.PYMATGEN:
            return StructureFile(path, file_format, [_by_pymatgen(path, file_format)])
        return StructureFile(path, file_format, _by_ase(path, file_format, species))
    except StructureError as error:
        msg = str(error)
        msg = msg if msg.startswith(str(path)) else f"{path} {msg}"
        raise StructureError(msg) from error
    except Exception as error:  # the parsers raise whatever their code runs into
        msg = f"{path} cannot be read as {_article(file_format)}: {reason_of(error)}"
        raise StructureError(msg) from error


def _article(file_format: str) -> str:
    return f"a structure file of the format {file_format!r}"


def _parse_poscar(path: Path, file_format: str, text: str, species: Sequence[str]) -> StructureFile:
    poscar = read_poscar_text(text)
    notes = []
    symbols = tuple(species)
    if poscar.symbols and species:
        notes.append("--species is not used: the file names its elements")
    if not poscar.symbols and not species:
        symbols = poscar.symbols_behind_atoms()
        if not symbols:
            raise missing_species(len(poscar.counts), "group", " (VASP 4)")
    structure = poscar.structure(symbols)
    if file_format == formats.VOLUMETRIC:
        return StructureFile(path, file_format, [structure], poscar.head, tuple(notes))
    if poscar.has_velocities:
        what = (
            "lattice velocities and velocities" if poscar.has_lattice_velocities else "velocities"
        )
        notes.append(f"{what} are dropped: they belong to the unrelaxed atoms")
    return StructureFile(
        path, file_format, [structure], poscar.head, tuple(notes), poscar.with_structure
    )


def _parse_cif(path: Path, file_format: str, text: str, _: Sequence[str]) -> StructureFile:
    structures, notes = read_cif(text)
    return StructureFile(path, file_format, structures, notes=notes)


def _parse_pw(path: Path, file_format: str, text: str, _: Sequence[str]) -> StructureFile:
    atoms = read_pw_text(text)
    notes = notes_of_dropped(text)
    return StructureFile(
        path, file_format, [atoms], notes=notes, rewrite=lambda new: with_atoms(text, new)
    )


def _parse_castep(path: Path, file_format: str, text: str, _: Sequence[str]) -> StructureFile:
    atoms = read_castep_text(text)
    notes = (
        ("velocities are dropped: they belong to the unrelaxed atoms",)
        if has_velocities(text)
        else ()
    )
    return StructureFile(
        path, file_format, [atoms], notes=notes, rewrite=lambda new: write_castep_text(text, new)
    )


def _by_pymatgen(path: Path, file_format: str) -> Structure:
    """A structure of a format that pymatgen knows by the name of the file."""
    name, patterns = formats.PYMATGEN[file_format]
    is_known = any(fnmatch(inner_name(path), pattern) for pattern in patterns)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        readable = _plain_copy(path, Path(folder), None if is_known else name)
        if file_format == "exciting":  # pymatgen 2025 looks for it in the working folder
            return _with_locks(ExcitingInput.from_file(readable).structure)
        return Structure.from_file(readable)


def _with_locks(structure: Structure) -> Structure:
    """A structure of exciting, whose locks pymatgen stores where others store what is free."""
    locked = np.array(structure.site_properties.get("selective_dynamics", False), dtype=bool)
    if locked.any():
        structure.add_site_property("selective_dynamics", (~locked).tolist())
    else:
        structure.remove_site_property("selective_dynamics")
    return structure


def _by_ase(path: Path, file_format: str, species: Sequence[str]) -> list[Any]:
    options: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        readable = _plain_copy(path, Path(folder))
        if file_format == "db":
            return [*read_database(readable, "db")]
        if file_format == "lammps-data":
            options["Z_of_type"] = lammps_data_numbers(decode(readable.read_bytes()), species)
        elif file_format == "lammps-dump-text":
            elements = lammps_dump_species(decode(readable.read_bytes()), species)
            options["specorder"] = list(elements) or None
        elif file_format == "vasp-xdatcar":
            text = with_xdatcar_species(decode(readable.read_bytes()), species)
            readable = Path(folder) / "XDATCAR"
            readable.write_text(text, encoding="utf-8")
        # The at sign would be taken for the index of a frame.
        frames = ase_read(
            str(readable), index=":", format=file_format, do_not_split_by_at_sign=True, **options
        )
        return [*frames]


def _plain_copy(path: Path, folder: Path, name: str | None = None) -> Path:
    """The file itself, or a copy of it that any library reads: unpacked, in UTF-8, of a name."""
    is_fine = not is_compressed(path) and (
        is_binary(peek(path)) or is_plain_text(path.read_bytes())
    )
    if is_fine and name is None:
        return path
    copy = folder / (name or inner_name(path))
    data = read_bytes(path)
    if is_binary(data) or is_plain_text(data):
        copy.write_bytes(data)
    else:
        text = decode(data).encode("utf-8", "surrogateescape")
        copy.write_bytes(text.decode("utf-8", "replace").encode())
    return copy
