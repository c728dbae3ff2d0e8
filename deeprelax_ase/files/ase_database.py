"""Read and write databases of ASE with what their rows hold beside atoms: keys, values and data."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ase.db
from ase import Atoms

from deeprelax_ase.files.file_text import is_compressed
from deeprelax_ase.structures.ase_adapter import copied

KINDS = ("db", "json")
"""Formats of databases, by their names in ASE."""
_BESIDE = ("key_value_pairs", "data", "unique_id")
"""Where `AtomsRow.toatoms` puts it in `Atoms.info`."""


def read_database(path: Path, kind: str) -> list[Atoms]:
    """Atoms of all rows, with what is beside them in `info`.

    Args:
        path: The file.
        kind: One of `KINDS`.
    """
    with ase.db.connect(str(path), type=kind, serial=True) as database:
        return [row.toatoms(add_additional_information=True) for row in database.select()]


def metadata_of(path: Path, kind: str) -> dict[str, Any]:
    """Title, descriptions of keys and the like of a database, if it is one that ASE opens."""
    if kind in KINDS and not is_compressed(path):
        with suppress(Exception):  # JSON of ASE need be no database, and may be in UTF-16
            return dict(ase.db.connect(str(path), type=kind, serial=True).metadata)
    return {}


def write_database(
    path: Path, kind: str, frames: Sequence[Atoms], metadata: Mapping[str, Any]
) -> None:
    """Write a new database, a row for each of some atoms.

    Args:
        path: The file.
        kind: One of `KINDS`.
        frames: The atoms, as `read_database` gives them, or without anything beside them.
        metadata: Of the database.
    """
    with ase.db.connect(str(path), type=kind, serial=True, append=False) as database:
        for atoms in frames:
            pairs, data = (dict(atoms.info.get(name) or {}) for name in _BESIDE[:2])
            database.write(atoms, key_value_pairs=pairs, data=data)
    if metadata:
        ase.db.connect(str(path), type=kind, serial=True).metadata = dict(metadata)


def without_rows(frames: Sequence[Atoms]) -> list[Atoms]:
    """Copies of atoms without what was beside them in a database, which no other format holds."""
    copies = [copied(atoms) for atoms in frames]
    for atoms in copies:
        for name in _BESIDE:
            atoms.info.pop(name, None)
    return copies
