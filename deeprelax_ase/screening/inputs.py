"""Inputs of a screening: their entries one at a time, in the same order whenever they are listed.

An entry carries what is needed to read it, not what was read: a path, the text of a frame, a
record. Whoever relaxes it reads it, in a process of its own. Nothing here holds more than one
entry at a time, and one batch of rows of a parquet file.
"""

import glob
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deeprelax_ase.files.aims_calculation import control_beside
from deeprelax_ase.files.archives import lies_beside_structures
from deeprelax_ase.files.containers import items_of_xyz
from deeprelax_ase.files.file_text import inner_name
from deeprelax_ase.files.poscar_text import poscar_ending
from deeprelax_ase.files.read_files import COMPRESSED, items_of_table, split_suffix
from deeprelax_ase.files.records import Item, Named, cannot_be_read, one_line
from deeprelax_ase.files.surroundings import ReadOptions, read_for_relaxation
from deeprelax_ase.files.tables import count_rows, items_of_database
from deeprelax_ase.files.vasp_calculation import incars_beside

_PACKED = ("", *COMPRESSED)

_TABLES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".zip")
_READERS = {
    ".db": items_of_database,
    ".extxyz": items_of_xyz,
    ".xyz": items_of_xyz,
    **dict.fromkeys(_TABLES, items_of_table),
}


@dataclass(frozen=True)
class Survey:
    """What is known of an input before any structure is read.

    Attributes:
        count: Number of entries.
        digest: SHA-256 over names, sizes and times of change of its files, and how they are read.
    """

    count: int
    digest: str


