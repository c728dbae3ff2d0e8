"""Parquet files of pairs, and their graphs with the targets.

The schema: `id, source, functional, split, numbers (n), cell (9), positions (3n)`, and for pairs
`relaxed_cell (9), relaxed_positions (3n)`; optionally `pbc (3)`, `fixed (n)` for atoms that were
held and `cell_free` for whether the cell was relaxed too. Å, Cartesian, row vectors, sites in the
same order on both sides. Rows that cannot be used are skipped with a warning.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.validate_rows import find_faults
from deeprelax_ase.network.config import FUNCTIONALS, NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph, build_graph
from deeprelax_ase.structures.crystal import Crystal, log_symmetric

_COLUMNS = ("functional", "split", "numbers", "cell", "positions")
_OPTIONAL_COLUMNS = (
    "id",
    "source",
    "pbc",
    "fixed",
    "cell_free",
    "potential",
    "relaxed_cell",
    "relaxed_positions",
    "relaxed_numbers",
)
_TEXTS = ("id", "source", "functional", "split", "potential")
_KINDS: dict[str, Any] = {
    "numbers": np.int64,
    "relaxed_numbers": np.int64,
    "pbc": np.bool_,
    "fixed": np.bool_,
    "cell_free": np.bool_,
}


@dataclass(frozen=True)
class Targets:
    """What a batch should relax to.

    Attributes:
        displacements: Å.
        deformations: Symmetric; `relaxed_cell = cell @ deformation`.
        strains: Logarithm of the deformations.
        distances: Relaxed length of every pair of the graph, Å.
    """

    displacements: Float[Tensor, "atoms 3"]
    deformations: Float[Tensor, "crystals 3 3"]
    strains: Float[Tensor, "crystals 3 3"]
    distances: Float[Tensor, " pairs"]

    def to(self, dtype: torch.dtype, device: str | torch.device | None = None) -> "Targets":
        """The targets with another floating-point type, and perhaps on another device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return Targets(**{k: t.to(device, dtype, non_blocking=True) for k, t in tensors.items()})


class EmptySplitError(ValueError):
    """A file has no row of a split."""


def file_labels(paths: Sequence[Path]) -> list[str]:
    """Names to tell files apart: their stems, or their whole paths where two stems are equal.

    Raises:
        ValueError: A file is there twice.
    """
    stems = [path.stem for path in paths]
    for path in paths:
        if paths.count(path) > 1:
            msg = f"{path} is given {paths.count(path)} times: give each file once"
            raise ValueError(msg)
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


