"""Where published data sets keep their unrelaxed and relaxed structures."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect

from deeprelax_ase.datasets.importers.raw_pair import Found, Structure, ends, file_reader
from deeprelax_ase.datasets.importers.safe_pickle import crystal_of, load_structures
from deeprelax_ase.structures.ase_adapter import atoms_of

_SPLITS = ("train", "val", "test")
_NAME_COLUMNS = ("atoms_id", "mp_id", "id")
_UNRELAXED_KEYS = ("unrelaxed.json", "structure_large_vacuum.json", "structure.json")


# X-Mn-O, as Cryslator has it


def read_xmno(folder: Path) -> Iterator[Found]:
    """Names and splits from the tables, structures from the files named after them."""
    # Tables of one split first: a table of all names is only for those that are in no other.
    tables = sorted(folder.glob("id_prop_*.csv"))
    tables.sort(key=lambda table: not any(name in table.stem for name in _SPLITS))
    known: set[str] = set()
    for table in tables:
        split = next((name for name in _SPLITS if name in table.stem), None)
        with table.open(newline="") as stream:
            names = [row[0].strip() for row in csv.reader(stream) if row and row[0].strip()]
        for name in names:
            if name.endswith("unrelaxed") or name in known:
                continue
            known.add(name)
            stem = (
                name
                if (folder / f"{name}_unrelaxed.cif").exists()
                else name.removesuffix("_relaxed")
            )
            before = folder / f"{stem}_unrelaxed.cif"
            yield Found(name, file_reader(before), file_reader(folder / f"{name}.cif"), split=split)


# Tables of names beside CIF files, as DefiNet and DeepRelax have them


def tables(root: Path) -> list[Path]:
    """Folders with a table of names, the given one or those in it."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [f for f in folders if any((f / f"{split}.csv").is_file() for split in _SPLITS)]


def read_tables(root: Path) -> Iterator[Found]:
    """Names and splits from the tables, structures from the folders beside them."""
    for folder in tables(root):
        places = [*sorted(path for path in folder.iterdir() if path.is_dir()), folder]
        for split in _SPLITS:
            for name in _names(folder / f"{split}.csv"):
                label = name if folder == root else f"{folder.name}/{name}"
                before = _cif(places, name, ("_unrelaxed", "_U"))
                after = _cif(places, name, ("_relaxed", "_R"))
                yield Found(label, file_reader(before), file_reader(after), split=split)


def _names(table: Path) -> list[str]:
    if not table.is_file():
        return []
    with table.open(newline="") as stream:
        rows = csv.DictReader(stream)
        columns = rows.fieldnames or ()
        column = next((name for name in _NAME_COLUMNS if name in columns), None)
        if column is None:
            msg = f"{table} has no column {', '.join(_NAME_COLUMNS[:-1])} or {_NAME_COLUMNS[-1]}"
            raise ValueError(msg)
        return [row[column] for row in rows]


def _cif(places: list[Path], name: str, endings: tuple[str, ...]) -> Path:
    candidates = [place / f"{name}{ending}.cif" for place in places for ending in endings]
    return next((path for path in candidates if path.exists()), candidates[0])


# MPF.2021.2.8, as figshare has it


def blocks(path: Path) -> list[Path]:
    """The pickles of a folder, or the one that a path is."""
    if path.is_dir():
        return sorted(path.glob("block_*.p"))
    return [path] if path.suffix in (".p", ".pkl", ".pickle") else []


def read_mpf(path: Path) -> Iterator[Found]:
    """First and last snapshot of every material."""
    for block in blocks(path):
        content = load_structures(block)
        if not isinstance(content, dict):
            msg = f"{block} holds no dictionary of materials"
            raise ValueError(msg)
        for name, entry in content.items():
            yield ends(str(name), None, _snapshots, entry)


def _snapshots(entry: Any) -> list[Structure]:
    """Of one material: a dictionary of lists, or a list of dictionaries."""
    try:
        found = entry["structure"] if isinstance(entry, dict) else [s["structure"] for s in entry]
    except (KeyError, TypeError) as error:
        msg = f"no list of structures is in its place ({error})"
        raise ValueError(msg) from error
    return [atoms_of(crystal_of(structure)) for structure in (found[0], *found[1:][-1:])]


# C2DB: one ASE database, or one of the relaxed and one of the unrelaxed


def _databases(path: Path) -> tuple[Path, Path]:
    return (path, path) if path.is_file() else (path / "unrelaxed.db", path / "relaxed.db")


def knows_c2db(path: Path) -> bool:
    """Whether a path is such a database, or a folder of both."""
    return all(database.suffix == ".db" and database.is_file() for database in _databases(path))


def read_c2db(path: Path) -> Iterator[Found]:
    """Rows are relaxed; what they started from is in their data or in the other database."""
    unrelaxed, relaxed = _databases(path)
    with connect(unrelaxed) as database:
        starts = {_row_name(row): row for row in database.select()}
    with connect(relaxed) as database:
        for row in database.select():
            name = _row_name(row)
            before = partial(_start, starts.get(name), alone=unrelaxed == relaxed)
            yield Found(name, before, partial(_own, row))


def _row_name(row: Any) -> str:
    return str(row.get("uid") or row.get("folder") or row.id).rsplit("/", 1)[-1]


def _start(row: Any, *, alone: bool) -> Structure:
    """The structure in a row's data; in a database of unrelaxed ones, else the row's own."""
    if row is None:
        msg = "no unrelaxed structure of that name"
        raise ValueError(msg)
    for key in _UNRELAXED_KEYS[: 1 if alone else None]:
        entry = row.data.get(key)
        if entry is not None:
            entry = json.loads(entry) if isinstance(entry, str) else entry
            entry = entry.get("1", entry)
            parts = {name: _plain(entry[name]) for name in ("numbers", "positions", "cell")}
            return _as_sheet(Atoms(**parts))
    if alone:
        msg = f"its data has no {_UNRELAXED_KEYS[0]}"
        raise ValueError(msg)
    return _own(row)


def _own(row: Any) -> Structure:
    return _as_sheet(row.toatoms())


def _plain(values: Any) -> Any:
    """An array, also where ASE's JSON spells it `array` or `__ndarray__`."""
    while isinstance(values, dict):
        if "__ndarray__" in values:
            shape, kind, flat = values["__ndarray__"]
            return np.array(flat, dtype=kind).reshape(shape)
        values = values["array"]
    return np.array(values)


def _as_sheet(atoms: Atoms) -> Structure:
    """C2DB holds sheets in the xy plane, whatever a row says of its third axis."""
    atoms.pbc = [True, True, False]
    return atoms
