"""Entries of an input and the records that hold one structure each: pymatgen's, CIFs, arrays."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from ase import Atoms
from pymatgen.core import Structure

from deeprelax_ase.structures.validation import StructureError

Named = tuple[str, Any]
"""The id of a structure, and the structure."""
ID_KEYS = ("id", "material_id")
"""Where a record, a row or the comment of a frame may hold an id of its own."""
PLAIN_COLUMNS = ("numbers", "cell", "positions")
"""What a record of arrays holds, flat, Å; and perhaps `pbc`."""


@dataclass(frozen=True)
class Item:
    """One entry of an input.

    Attributes:
        id: Its name, where it has none of its own.
        read: Its structures with their ids; can be pickled. It raises where it cannot be read.
    """

    id: str
    read: Callable[[], Iterable[Named]]


class EntryError(StructureError):
    """An entry cannot be read, whose own id is known all the same.

    Args:
        entry: Its id.
        reason: Why.
    """

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(reason)
        self.entry = entry


def one_line(error: Any) -> str:
    """What an exception says, in one line of a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]


def cannot_be_read(message: str) -> NoReturn:
    """Stands for the reading of what is broken."""
    raise StructureError(message)


def read_record(name: str, record: Any) -> list[Named]:
    """A structure of pymatgen, or of a record that holds one, its CIF, or its arrays."""
    if not isinstance(record, dict):
        cannot_be_read(f"{name}: {str(record)[:60]!r} is no structure")
    if {"lattice", "sites"} <= record.keys():
        return [(name, Structure.from_dict(record))]
    own = next((str(record[key]) for key in ID_KEYS if record.get(key) not in (None, "")), name)
    try:
        return [(own, _structure_of(record))]
    except Exception as error:  # the parsers raise whatever their code runs into
        raise EntryError(own, one_line(error)) from error


def _structure_of(record: Mapping[str, Any]) -> Any:
    if isinstance(record.get("structure"), dict):
        return Structure.from_dict(record["structure"])
    if isinstance(record.get("cif"), str):
        return Structure.from_str(record["cif"], fmt="cif")
    missing = [key for key in PLAIN_COLUMNS if record.get(key) is None]
    if missing:
        msg = f"holds no {' and no '.join(missing)}"
        raise StructureError(msg)
    return _atoms(record)


def _atoms(record: Mapping[str, Any]) -> Atoms:
    numbers = np.array(record["numbers"], dtype=float).ravel()
    cell = np.array(record["cell"], dtype=float).ravel()
    positions = np.array(record["positions"], dtype=float).ravel()
    pbc = [True] * 3 if record.get("pbc") is None else np.ravel(record["pbc"]).tolist()
    if (numbers != np.rint(numbers)).any():
        msg = f"numbers are atomic numbers, and one is {numbers[numbers != np.rint(numbers)][0]}"
        raise StructureError(msg)
    sizes = (len(positions), len(cell), len(pbc))
    if sizes != (3 * len(numbers), 9, 3):
        msg = (
            f"{len(numbers)} numbers, {sizes[0]} coordinates, {sizes[1]} values of the cell and "
            f"{sizes[2]} of pbc do not belong together: three an atom, nine and three are needed"
        )
        raise StructureError(msg)
    return Atoms(
        numbers=numbers.astype(int),
        positions=positions.reshape(-1, 3),
        cell=cell.reshape(3, 3),
        pbc=pbc,
    )


def is_record(value: Any) -> bool:
    """Whether a value of JSON is what `read_record` reads."""
    return isinstance(value, dict) and (
        {"lattice", "sites"} <= value.keys()
        or isinstance(value.get("structure"), dict)
        or isinstance(value.get("cif"), str)
        or set(PLAIN_COLUMNS) <= value.keys()
    )
