"""The formats with many structures in a file, taken apart into entries, and the reading of each."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import Any, NoReturn

import ase.db
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.io import read as ase_read
from monty.io import zopen
from pymatgen.core import Structure

from deeprelax_ase.checks import StructureError
from deeprelax_ase.files import read_structures, split_suffix

Named = tuple[str, Any]
"""The id of a structure, and the structure."""

ID_KEYS = ("id", "material_id")
"""Where a record, a row or the comment of a frame may hold an id of its own."""
_ROWS_AT_ONCE = 256
_CHARACTERS_AT_ONCE = 1 << 20
_CIF_SIGN = "_cell_length_a"
_OWN_ID = re.compile(rf"(?:^|\s)(?:{'|'.join(ID_KEYS)})=(?:\"([^\"]*)\"|(\S+))")
_PLAIN_COLUMNS = ("numbers", "cell", "positions")


@dataclass(frozen=True)
class Item:
    """One entry of an input.

    Attributes:
        id: Its name, where it has none of its own.
        read: Its structures with their ids; can be pickled. It raises where it cannot be read.
    """

    id: str
    read: Callable[[], Iterable[Named]]


def cannot_be_read(message: str) -> NoReturn:
    """Stands for the reading of what is broken."""
    raise StructureError(message)


def read_file(label: str, path: Path) -> list[Named]:
    """Structures of a file of any format; several are numbered."""
    structures = read_structures(path).structures
    if len(structures) == 1:
        return [(label, structures[0])]
    return [(f"{label}[{number}]", one) for number, one in enumerate(structures)]


def items_of_xyz(label: str, path: Path) -> Iterator[Item]:
    """Frames of an (ext)xyz file.

    Raises:
        StructureError: A frame does not begin with its number of atoms.
    """
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        numbers = count()
        for line in stream:
            if not line.strip():
                continue
            try:
                atoms = int(line)
            except ValueError:
                msg = f"a frame begins with its number of atoms, not with {line.strip()[:60]!r}"
                raise StructureError(msg) from None
            rest = list(islice(stream, atoms + 1))
            found = _OWN_ID.search(rest[0]) if rest else None
            name = (found[1] or found[2]) if found else f"{label}[{next(numbers)}]"
            if len(rest) <= atoms:
                message = f"{path}: frame {name} breaks off after {len(rest)} of {atoms + 1} lines"
                yield Item(name, partial(cannot_be_read, message))
            else:
                yield Item(name, partial(_read_frame, name, "".join((line, *rest))))


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
    return _read_record(name, json.loads(text))


def items_of_json(label: str, path: Path) -> Iterator[Item]:
    """Structures of a JSON file: one, a list of them, or an object with ids as its keys.

    Lists are read value by value, never as a whole. What is none of pymatgen's is left to ASE.
    """
    with zopen(path, mode="rt", encoding="utf-8") as stream:
        start = stream.read(_CHARACTERS_AT_ONCE)
        if start.lstrip().startswith("["):
            for number, value in enumerate(_values_of_list(start, stream)):
                name = f"{label}[{number}]"
                yield Item(name, partial(_read_record, name, value))
            return
        whole = json.loads(start + stream.read())
    if _is_record(whole):
        yield Item(label, partial(_read_record, label, whole))
    elif whole and all(isinstance(value, dict) and _is_record(value) for value in whole.values()):
        for name, value in whole.items():
            yield Item(name, partial(_read_record, name, value))
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


def _is_record(value: Mapping[str, Any]) -> bool:
    return (
        {"lattice", "sites"} <= value.keys()
        or isinstance(value.get("structure"), dict)
        or isinstance(value.get("cif"), str)
        or set(_PLAIN_COLUMNS) <= value.keys()
    )


def items_of_database(_: str, path: Path) -> Iterator[Item]:
    """Rows of an ASE database; their ids are those of the database."""
    if path.stat().st_size == 0:
        msg = "the file is empty"
        raise StructureError(msg)
    for row in ase.db.connect(str(path)).select():
        name = str(row.get("material_id", row.id))
        yield Item(name, partial(_as_read, name, row.toatoms()))


def _as_read(name: str, structure: Any) -> list[Named]:
    return [(name, structure)]


def count_rows(path: Path) -> int:
    """Number of rows of a table.

    Raises:
        ValueError: It is none, or broken.
    """
    if split_suffix(path) == ".parquet":
        file = pq.ParquetFile(path)
        _columns(file)
        return int(file.metadata.num_rows)
    if split_suffix(path) == ".db" and path.stat().st_size:
        return len(ase.db.connect(str(path)))
    msg = f"{path} is no table"
    raise ValueError(msg)


def items_of_parquet(label: str, path: Path) -> Iterator[Item]:
    """Rows of a parquet file with `numbers`, `cell` and `positions`, or with a column of CIFs.

    Raises:
        StructureError: It has neither.
    """
    file = pq.ParquetFile(path, pre_buffer=False)
    columns, cif = _columns(file)
    names = [name for name in ID_KEYS if name in file.schema_arrow.names][:1]
    number = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*names, *columns]):
        for row in batch.to_pylist():
            own = row.get(names[0]) if names else None
            name = f"{label}[{number}]" if own is None else str(own)
            record = {"cif": row[cif]} if cif else {key: row[key] for key in columns}
            yield Item(name, partial(_read_record, name, record))
            number += 1


def _columns(file: Any) -> tuple[list[str], str]:
    """Columns to read, and the name of that of CIFs, if it is one."""
    schema = file.schema_arrow
    if set(_PLAIN_COLUMNS) <= set(schema.names):
        return [*_PLAIN_COLUMNS, *(["pbc"] if "pbc" in schema.names else [])], ""
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
        f"it has the columns {', '.join(schema.names)}: either {', '.join(_PLAIN_COLUMNS)} are "
        "needed, or a column of CIFs"
    )
    raise StructureError(msg)


def _read_record(name: str, record: Any) -> list[Named]:
    """A structure of pymatgen, or of a record that holds one, its CIF, or its arrays."""
    if not isinstance(record, dict):
        cannot_be_read(f"{name}: {str(record)[:60]!r} is no structure")
    own = next((str(record[key]) for key in ID_KEYS if record.get(key) is not None), name)
    if {"lattice", "sites"} <= record.keys():
        return [(name, Structure.from_dict(record))]
    if isinstance(record.get("structure"), dict):
        return [(own, Structure.from_dict(record["structure"]))]
    if isinstance(record.get("cif"), str):
        return [(own, Structure.from_str(record["cif"], fmt="cif"))]
    missing = [key for key in _PLAIN_COLUMNS if record.get(key) is None]
    if missing:
        cannot_be_read(f"{own}: holds no {' and no '.join(missing)}")
    return [(own, _atoms(own, record))]


def _atoms(name: str, record: Mapping[str, Any]) -> Atoms:
    numbers = np.array(record["numbers"], dtype=int).ravel()
    cell = np.array(record["cell"], dtype=float).ravel()
    positions = np.array(record["positions"], dtype=float).ravel()
    if len(cell) != 9 or len(positions) != 3 * len(numbers):  # noqa: PLR2004
        cannot_be_read(
            f"{name}: {len(numbers)} numbers, {len(positions)} coordinates and {len(cell)} values "
            "of the cell do not belong together: three an atom and nine are needed"
        )
    pbc = record.get("pbc")
    return Atoms(
        numbers=numbers,
        positions=positions.reshape(-1, 3),
        cell=cell.reshape(3, 3),
        pbc=True if pbc is None else pbc,
    )
