"""Read structure files of any format; see `write_files` for the way back."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from deeprelax_ase.files import file_formats as formats
from deeprelax_ase.files.archives import items_of_zip
from deeprelax_ase.files.containers import items_of_json, items_of_json_lines
from deeprelax_ase.files.file_text import (
    COMPRESSED,
    check_unpacks,
    decode,
    read_bytes,
    split_suffix,
)
from deeprelax_ase.files.parse_file import StructureFile, parse_file
from deeprelax_ase.files.records import Item, cannot_be_read, reason_of
from deeprelax_ase.files.tables import items_of_csv, items_of_parquet
from deeprelax_ase.structures.validation import SeveralStructuresError, StructureError

__all__ = ["COMPRESSED", "StructureFile", "items_of_table", "read_structures", "split_suffix"]

_BARE = ("Structure", "IStructure")
"""Classes of pymatgen that are written whole."""
_READERS: dict[str, Callable[[str, Path], Iterator[Item]]] = {
    ".csv": items_of_csv,
    ".jsonl": items_of_json_lines,
    ".ndjson": items_of_json_lines,
    ".parquet": items_of_parquet,
}


def read_structures(
    path: Path, file_format: str | None = None, species: Sequence[str] = ()
) -> StructureFile:
    """Read every structure of a file that we, pymatgen or ASE read.

    POSCAR, CIF, pw.x and CASTEP inputs are read here, and what pymatgen knows by its name by
    pymatgen; all else goes through ASE. Of a file of records, such as a CSV or a zip archive, the
    one structure is read.

    Args:
        path: The file.
        file_format: Its format, where neither its name nor its content is to decide.
        species: Elements, in their order, of a file that does not name them.

    Raises:
        StructureError: The file is missing, a folder, empty, holds no structure, is nothing that
            is read, or would be read with a loss.
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
    check_unpacks(path)
    found_format = file_format or formats.format_of(path)
    if found_format is None:
        msg = f"{path} is in no format that is read here: name one with --format"
        raise StructureError(msg)
    if found_format in (formats.TABLE, "json"):
        found = _read_record(path)
    else:
        found = parse_file(path, found_format, species)
    if not found.structures:
        msg = f"{path} holds no structure"
        raise StructureError(msg)
    return found


def items_of_table(label: str, path: Path) -> Iterator[Item]:
    """Take a file of records apart: JSON (lines), CSV, parquet, zip; one of none is broken."""
    suffix = split_suffix(path)
    if suffix == ".zip":
        items = items_of_zip(label, path, _structures)
    else:
        items = _READERS.get(suffix, items_of_json)(label, path)
    first = next(items, None)
    if first is None:
        first = Item(label, partial(cannot_be_read, f"{path} holds no structure"))
    yield first
    yield from items


def _structures(
    path: Path, file_format: str | None = None, species: Sequence[str] = ()
) -> Sequence[Any]:
    return read_structures(path, file_format, species).structures


def _read_record(path: Path) -> StructureFile:
    """Read the one structure of a file of records, or all of a database of ASE in JSON."""
    try:
        items = list(islice(items_of_table(path.name, path), 2))
    except Exception as error:  # the parsers raise whatever their code runs into
        raise _unreadable(path, error) from error
    if len(items) > 1:
        msg = (
            f"{path} holds several structures: relax them with deeprelax screen {path} "
            "-o relaxed.parquet"
        )
        raise SeveralStructuresError(msg)
    try:
        structures = [structure for item in items for _, structure in item.read()]
    except Exception as error:  # the parsers raise whatever their code runs into
        raise _unreadable(path, error) from error
    if not structures or split_suffix(path) in (*_READERS, ".zip"):
        return StructureFile(path, formats.TABLE, structures)
    return _of_json(path, structures)


def _unreadable(path: Path, error: Exception) -> StructureError:
    if isinstance(error, json.JSONDecodeError):
        return StructureError(f"{path} cannot be read: broken JSON, {error}")
    if not isinstance(error, StructureError):
        return StructureError(f"{path} cannot be read: {reason_of(error)}")
    reason = str(error)
    return StructureError(reason if str(path) in reason else f"{path}: {reason}")


def _of_json(path: Path, structures: Sequence[Any]) -> StructureFile:
    """Structures of a JSON file, which are written as pymatgen or ASE would."""
    whole = json.loads(decode(read_bytes(path)))
    if isinstance(whole, dict) and "nextid" in whole:
        return StructureFile(path, "json", structures)
    is_bare = isinstance(whole, dict) and whole.get("@class", "Structure") in _BARE
    if is_bare and {"lattice", "sites"} <= whole.keys():
        return StructureFile(path, formats.JSON, structures)
    if isinstance(structures[0], Atoms):
        return StructureFile(path, "json", structures)
    note = (
        "the output is the JSON of a pymatgen Structure: what else the file holds belongs to the "
        "unrelaxed structure"
    )
    return StructureFile(path, formats.JSON, structures, notes=(note,))
