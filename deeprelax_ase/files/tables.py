"""Take tables of structures apart into entries: CSV, parquet, and databases of ASE."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import ase.db
import pyarrow as pa
import pyarrow.parquet as pq

from deeprelax_ase.files.containers import text_of
from deeprelax_ase.files.file_text import split_suffix
from deeprelax_ase.files.records import (
    ID_KEYS,
    PLAIN_COLUMNS,
    EntryError,
    Item,
    Named,
    cannot_be_read,
    is_record,
    is_structure_text,
    one_line,
    read_record,
    reason_of,
    structure_of_text,
)
from deeprelax_ase.structures.validation import StructureError

_ROWS_AT_ONCE = 256
_DELIMITERS = ",;\t"
_LONGEST_FIELD = 1 << 27
"""Characters in a field of a CSV file: 128 MiB."""


def items_of_database(label: str, path: Path, *, is_alone: bool = True) -> Iterator[Item]:
    """Rows of an ASE database; their ids are those of the database, with its label among others."""
    for row in _database(path).select(columns=["id", "key_value_pairs"]):
        name = str(row.get("material_id", row.id))
        name = name if is_alone else f"{label}[{name}]"
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


def items_of_csv(label: str, path: Path) -> Iterator[Item]:
    """Take apart a CSV file with a column of CIFs, or of JSON of structures.

    Its columns are separated by commas, semicolons or tabs.

    Raises:
        StructureError: It has no such column; the message names those that it has.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    with text_of(path) as stream:
        lines = (line.replace("\0", "") for line in stream)
        head = next(lines, "")
        rows = csv.DictReader(chain([head], lines), delimiter=max(_DELIMITERS, key=head.count))
        first = list(islice(rows, _ROWS_AT_ONCE))
        names = [name for name in rows.fieldnames or () if name is not None]
        column = _structure_column(names, first)
        if column is None:
            raise StructureError(_no_column(names))
        own = next((name for name in names if name.lower() in ID_KEYS), None)
        for number, row in enumerate(chain(first, rows)):
            name = (row.get(own) if own else None) or f"{label}[{number}]"
            yield Item(name, partial(_read_field, name, row.get(column)))


def _read_field(name: str, text: Any) -> list[Named]:
    if not text:
        cannot_be_read(f"{name}: there is no structure in its row")
    try:
        return [(name, structure_of_text(text))]
    except Exception as error:  # the parsers raise whatever their code runs into
        raise EntryError(name, reason_of(error, "it is not laid out as known")) from error


def _structure_column(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that holds structures, as its first rows show; `cif` where they are empty."""
    for name in sorted(names, key=lambda name: name.lower() != "cif"):
        if any(is_structure_text(row.get(name)) or is_record(row.get(name)) for row in rows):
            return name
    return next((name for name in names if name.lower() == "cif"), None)


def _no_column(names: Sequence[str]) -> str:
    return (
        f"it has the columns {', '.join(names)}: a column of CIFs is needed, or of structures of "
        f"pymatgen in JSON; in a parquet file {', '.join(PLAIN_COLUMNS)} do as well"
    )


def items_of_parquet(label: str, path: Path) -> Iterator[Item]:
    """Take apart a parquet file with `numbers`, `cell` and `positions`, or a column of structures.

    Raises:
        StructureError: It has neither; the message names its columns.
    """
    file = pq.ParquetFile(path, pre_buffer=False)
    columns, column = _columns(file)
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
                    if isinstance(row.get(column), str):
                        yield Item(name, partial(_read_field, name, row[column]))
                        continue
                    record = row[column] if column else {key: row[key] for key in columns}
                    yield Item(name, partial(read_record, name, record))
        except (pa.ArrowException, OSError) as error:
            message = f"{path}: row group {group} is broken: {one_line(error)}"
            for _ in range(left):
                yield Item(f"{label}[{next(numbers)}]", partial(cannot_be_read, message))


def _columns(file: Any) -> tuple[list[str], str]:
    """Columns to read, and the name of that of structures, if it is one."""
    schema = file.schema_arrow
    if set(PLAIN_COLUMNS) <= set(schema.names):
        return [*PLAIN_COLUMNS, *(n for n in ("pbc", "fixed") if n in schema.names)], ""
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type)
        or pa.types.is_large_string(field.type)
        or pa.types.is_struct(field.type)
    ]
    if texts and file.metadata.num_rows:
        first = next(file.iter_batches(_ROWS_AT_ONCE, columns=texts)).to_pylist()
        name = _structure_column(texts, first)
        if name is not None:
            return [name], name
    raise StructureError(_no_column(schema.names))
