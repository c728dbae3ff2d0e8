"""Take zip archives of structure files apart into entries, within limits on their unpacked size."""

import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from deeprelax_ase.files.file_text import MAX_UNPACKED, split_suffix
from deeprelax_ase.files.poscar_text import poscar_ending
from deeprelax_ase.files.records import Item, Named, cannot_be_read
from deeprelax_ase.structures.validation import SeveralStructuresError, StructureError

MAX_MEMBER = 1 << 26
"""Bytes that one file of an archive may unpack to: 64 MiB."""
MAX_RATIO = 200
"""Times its packed size that a large file of an archive may unpack to."""
_SMALL = 1 << 20
"""Bytes (1 MiB) up to which the ratio does not matter."""
_ENCRYPTED = 1
_MANY = "is a file of many structures in an archive: unpack it, and give that file"
_OWN = ("*.deeprelax.json", "*.unrelaxed")
_OF_RUNS = (
    *("INCAR*", "KPOINTS*", "POTCAR*", "OSZICAR*", "REPORT*", "IBZKPT*", "PCDAT*"),
    *("EIGENVAL*", "DOSCAR*", "PROCAR*", "WAVECAR*", "WAVEDER*", "vasp.out*", "slurm-*.out"),
)
"""What lies in folders of runs beside structures; by its own name, such a file is read."""
_OF_STRUCTURES = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz", ".cell", ".json", ".csv")


Read = Callable[[Path], Sequence[Any]]
"""Reads the structures of a file; can be pickled."""


def items_of_zip(label: str, path: Path, read: Read) -> Iterator[Item]:
    """Take apart a zip archive; every file in it is an entry, that `read` reads.

    Raises:
        StructureError: It is broken, empty, or unpacks to more than `MAX_UNPACKED`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename for info in archive.infolist()}
            members = [info for info in archive.infolist() if _is_structure(info)]
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        msg = f"it is no zip archive, or a broken one: {error}"
        raise StructureError(msg) from error
    total = sum(info.file_size for info in members)
    if total > MAX_UNPACKED:
        msg = (
            f"it unpacks to {total / (1 << 20):.0f} MiB, more than the limit of "
            f"{MAX_UNPACKED >> 20} MiB: unpack it, and give the folder"
        )
        raise StructureError(msg)
    for info in members:
        name = f"{label}/{info.filename}"
        problem = _problem(info) or _of_a_run(PurePosixPath(info.filename), names)
        if problem:
            yield Item(name, partial(cannot_be_read, f"{path}/{info.filename} {problem}"))
        else:
            yield Item(name, partial(_read_member, name, path, info.filename, read))


def _is_structure(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    is_hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not info.is_dir() and not is_hidden and not lies_beside_structures(parts[-1])


def lies_beside_structures(name: str) -> bool:
    """Whether a file of this name lies in folders of runs, and is none of a structure."""
    if any(fnmatch(name, pattern) for pattern in _OWN):
        return True
    is_named_so = any(fnmatch(name, pattern) for pattern in _OF_RUNS)
    return is_named_so and split_suffix(Path(name)) not in _OF_STRUCTURES


def _problem(info: zipfile.ZipInfo) -> str:
    """Why a file of an archive is not read; nothing, if it is."""
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted: unpack the archive with its password, and give the folder"
    if info.file_size > MAX_MEMBER:
        return (
            f"unpacks to {info.file_size >> 20} MiB, more than the limit of {MAX_MEMBER >> 20} MiB"
        )
    if info.file_size > max(_SMALL, MAX_RATIO * info.compress_size):
        return f"unpacks to more than {MAX_RATIO} times its size: it looks like a zip bomb"
    if split_suffix(Path(info.filename)) in (".zip", ".csv", ".parquet", ".db"):
        return _MANY
    return ""


def _of_a_run(member: PurePosixPath, names: Collection[str]) -> str:
    """Why an input of a run is not read from an archive: what lies beside says how to relax it."""
    folders, beside = {member.parent, member.parent.parent}, "INCAR"
    if member.name == "geometry.in":
        folders, beside = {member.parent}, "control.in"
    elif poscar_ending(member.name) is None:
        return ""
    others = (PurePosixPath(name) for name in names)
    if not any(other.parent in folders and other.name.startswith(beside) for other in others):
        return ""
    return f"belongs to the {beside} in the archive: unpack it, and give the folder"


def _read_member(name: str, path: Path, member: str, read: Read) -> list[Named]:
    """Structures of one file of an archive, of any format; several are numbered."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            data = stream.read(MAX_MEMBER + 1)  # the directory of the archive may lie
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        msg = f"{path}/{member} cannot be unpacked: {error}"
        raise StructureError(msg) from error
    if len(data) > MAX_MEMBER:
        msg = f"{path}/{member} unpacks to more than {MAX_MEMBER >> 20} MiB"
        raise StructureError(msg)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PurePosixPath(member).name
        copy.write_bytes(data)
        try:
            structures = read(copy)
        except SeveralStructuresError as error:
            msg = f"{path}/{member} {_MANY}"
            raise StructureError(msg) from error
        except StructureError as error:
            raise StructureError(str(error).replace(str(copy), f"{path}/{member}")) from error
    if len(structures) == 1:
        return [(name, structures[0])]
    return [(f"{name}[{number}]", one) for number, one in enumerate(structures)]
