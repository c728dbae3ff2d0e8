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
from typing import Any

from deeprelax_ase.files import split_suffix
from deeprelax_ase.screen.formats import (
    Item,
    cannot_be_read,
    count_rows,
    items_of_database,
    items_of_json,
    items_of_json_lines,
    items_of_parquet,
    items_of_xyz,
    read_file,
)

_CONTAINERS = {
    ".db": items_of_database,
    ".extxyz": items_of_xyz,
    ".json": items_of_json,
    ".jsonl": items_of_json_lines,
    ".ndjson": items_of_json_lines,
    ".parquet": items_of_parquet,
    ".xyz": items_of_xyz,
}


@dataclass(frozen=True)
class Survey:
    """What is known of an input before any structure is read.

    Attributes:
        count: Number of entries.
        digest: SHA-256 over names, sizes and times of change of its files.
    """

    count: int
    digest: str


class ScreenInput:
    """Files, folders and patterns with the structures to be screened.

    Args:
        names: Files, folders (read with their subfolders), and patterns such as `runs/*/POSCAR`.
        leave_out: Files and folders that are none of the input although they lie in it: outputs.

    Raises:
        ValueError: There is no such file or folder, or no file of such a pattern.
    """

    def __init__(self, names: Sequence[str], leave_out: Collection[Path] = ()) -> None:
        for name in names:
            if not os.path.lexists(name) and next(_matches(name), None) is None:
                what = "no file matches" if glob.has_magic(name) else "no file or folder"
                msg = f"{what} {name}"
                raise ValueError(msg)
        self._names = tuple(names)
        self._leave_out = {str(path.absolute()) for path in leave_out}

    def __iter__(self) -> Iterator[Item]:
        for label, path in self._files():
            yield from _items(label, path.absolute())

    def survey(self) -> Survey:
        """Count the entries, without reading a structure.

        Raises:
            ValueError: There is not a single one.
        """
        digest = hashlib.sha256()
        count = 0
        for label, path in self._files():
            status = path.stat() if path.exists() else None  # a link may lead nowhere
            facts = (status.st_size, status.st_mtime_ns) if status else ()
            digest.update(repr((label, *facts)).encode())
            count += _count(label, path)
        if not count:
            msg = f"{', '.join(self._names)}: holds no structure to screen"
            raise ValueError(msg)
        return Survey(count, digest.hexdigest())

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Names and paths of all files; names are relative to the folder that was given."""
        for name in self._names:
            if os.path.isdir(name):  # noqa: PTH112 - a pattern need not be a valid path
                yield from self._walk(Path(name), "")
            elif os.path.lexists(name):
                yield from self._allowed(Path(name).name, Path(name))
            else:
                for path in sorted(_matches(name)):
                    if not Path(path).is_dir():
                        yield from self._allowed(path, Path(path))

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        if str(folder.absolute()) in self._leave_out:
            return
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            path = folder / name
            if path.is_dir():
                yield from self._walk(path, f"{prefix}{name}/")
            else:
                yield from self._allowed(f"{prefix}{name}", path)

    def _allowed(self, label: str, path: Path) -> Iterator[tuple[str, Path]]:
        if str(path.absolute()) not in self._leave_out:
            yield label, path


def _matches(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns too


def _items(label: str, path: Path) -> Iterator[Item]:
    """Entries of a file; where it breaks off, the last one says why."""
    reader = _CONTAINERS.get(split_suffix(path))
    if reader is None:
        yield Item(label, partial(read_file, label, path))
        return
    number = 0
    try:
        for item in reader(label, path):
            number += 1
            yield item
    except Exception as error:  # noqa: BLE001 - the readers raise whatever their code runs into
        where = "it" if number == 0 else f"what follows its entry {number}"
        message = f"{path}: {where} cannot be read: {one_line(error)}"
        yield Item(f"{label}[{number}]" if number else label, partial(cannot_be_read, message))


def _count(label: str, path: Path) -> int:
    reader = _CONTAINERS.get(split_suffix(path))
    if reader is None:
        return 1
    try:
        return count_rows(path)
    except Exception:  # noqa: BLE001 - no table, or a broken one
        return sum(1 for _ in _items(label, path))


def one_line(error: Any) -> str:
    """What an exception says, in one line of a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