class PairFile:
    """One split of a parquet file of pairs, or of relaxed crystals, in memory.

    Args:
        path: The file.
        split: `train`, `val` or `test`.
        strict: Refuse a file with rows that cannot be used. They are skipped with a warning
            otherwise.

    Raises:
        ValueError: A column is missing, or no row of that split can be used.
    """

    def __init__(self, path: Path, split: str, *, strict: bool = False) -> None:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            msg = f"{path} is no parquet file: {error}"
            raise ValueError(msg) from error
        missing = [name for name in _COLUMNS if name not in schema.names]
        if ("relaxed_cell" in schema.names) != ("relaxed_positions" in schema.names):
            missing += [n for n in ("relaxed_cell", "relaxed_positions") if n not in schema.names]
        if missing:
            msg = f"{path}: no column {', '.join(missing)}; it has {', '.join(schema.names)}"
            raise ValueError(msg)
        self.path = path
        self.is_pairs = "relaxed_cell" in schema.names
        wanted = [*_COLUMNS, *_OPTIONAL_COLUMNS]
        table = pq.read_table(path, columns=[name for name in wanted if name in schema.names])
        in_split = np.array([row == split for row in table["split"].to_pylist()])
        if not in_split.any():
            there = ", ".join(sorted({str(row) for row in table["split"].to_pylist()})) or "none"
            msg = f"{path}: no row with split {split!r}; its rows are of {there}"
            raise EmptySplitError(msg)
        table = table.filter(in_split)
        self._columns = {name: self._column(name, table[name]) for name in table.column_names}
        self._drop_faulty(np.flatnonzero(in_split), strict=strict)
        self._name_functionals()
        self.num_atoms = np.array([len(row) for row in self._columns["numbers"]])

    def _column(self, name: str, chunked: Any) -> list[Any]:
        """Rows of a column.

        Raises:
            ValueError: They are not of the kind they should be.
        """
        try:
            return _rows(name, chunked)
        except (ValueError, TypeError, pa.ArrowException) as error:
            msg = f"{self.path}: column {name} holds {chunked.type}, not numbers: {error}"
            raise ValueError(msg) from error

    def _drop_faulty(self, places: Int[np.ndarray, " rows"], *, strict: bool) -> None:
        """Skip rows that cannot be used and say so, or refuse the file."""
        faults = find_faults(self._columns)
        if not faults:
            return
        row, reason = min(faults.items())
        name = f" (id {self._columns['id'][row]})" if "id" in self._columns else ""
        first = f"row {places[row]}{name}: {reason}"
        if strict or len(faults) == len(places):
            msg = f"{self.path}: {len(faults)} of {len(places)} rows cannot be used; {first}"
            raise ValueError(msg)
        warnings.warn(f"{self.path}: skipped {len(faults)} rows; the first, {first}", stacklevel=3)
        for name, column in self._columns.items():
            self._columns[name] = [v for row, v in enumerate(column) if row not in faults]

    def _name_functionals(self) -> None:
        """Take functionals that no network can be told of for unknown, and say so."""
        named = self._columns["functional"]
        others = sorted(set(named) - {*FUNCTIONALS, "None"})
        if others:
            warnings.warn(
                f"{self.path}: functional {', '.join(others)} is taken for unknown; "
                f"known are {', '.join(FUNCTIONALS)}",
                stacklevel=3,
            )
        known = [name if name in FUNCTIONALS else "unknown" for name in named]
        self._columns["functional"] = known

    def __len__(self) -> int:
        return len(self.num_atoms)

    def id(self, row: int) -> str:
        """Name of a row: its `id`, or its number where there is no such column."""
        return str(self._columns["id"][row]) if "id" in self._columns else str(row)

    def functional(self, row: int) -> str:
        """Name of the functional of a row's target."""
        return str(self._columns["functional"][row])

    def source(self, row: int) -> str:
        """Where a row is from: its `source`, or the file where there is no such column."""
        return str(self._columns["source"][row]) if "source" in self._columns else self.path.stem

    @property
    def potentials(self) -> set[str]:
        """Potentials that made the targets, where the file says so."""
        return set(self._columns.get("potential", ()))

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur."""
        return set().union(*self.elements_with.values())

    @property
    def elements_with(self) -> dict[str, set[int]]:
        """Atomic numbers that occur with each functional of the targets."""
        found: dict[str, set[int]] = {}
        for name, numbers in zip(
            self._columns["functional"], self._columns["numbers"], strict=True
        ):
            found.setdefault(name, set()).update(np.unique(numbers).tolist())
        return found

    def __getitem__(self, row: int) -> Pair:
        columns = self._columns
        fixed = columns["fixed"][row] if "fixed" in columns else np.zeros(0, dtype=bool)
        is_held = "cell_free" in columns and not columns["cell_free"][row].all()
        crystal = Crystal(
            numbers=columns["numbers"][row],
            positions=columns["positions"][row].reshape(-1, 3),
            cell=columns["cell"][row].reshape(3, 3),
            pbc=columns["pbc"][row] if "pbc" in columns else np.array([True] * 3),
            held_strain=np.eye(9) if is_held else np.zeros((0, 9)),
            fixed=fixed if fixed.any() else None,
        )
        functional = columns["functional"][row]
        if not self.is_pairs:
            return Pair(crystal, functional, np.zeros_like(crystal.positions), np.eye(3))
        relaxed_cell = columns["relaxed_cell"][row].reshape(3, 3)
        deformation = np.linalg.solve(crystal.cell, relaxed_cell)
        deformation = (deformation + deformation.T) / 2
        relaxed = columns["relaxed_positions"][row].reshape(-1, 3)
        displacements = relaxed @ np.linalg.inv(deformation) - crystal.positions
        return Pair(crystal, functional, crystal.settled(displacements), deformation)


def open_pairs(path: Path, split: str, *, strict: bool = False) -> PairFile:
    """One split of a file of pairs.

    Raises:
        ValueError: As `PairFile`, and where it holds relaxed crystals.
    """
    file = PairFile(path, split, strict=strict)
    if not file.is_pairs:
        msg = f"{path} holds relaxed crystals, not pairs: it has no column relaxed_cell"
        raise ValueError(msg)
    return file


def _rows(name: str, chunked: Any) -> list[Any]:
    """Rows of a column: strings, or flat arrays; empty ones where there is nothing."""
    array = chunked.combine_chunks()
    if name in _TEXTS:
        return [str(value) for value in array.to_pylist()]
    kind = _KINDS.get(name, np.float64)
    if not pa.types.is_list(array.type) or pa.types.is_nested(array.type.value_type):
        rows = array.to_pylist()  # of a fixed size, or nested
        return [np.array([] if row is None else row, dtype=kind).ravel() for row in rows]
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False).astype(kind)
    return [values[a:b] for a, b in pairwise(offsets)]


def collate(
    pairs: Sequence[Pair], config: NetworkConfig, further: float = 0.0
) -> tuple[CrystalGraph, Targets]:
    """Graph (see `build_graph`) and targets of several pairs, in double precision."""
    functionals = [pair.functional for pair in pairs]
    graph = build_graph([pair.crystal for pair in pairs], functionals, config, further)
    deformations = np.stack([p.deformation for p in pairs])
    displacements = torch.from_numpy(np.concatenate([p.displacements for p in pairs]))
    matrices = torch.from_numpy(deformations)
    i, j = graph.edge_index
    vectors = graph.edge_vectors + displacements[j] - displacements[i]
    relaxed = (vectors[:, None, :] @ matrices[graph.edge_batch])[:, 0]
    targets = Targets(
        displacements=displacements,
        deformations=matrices,
        strains=torch.from_numpy(log_symmetric(deformations)),
        distances=torch.linalg.vector_norm(relaxed, dim=1),
    )
    return graph, targets
