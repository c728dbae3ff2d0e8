"""Where published data sets and runs keep their unrelaxed and relaxed structures."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.db import connect
from pymatgen.io.vasp.outputs import Vasprun

from deeprelax_ase.checks import StructureError
from deeprelax_ase.data.pickles import crystal_of, load_structures
from deeprelax_ase.files import read_structures
from deeprelax_ase.structure import atoms_of

_SPLITS = ("train", "val", "test")
_TRAJECTORIES = (".traj", ".extxyz", ".xyz")
_NAME_COLUMNS = ("atoms_id", "mp_id", "id")
_UNRELAXED_KEYS = ("unrelaxed.json", "structure_large_vacuum.json", "structure.json")
_VASP_FUNCTIONALS = {"": "PBE", "--": "PBE", "PE": "PBE", "PS": "PBEsol", "BO": "optB88-vdW"}

Structure = Any
"""Whatever `structure.read_structure` takes."""


@dataclass(frozen=True)
class Found:
    """A pair as it stands in the files.

    Attributes:
        id: Name of the pair.
        before: Reads the unrelaxed structure; raises ValueError where it cannot.
        after: Reads the relaxed one.
        functional: None where the source does not say.
        split: None where the source has no splits.
    """

    id: str
    before: Callable[[], Structure]
    after: Callable[[], Structure]
    functional: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of source.

    Attributes:
        kind: Its name.
        layout: What it looks like, for a message.
        functional: That it is known for.
        knows: Whether a path is such a source.
        read: Its pairs.
    """

    kind: str
    layout: str
    functional: str
    knows: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Found]]


def _file(path: Path) -> Callable[[], Structure]:
    """Reads the structure of a file of one."""
    return lambda: read_structures(path).structures[0]


def _ends(
    name: str, functional: str | None, read: Callable[..., Sequence[Structure]], *arguments: Any
) -> Found:
    """The first and the last of several snapshots."""

    def snapshot(place: int) -> Structure:
        snapshots = read(*arguments)
        if len(snapshots) <= 1:
            msg = f"{len(snapshots)} snapshots: a pair needs a first and a last one"
            raise ValueError(msg)
        return snapshots[place]

    return Found(name, partial(snapshot, 0), partial(snapshot, -1), functional)


# X-Mn-O, as Cryslator has it


def _read_xmno(folder: Path) -> Iterator[Found]:
    for table in sorted(folder.glob("id_prop_*.csv")):
        split = next((name for name in _SPLITS if name in table.stem), None)
        with table.open(newline="") as stream:
            names = [row[0].strip() for row in csv.reader(stream) if row and row[0].strip()]
        for name in names:
            if name.endswith("unrelaxed"):
                continue
            stem = (
                name
                if (folder / f"{name}_unrelaxed.cif").exists()
                else name.removesuffix("_relaxed")
            )
            before = folder / f"{stem}_unrelaxed.cif"
            yield Found(name, _file(before), _file(folder / f"{name}.cif"), split=split)


# Tables of names beside CIF files, as DefiNet and DeepRelax have them


