"""The formats with many structures in a file, taken apart into entries, and the reading of each."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import Any

import ase.db
import pyarrow as pa
import pyarrow.parquet as pq
from ase.io import read as ase_read
from monty.io import zopen

from deeprelax_ase.structures.files import read_structures, split_suffix
from deeprelax_ase.structures.records import (
    ID_KEYS,
    PLAIN_COLUMNS,
    Item,
    Named,
    cannot_be_read,
    is_record,
    one_line,
    read_record,
)
from deeprelax_ase.structures.validation import StructureError

_ROWS_AT_ONCE = 256
_CHARACTERS_AT_ONCE = 1 << 20
_CIF_SIGN = "_cell_length_a"
_OWN_ID = re.compile(rf"(?:^|\s)(?:{'|'.join(ID_KEYS)})=(?:\"([^\"]*)\"|(\S+))")


def read_file(label: str, path: Path) -> list[Named]:
    """Structures of a file of any format; several are numbered."""
    structures = read_structures(path).structures
    if len(structures) == 1:
        return [(label, structures[0])]
    return [(f"{label}[{number}]", one) for number, one in enumerate(structures)]


def items_of_xyz(label: str, path: Path) -> Iterator[Item]:
    """Frames of an (ext)xyz file; one that breaks off costs none but itself.

    Raises:
        StructureError: A frame does not begin with its number of atoms.
    """
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        lines = (line for line in stream)
        head = next(lines, None)
        number = 0
        while head is not None:
            if not head.strip():
                head = next(lines, None)
                continue
            if not head.strip().isdecimal():
                msg = f"a frame begins with its number of atoms, not with {head.strip()[:60]!r}"
                raise StructureError(msg)
            rest, following = _lines_of_frame(lines, int(head))
            name = _own_id(rest[0] if rest else "") or f"{label}[{number}]"
            if len(rest) <= int(head):
                message = f"{path}: frame {number} breaks off: {len(rest) - 1} of {int(head)} atoms"
                yield Item(name, partial(cannot_be_read, message))
            else:
                yield Item(name, partial(_read_frame, name, "".join((head, *rest))))
            number += 1
            head = next(lines, None) if following is None else following


def _lines_of_frame(lines: Iterator[str], atoms: int) -> tuple[list[str], str | None]:
    """Comment and atoms of a frame; and the head of the next one, where it came too early."""
    rest: list[str] = []
    for line in islice(lines, atoms + 1):
        if rest and line.strip().isdecimal():
            return rest, line
        rest.append(line)
    return rest, None


def _own_id(comment: str) -> str:
    found = _OWN_ID.search(comment)
    return (found[1] or found[2] or "") if found else ""


def _read_frame(name: str, text: str) -> list[Named]:
    return [(name, ase_read(StringIO(text), format="extxyz"))]


def items_of_json_lines(label: str, path: Path) -> Iterator[Item]:
    """Lines of a file with one structure or record in JSON on each."""
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        lines = (line for line in stream if line.strip())
        for number, line in enumerate(lines):
            name = f"{label}[{number}]"
            yield Item(name, partial(_read_json, name, line))


def _read_json(name: str, text: str) -> list[Named]:
    return read_record(name, json.loads(text))


def items_of_json(label: str, path: Path) -> Iterator[Item]:
    """Structures of a JSON file: one, a list of them, or an object with ids as its keys.

    Lists are read value by value, never as a whole. What is none of pymatgen's is left to ASE.
    """
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        start = stream.read(_CHARACTERS_AT_ONCE)
        if start.lstrip().startswith("["):
            for number, value in enumerate(_values_of_list(start, stream)):
                name = f"{label}[{number}]"
                yield Item(name, partial(read_record, name, value))
            return
        whole = json.loads(start + stream.read())
    if not isinstance(whole, dict) or is_record(whole):
        yield Item(label, partial(read_record, label, whole))
    elif "nextid" not in whole and any(is_record(value) for value in whole.values()):
        for name, value in whole.items():
            yield Item(name, partial(read_record, name, value))
    else:
        yield Item(label, partial(read_file, label, path))


def _values_of_list(text: str, stream: Any) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    text = text.lstrip()[1:]
    early = "it ends early"
    while True:
        text = text.lstrip().removeprefix(",").lstrip()
        if text.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(text)
            if end == len(text):  # a number could go on
                raise json.JSONDecodeError(early, text, end)  # noqa: TRY301
        except json.JSONDecodeError as error:
            more = stream.read(max(_CHARACTERS_AT_ONCE, len(text)))
            if not more:
                msg = f"the list is not closed, or broken: {error.msg}"
                raise StructureError(msg) from None
            text += more
            continue
        yield value
        text = text[end:]


def items_of_database(_: str, path: Path) -> Iterator[Item]:
    """Rows of an ASE database; their ids are those of the database."""
    for row in _database(path).select(columns=["id", "key_value_pairs"]):
        name = str(row.get("material_id", row.id))
        yield Item(name, partial(_read_row, name, path, row.id))


@lru_cache(maxsize=4)
def _database(path: Path) -> Any:
    if path.stat().st_size == 0:
        msg = "the file is empty"
        raise StructureError(msg)
    return ase.db.connect(str(path), type="db")


def _read_row(name: str, path: Path, number: int) -> list[Named]:
    return [(name, _database(path).get(id=number).toatoms())]


def count_rows(path: Path) -> int:
    """Number of rows of a table.

    Raises:
        ValueError: It is none, or broken.
    """
    if split_suffix(path) == ".parquet":
        file = pq.ParquetFile(path)
        _columns(file)
        return int(file.metadata.num_rows)
    if split_suffix(path) == ".db":
        return len(_database(path))
    msg = f"{path} is no table"
    raise ValueError(msg)


def items_of_parquet(label: str, path: Path) -> Iterator[Item]:
    """Rows of a parquet file with `numbers`, `cell` and `positions`, or with a column of CIFs.

    Raises:
        StructureError: It has neither.
    """
    file = pq.ParquetFile(path, pre_buffer=False)
    columns, cif = _columns(file)
    ids = [name for name in ID_KEYS if name in file.schema_arrow.names][:1]
    numbers = count()
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=[*ids, *columns]
            ):
                for row in batch.to_pylist():
                    left -= 1
                    own = row.get(ids[0]) if ids else None
                    name = f"{label}[{next(numbers)}]"
                    name = name if own is None else str(own)
                    record = {"cif": row[cif]} if cif else {key: row[key] for key in columns}
                    yield Item(name, partial(read_record, name, record))
        except (pa.ArrowException, OSError) as error:
            message = f"{path}: row group {group} is broken: {one_line(error)}"
            for _ in range(left):
                yield Item(f"{label}[{next(numbers)}]", partial(cannot_be_read, message))


def _columns(file: Any) -> tuple[list[str], str]:
    """Columns to read, and the name of that of CIFs, if it is one."""
    schema = file.schema_arrow
    if set(PLAIN_COLUMNS) <= set(schema.names):
        return [*PLAIN_COLUMNS, *(["pbc"] if "pbc" in schema.names else [])], ""
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    if texts and file.metadata.num_rows:
        first = next(file.iter_batches(_ROWS_AT_ONCE, columns=texts)).to_pylist()
        for name in texts:
            if any(_CIF_SIGN in (row[name] or "") for row in first):
                return [name], name
    msg = (
        f"it has the columns {', '.join(schema.names)}: either {', '.join(PLAIN_COLUMNS)} are "
        "needed, or a column of CIFs"
    )
    raise StructureError(msg)
