"""Write structures to files: in the format that was read, never half written, never mirrored.

Text editors keep the rest of an input. A format whose writer would lose the rest of a calculation
is not written, unless the user names it.
"""

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase.io import write as ase_write
from ase.io.formats import ioformats
from monty.io import zopen
from pymatgen.core import IStructure, Structure
from pymatgen.io.cif import CifWriter

from deeprelax_ase.files import ase_database
from deeprelax_ase.files import file_formats as formats
from deeprelax_ase.files.atomic_write import written_beside
from deeprelax_ase.files.convert import as_atoms, as_structure, warn_of_lost, without_constraints
from deeprelax_ase.files.file_text import split_name
from deeprelax_ase.files.handedness import right_handed, right_handed_atoms
from deeprelax_ase.files.moments import fitting_moments, moments_of
from deeprelax_ase.files.new_poscar import new_poscar_text
from deeprelax_ase.files.parse_file import StructureFile
from deeprelax_ase.files.poscar_text import poscar_ending
from deeprelax_ase.files.records import reason_of
from deeprelax_ase.structures.validation import StructureError

_BY_PYMATGEN = (formats.POSCAR, formats.CIF, formats.MCIF, formats.JSON, "yaml")
_EDITED = (formats.POSCAR, formats.PW, formats.CASTEP)
"""Formats whose text is edited, so that the rest of it stays."""
_STRUCTURE_ONLY = {
    "aims",
    "castep-geom",
    "castep-md",
    "cfg",
    "crystal",
    "db",
    "dlp4",
    "dmol-arc",
    "dmol-car",
    "dmol-incoor",
    "eon",
    "extxyz",
    "gen",
    "gpumd",
    "gromacs",
    "gromos",
    "json",
    "jsv",
    "mol",
    "netcdftrajectory",
    "proteindatabank",
    "res",
    "rmc6f",
    "sdf",
    "traj",
    "turbomole",
    "v-sim",
    "vasp-xdatcar",
    "xsd",
    "xsf",
    "xyz",
}
"""Formats of ASE that hold little but a structure, so that its writer loses nothing of weight."""
_KEEP_VECTORS = {"extxyz", "xyz", "traj", "json", "db", "xsf", "gen", "aims", "vasp-xdatcar"}
"""Formats that hold the vectors of a cell; lengths and angles cannot say that it is left-handed."""
_NO_CELL = ("mol", "sdf", "turbomole", "xyz")
"""Formats of molecules, into which ASE writes no cell."""
_NO_CASTEP = r"Generating CASTEP keywords|Could not determine the version of your CASTEP"
"""What ASE says before it writes a .cell where there is no CASTEP."""
_OPTIONS = {formats.CASTEP: {"magnetic_moments": "initial"}}
"""Of ASE's writers, so that they write all that there is."""
_NEEDS = {
    formats.PW: "pseudopotentials: write a CIF, or let deeprelax qe change an input that has them",
}
"""What a writer needs and has not."""


def output_path(
    source: StructureFile, output: str | Path | None, output_format: str | None = None
) -> Path:
    """Find where the relaxed structures of a file go: beside it, or where the user said.

    What is a folder, or ends in a slash, is the folder they go into.

    Args:
        source: The file that was read.
        output: A file or a folder; None for a name made of that of the source.
        output_format: The format that the user asked for.

    Raises:
        StructureError: The format is not written, and neither output nor format was named.
    """
    path = source.path
    if output is not None:
        named = Path(output)
        is_folder = named.is_dir() or str(output).endswith(os.sep)
        if not is_folder:
            if output_format is None:
                check_can_write(source, named)
            return named
        path = named / path.name
    if output_format is None:
        check_can_write(source, path)
    stem, suffix, compression = split_name(path)
    if output_format is not None and output_format != source.format:
        return path.with_name(f"{stem}_relaxed{_suffix_of(output_format)}")
    if output is not None:
        return path
    if poscar_ending(path.name) is not None and source.format == formats.POSCAR:
        stem, suffix = f"{stem}{suffix}", ""
    return path.with_name(f"{stem}_relaxed{suffix}{compression}")


def check_can_write(source: StructureFile, path: Path | None = None) -> None:
    """Refuse to write the format that was read where that is not possible without a loss.

    Raises:
        StructureError: The format can only be read, or its writer would lose the rest of an input.
    """
    name = source.format
    if path is not None and _named_by(source, path) not in (None, name):
        return
    if name in _BY_PYMATGEN or (name in _EDITED and source.rewrite) or name in _STRUCTURE_ONLY:
        return
    entry = ioformats.get(name)
    way = "name an --output in another one, such as relaxed.cif, or an --output-format"
    if entry is None or not entry.can_write:
        msg = f"{source.path} is in the format {name!r}, which can only be read: {way}"
    else:
        msg = (
            f"{source.path} is in the format {name!r}, and all but the structure would be lost in "
            f"writing it: {way}"
        )
    raise StructureError(msg)


def _suffix_of(name: str) -> str:
    suffixes = {formats.POSCAR: ".vasp", formats.JSON: ".json", formats.PW: ".pwi"}
    if name in suffixes:
        return suffixes[name]
    entry = ioformats.get(name)
    return f".{entry.extensions[0]}" if entry is not None and entry.extensions else f".{name}"