def _tables(root: Path) -> list[Path]:
    """Folders with a table of names, the given one or those in it."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [f for f in folders if any((f / f"{split}.csv").is_file() for split in _SPLITS)]


def _read_tables(root: Path) -> Iterator[Found]:
    for folder in _tables(root):
        places = [*sorted(path for path in folder.iterdir() if path.is_dir()), folder]
        for split in _SPLITS:
            for name in _names(folder / f"{split}.csv"):
                label = name if folder == root else f"{folder.name}/{name}"
                before = _cif(places, name, ("_unrelaxed", "_U"))
                after = _cif(places, name, ("_relaxed", "_R"))
                yield Found(label, _file(before), _file(after), split=split)


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


def _blocks(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("block_*.p"))
    return [path] if path.suffix in (".p", ".pkl", ".pickle") else []


def _read_mpf(path: Path) -> Iterator[Found]:
    for block in _blocks(path):
        content = load_structures(block)
        if not isinstance(content, dict):
            msg = f"{block} holds no dictionary of materials"
            raise ValueError(msg)
        for name, entry in content.items():
            yield _ends(str(name), None, _snapshots, entry)


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


def _knows_c2db(path: Path) -> bool:
    return all(database.suffix == ".db" and database.is_file() for database in _databases(path))


def _read_c2db(path: Path) -> Iterator[Found]:
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


# VASP runs


def _runs(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    marks = [m for name in ("vasprun.xml*", "CONTCAR*", "XDATCAR*") for m in path.rglob(name)]
    return sorted({mark.parent for mark in marks})


def _read_vasp(root: Path) -> Iterator[Found]:
    """Each run by its vasprun.xml, else POSCAR and CONTCAR, else the ends of its XDATCAR."""
    for folder in _runs(root):
        name = folder.name if folder == root else str(folder.relative_to(root))
        vaspruns, poscars, contcars, xdatcars = (
            sorted(folder.glob(f"{stem}*"))
            for stem in ("vasprun.xml", "POSCAR", "CONTCAR", "XDATCAR")
        )
        if vaspruns:
            yield _read_vasprun(vaspruns[0], name)
        elif poscars and contcars:
            yield Found(name, _file(poscars[0]), _file(contcars[0]))
        else:
            yield _ends(name, None, ase.io.read, xdatcars[0], ":", "vasp-xdatcar")


def _read_vasprun(path: Path, name: str) -> Found:
    try:
        run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
        functional = _vasp_functional(run)
        steps = run.structures
    except Exception as error:  # noqa: BLE001 - of a file that broke off, whatever the parser meets
        reason = f"{path} cannot be read ({type(error).__name__}: {error})"

        def refuse() -> Structure:
            raise StructureError(reason)

        return Found(name, refuse, refuse)
    return _ends(name, functional, lambda: [run.initial_structure, *steps])


def _vasp_functional(run: Vasprun) -> str:
    metagga = str(run.incar.get("METAGGA", "")).strip().upper()
    if metagga not in ("", "NONE", "--"):
        return "r2SCAN" if metagga == "R2SCAN" else "unknown"
    gga = str(run.incar.get("GGA", run.parameters.get("GGA", "")))
    return _VASP_FUNCTIONALS.get(gga.strip().upper(), "unknown")


# Trajectories


def _trajectories(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in _TRAJECTORIES else []
    return sorted(path.rglob("*.traj"))


def _read_trajectories(path: Path) -> Iterator[Found]:
    for file in _trajectories(path):
        name = file.stem if file == path else str(file.relative_to(path).with_suffix(""))
        yield _ends(name, None, _frames, file)


def _frames(file: Path) -> Sequence[Structure]:
    return read_structures(file).structures


READERS = (
    Reader(
        "X-Mn-O",
        "a folder with id_prop_*.csv, NAME.cif and NAME_unrelaxed.cif (X-Mn-O, Cryslator)",
        "PBE",
        lambda path: path.is_dir() and any(path.glob("id_prop_*.csv")),
        _read_xmno,
    ),
    Reader(
        "CIF pairs",
        "train.csv, val.csv or test.csv beside a folder of NAME_unrelaxed.cif and "
        "NAME_relaxed.cif (DefiNet, DeepRelax)",
        "PBE",
        lambda path: path.is_dir() and bool(_tables(path)),
        _read_tables,
    ),
    Reader(
        "MPF.2021.2.8",
        "block_0.p and block_1.p or one of them (MPF.2021.2.8)",
        "PBE",
        lambda path: bool(_blocks(path)),
        _read_mpf,
    ),
    Reader(
        "C2DB",
        "an ASE database .db with unrelaxed.json in its data, or a folder with unrelaxed.db and "
        "relaxed.db (C2DB)",
        "PBE",
        _knows_c2db,
        _read_c2db,
    ),
    Reader(
        "VASP",
        "a folder of VASP runs with vasprun.xml, POSCAR and CONTCAR, or XDATCAR",
        "unknown",
        lambda path: bool(_runs(path)),
        _read_vasp,
    ),
    Reader(
        "trajectory",
        "a trajectory that ASE reads (.traj, .extxyz, .xyz), or a folder of .traj files",
        "unknown",
        lambda path: bool(_trajectories(path)),
        _read_trajectories,
    ),
)
"""Every kind of source, the first that knows a path reads it."""