class ScreenInput:
    """Files, folders and patterns with the structures to be screened.

    Args:
        names: Files, folders (read with their subfolders), and patterns such as `runs/*/POSCAR`.
        leave_out: Files and folders that are none of the input although they lie in it: outputs.
        how: How files are read.

    Raises:
        ValueError: There is no such file or folder, or no file of such a pattern.
    """

    def __init__(
        self,
        names: Sequence[str],
        leave_out: Collection[Path] = (),
        how: ReadOptions | None = None,
    ) -> None:
        for name in names:
            if not os.path.lexists(name) and next(_matches(name), None) is None:
                what = "no file matches" if glob.has_magic(name) else "no file or folder"
                msg = f"{what} {name}"
                raise ValueError(msg)
        self._names = tuple(names)
        self._is_file = len(names) == 1 and os.path.isfile(names[0])  # noqa: PTH113 - or a pattern
        self._how = how or ReadOptions()
        self._leave_out = {os.path.realpath(path) for path in leave_out}
        for name in names:
            if os.path.realpath(name) in self._leave_out:
                msg = f"{name} is an output of this command as well: name another output"
                raise ValueError(msg)

    def __iter__(self) -> Iterator[Item]:
        for label, path in self._files():
            yield from self._items(label, path.absolute())

    def survey(self) -> Survey:
        """Count the entries, without reading a structure.

        Raises:
            ValueError: There is not a single one.
        """
        digest = hashlib.sha256()
        if self._how != ReadOptions():
            digest.update(repr(self._how).encode())
        count = 0
        for label, path in self._files():
            facts = [_facts(one) for one in (path, *_calculation_files(path))]
            digest.update(repr((label, *facts)).encode())
            count += self._count(label, path)
        if not count:
            msg = f"{', '.join(self._names)}: holds no structure to screen"
            raise ValueError(msg)
        return Survey(count, digest.hexdigest())

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Names and paths of all files; names are relative to the folder that was given."""
        for name in self._names:
            label = Path(name).name if len(self._names) == 1 else name
            if os.path.isdir(name):  # noqa: PTH112 - a pattern need not be a valid path
                prefix = "" if len(self._names) == 1 else f"{name.rstrip('/')}/"
                yield from self._walk(Path(name), prefix, ())
            elif os.path.lexists(name):
                yield from self._allowed(label, Path(name))
            else:
                for path in sorted(_matches(name)):
                    if not Path(path).is_dir():
                        yield from self._allowed(path, Path(path))

    def _walk(
        self, folder: Path, prefix: str, above: tuple[str, ...]
    ) -> Iterator[tuple[str, Path]]:
        real = os.path.realpath(folder)
        if real in self._leave_out or real in above:  # a link may lead back up
            return
        try:
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        except OSError:
            yield prefix.rstrip("/"), folder  # an entry that says so
            return
        for name in names:
            path = folder / name
            if path.is_dir():
                yield from self._walk(path, f"{prefix}{name}/", (*above, real))
            elif not lies_beside_structures(name):
                yield from self._allowed(f"{prefix}{name}", path)

    def _allowed(self, label: str, path: Path) -> Iterator[tuple[str, Path]]:
        if os.path.realpath(path) not in self._leave_out:
            yield label, path

    def _items(self, label: str, path: Path) -> Iterator[Item]:
        """Entries of a file; where it breaks off, the last ones say why."""
        reason = _obstacle(path)
        reader = None if self._how.file_format else _READERS.get(split_suffix(path))
        if reader is items_of_database:
            reader = partial(items_of_database, is_alone=self._is_file)
        if reason:
            yield Item(label, partial(cannot_be_read, f"{path} {reason}"))
            return
        if reader is None:
            yield Item(label, partial(_read_file, label, path, self._how))
            return
        number = 0
        try:
            for item in reader(label, path):
                number += 1
                yield item
        except Exception as error:  # noqa: BLE001 - the readers raise whatever their code runs into
            where = "" if number == 0 else f": what follows its entry {number}"
            message = f"{path}{where} cannot be read: {one_line(error)}"
            for missing in range(number, max(_rows(path), number + 1)):
                name = f"{label}[{missing}]" if missing else label
                yield Item(name, partial(cannot_be_read, message))

    def _count(self, label: str, path: Path) -> int:
        if self._how.file_format or _obstacle(path) or split_suffix(path) not in _READERS:
            return 1
        return _rows(path) or sum(1 for _ in self._items(label, path))


def _facts(path: Path) -> tuple[int, ...]:
    """Size and time of change of a file; nothing of one that is not there."""
    status = path.stat() if path.exists() else None  # a link may lead nowhere
    return (status.st_size, status.st_mtime_ns) if status else ()


def _calculation_files(path: Path) -> tuple[Path, ...]:
    """Files that may say how the structure of another is relaxed."""
    ending = poscar_ending(inner_name(path))
    if ending is not None:
        folder = path.absolute().parent
        incars = [*incars_beside(folder, ending), folder.parent / "INCAR"]
        return tuple(incar.with_name(f"{incar.name}{c}") for incar in incars for c in _PACKED)
    if path.suffix == ".in":
        return (control_beside(path),)
    return (path.with_suffix(".param"),) if path.suffix == ".cell" else ()


def _matches(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns too


def _obstacle(path: Path) -> str:
    """Why a path is not even opened; nothing, if it is."""
    if path.is_dir():
        return "is a folder that cannot be read"
    if path.exists() and not path.is_file():
        return "is no regular file"
    is_table = split_suffix(path) in (".db", ".parquet", ".zip")
    return "is compressed: unpack it first" if is_table and path.suffix in COMPRESSED else ""


def _rows(path: Path) -> int:
    """Number of rows of a table; 0, if it is none or broken."""
    try:
        return count_rows(path)
    except Exception:  # noqa: BLE001 - the readers raise whatever their code runs into
        return 0


def _read_file(label: str, path: Path, how: ReadOptions) -> list[Named]:
    """Structures of a file of any format; several are numbered."""
    _, structures = read_for_relaxation(path, how)
    if len(structures) == 1:
        return [(label, structures[0])]
    return [(f"{label}[{number}]", one) for number, one in enumerate(structures)]