def write_structures(
    source: StructureFile,
    structures: Sequence[Any],
    path: Path,
    output_format: str | None = None,
) -> None:
    """Write structures in the format asked for, or that of another ending, or that of the source.

    Raises:
        StructureError: They cannot be written there or in that format; nothing is left behind and
            what was there stays.
    """
    wanted = output_format or _named_by(source, path) or source.format
    try:
        if output_format is None:
            check_can_write(source, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside, _compressed_into(beside) as plain:
            _write(source, structures, wanted, path, plain)
    except StructureError as error:
        if str(error).startswith((str(path), str(source.path), "cannot write")):
            raise
        msg = f"{source.path} {error}"
        raise StructureError(msg) from error
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise StructureError(msg) from error
    except Exception as error:  # the writers raise whatever their code runs into
        reason = reason_of(error, "its writer of ASE needs more than a structure")
        reason = f"it needs {_NEEDS[wanted]}" if wanted in _NEEDS else reason
        msg = f"cannot write {path} in the format {wanted!r}: {reason}"
        raise StructureError(msg) from error


@contextmanager
def _compressed_into(path: Path) -> Iterator[Path]:
    """A path to write plainly to, for a file whose name may say that it is compressed."""
    stem, suffix, compression = split_name(path)
    if not compression:
        yield path
        return
    plain = path.with_name(f"{stem}{suffix}")
    try:
        yield plain
        with plain.open("rb") as stream, zopen(path, mode="wb") as packed:
            shutil.copyfileobj(stream, packed)
    finally:
        plain.unlink(missing_ok=True)


def _named_by(source: StructureFile, path: Path) -> str | None:
    """Format that the name of an output asks for; None where it leaves that to the source.

    An ending that the source has too says nothing new, and neither does .in, which many share.

    Raises:
        StructureError: It is the name of a table, or of no format that is known.
    """
    _, suffix, _ = split_name(path)
    if suffix.lower() == ".json":
        return formats.JSON if _is_pymatgens(source) else "json"
    if suffix.lower() == split_name(source.path)[1].lower() and suffix:
        return None
    if suffix.lower() == ".in" and source.format == formats.PW:
        return None
    own = formats.format_of_name(path)
    if own == formats.TABLE:
        msg = f"{path}: deeprelax relax writes no tables; name a structure file"
        raise StructureError(msg)
    named = own or (formats.ase_format(Path(path.name), read=False) if suffix else None)
    if named is None and suffix and poscar_ending(path.name) is None:
        msg = (
            f"cannot write {path}: no format has the ending {suffix!r}; name an --output-format, "
            "or another ending such as .cif or .vasp"
        )
        raise StructureError(msg)
    return named


def _is_pymatgens(source: StructureFile) -> bool:
    return bool(source.structures) and isinstance(source.structures[0], IStructure)


def _write(
    source: StructureFile, structures: Sequence[Any], wanted: str, path: Path, plain: Path
) -> None:
    if wanted == source.format and source.rewrite is not None and len(structures) == 1:
        text = source.rewrite(structures[0])
        text = text.replace("\n", "\r\n") if source.has_crlf else text
        plain.write_bytes(text.encode("utf-8", "surrogateescape"))
        return
    structures = fitting_moments(structures, wanted)
    if wanted in _BY_PYMATGEN:
        if wanted in (formats.CIF, formats.MCIF):
            structures = [without_constraints(structure, wanted) for structure in structures]
        text = _text(source, [as_structure(structure) for structure in structures], wanted, path)
        plain.write_text(text, encoding="utf-8")
        return
    if wanted not in ioformats or not ioformats[wanted].can_write:
        msg = f"cannot write {path}: the format {wanted!r} can only be read"
        raise StructureError(msg)
    frames = [as_atoms(structure) for structure in structures]
    if wanted in _NO_CELL and any(atoms.pbc.any() for atoms in frames):
        msg = f"cannot write {path}: the format {wanted!r} holds no cell; extxyz does"
        raise StructureError(msg)
    if wanted not in _KEEP_VECTORS:
        frames = [right_handed_atoms(atoms) for atoms in frames]
    if wanted in ase_database.KINDS:
        metadata = ase_database.metadata_of(source.path, source.format)
        ase_database.write_database(plain, wanted, frames, metadata)
        return
    if source.format in ase_database.KINDS:
        frames = ase_database.without_rows(frames)
    warn_of_lost(frames, wanted)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_CASTEP)
        ase_write(str(plain), frames, format=wanted, **_OPTIONS.get(wanted, {}))


def _text(source: StructureFile, structures: list[Structure], wanted: str, path: Path) -> str:
    """Structures in one of pymatgen's formats."""
    if wanted in (formats.CIF, formats.MCIF):
        blocks = [*map(_cif_block, structures)]
        if len(blocks) > 1:  # names of data blocks have to differ
            blocks = [
                re.sub(r"^data_(.*)$", rf"data_\1_{number}", block, count=1, flags=re.MULTILINE)
                for number, block in enumerate(blocks, 1)
            ]
        return "".join(blocks)
    if len(structures) > 1:
        msg = f"{path}: a {wanted} file holds one structure, and there are {len(structures)}"
        raise StructureError(msg)
    if wanted in (formats.JSON, "yaml"):
        return str(structures[0].to(fmt="json" if wanted == formats.JSON else "yaml"))
    return new_poscar_text(structures[0], source.comment)


def _cif_block(structure: Structure) -> str:
    """One structure as a CIF; labels that several sites share get numbers, as CIFs ask for."""
    structure = right_handed(structure).copy()
    structure.relabel_sites(ignore_uniq=True)
    return str(CifWriter(structure, write_magmoms=bool(moments_of(structure))))
