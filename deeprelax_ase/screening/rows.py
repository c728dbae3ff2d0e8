"""One row for each structure of a screening: the columns, and what fills them.

Å throughout, cells as row vectors, positions Cartesian and flat, as in the files of pairs: the
input stands in `cell` and `positions`, what came of it in `relaxed_cell` and `relaxed_positions`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.constraints import FixAtoms
from pymatgen.core import Structure

from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.adapter import adapter_of
from deeprelax_ase.structures.boxes import cell_with_box, in_box
from deeprelax_ase.structures.read_structure import (
    plain_crystal,
    plain_structure,
    read_structure,
)

_NARROW = 3.5
"""Å between the images of a sheet or molecule that is compared with others."""
_VECTOR = pa.list_(pa.float64())
ROWS = pa.schema(
    {
        "id": pa.string(),
        "item": pa.int64(),  # place of its entry in the input
        "status": pa.string(),
        "error": pa.string(),  # why it was refused or failed
        "note": pa.string(),  # what a person should know of one that was relaxed or left unchanged
        "note_codes": pa.list_(pa.string()),  # the same as codes that can be counted
        "formula": pa.string(),
        "numbers": pa.list_(pa.uint8()),
        "pbc": pa.list_(pa.bool_()),
        "fixed": pa.list_(pa.bool_()),  # atoms that stay; null if none does
        "cell": _VECTOR,
        "positions": _VECTOR,
        "relaxed_cell": _VECTOR,
        "relaxed_positions": _VECTOR,
        "volume_change": pa.float64(),
        "largest_displacement": pa.float64(),
        "functional": pa.string(),
        "passes": pa.int64(),
        "expected_error": pa.float64(),
        "gain_probability": pa.float64(),
        "expected_gain": pa.float64(),
        "uncertainty": pa.float64(),
        "seconds": pa.float64(),
        "weights": pa.string(),
        "weights_sha256": pa.string(),
    }
)
"""What is known of every structure by itself."""

RANKED = pa.schema(
    [
        *ROWS,
        pa.field("rank", pa.int64()),  # 1: the least expected error of all that were relaxed
        pa.field("trusted", pa.bool_()),  # null without --max-error
        pa.field("group", pa.int64()),  # null without --deduplicate
        pa.field("representative", pa.bool_()),
    ]
)
"""The same with what is known once all are done."""


def failed_row(name: str, item: int, error: str) -> dict[str, Any]:
    """The row of what could not be read or relaxed."""
    return {"id": _text(name), "item": item, "status": "failed", "error": _text(error)}


def result_row(name: str, item: int, structure: Any, result: RelaxResult[Any]) -> dict[str, Any]:
    """The row of a result.

    Args:
        name: Id of the structure.
        item: Place of its entry in the input.
        structure: The input.
        result: What came of it.
    """
    if result.status == "failed":
        return failed_row(name, item, result.message)
    before = plain_crystal(plain_structure(structure))
    after, free = adapter_of(result.structure).read(result.structure)
    fixed = np.asarray(~free.any(axis=1))
    return {
        "id": _text(name),
        "item": item,
        "status": result.status,
        "error": None if result.is_sound else result.notes[-1].text,
        "note": result.message or None if result.is_sound else None,
        "note_codes": [note.code for note in result.notes],
        "formula": result.formula,
        "numbers": before.numbers,
        "pbc": before.pbc,
        "fixed": fixed if fixed.any() else None,
        "cell": before.cell.ravel(),
        "positions": before.positions.ravel(),
        "relaxed_cell": after.cell.ravel(),
        "relaxed_positions": after.positions.ravel(),
        **result.facts(),
    }


def atoms_of_row(row: dict[str, Any], *, relaxed: bool) -> Atoms:
    """A row's structure as ASE Atoms, before or after; without atoms, if it failed."""
    if row["numbers"] is None:
        return Atoms()
    prefix = "relaxed_" if relaxed else ""
    atoms = Atoms(
        numbers=row["numbers"],
        positions=np.reshape(row[f"{prefix}positions"], (-1, 3)),
        cell=np.reshape(row[f"{prefix}cell"], (3, 3)),
        pbc=row["pbc"],
    )
    if row.get("fixed") is not None:  # outputs of before know none
        atoms.set_constraint(FixAtoms(mask=row["fixed"]))
    return atoms


def structure_of_row(row: dict[str, Any]) -> Structure:
    """A row's relaxed structure, periodic along all axes: sheets and molecules in a box."""
    atoms = atoms_of_row(row, relaxed=True)
    cell = cell_with_box(plain_crystal(atoms))
    fixed = row.get("fixed")
    properties = fixed and {"selective_dynamics": [[not still] * 3 for still in fixed]}
    numbers, positions = atoms.numbers.tolist(), atoms.positions
    return Structure(
        cell, numbers, positions, coords_are_cartesian=True, site_properties=properties
    )


def compact_structure_of_row(row: dict[str, Any]) -> tuple[Structure, bool]:
    """The same with little vacuum, which tells nothing of likeness; and whether it has some."""
    crystal = read_structure(atoms_of_row(row, relaxed=True)).crystal
    cell, numbers = in_box(crystal, _NARROW).cell, crystal.numbers.tolist()
    structure = Structure(cell, numbers, crystal.positions, coords_are_cartesian=True)
    return structure, not crystal.pbc.all()


def _text(text: str) -> str:
    """A text that can be written as UTF-8: names of files need not be."""
    return text.encode("utf-8", "backslashreplace").decode()
