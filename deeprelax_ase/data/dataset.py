"""Parquet files of pairs, and batches of them as graphs with their targets.

The schema: `id, source, functional, split, numbers (n), cell (9), positions (3n)`, and for pairs
`relaxed_cell (9), relaxed_positions (3n)`; optionally `pbc (3)`. Å, Cartesian, row vectors,
sites in the same order on both sides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase.config import FUNCTIONALS, NetworkConfig, SourceConfig, TrainConfig
from deeprelax_ase.crystal import Crystal, log_symmetric
from deeprelax_ase.data.augment import Pair, disturb
from deeprelax_ase.graph import CrystalGraph, build_graph

_COLUMNS = ("functional", "split", "numbers", "cell", "positions")
_POOL = 2048


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
        moved = {f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)}
        return Targets(**moved)


class PairFile:
    """One split of a parquet file of pairs, or of relaxed crystals, in memory.

    Args:
        path: The file.
        split: `train`, `val` or `test`.

    Raises:
        ValueError: A column is missing, or no row is of that split.
    """

    def __init__(self, path: Path, split: str) -> None:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            msg = f"{path} is no parquet file: {error}"
            raise ValueError(msg) from error
        missing = [name for name in _COLUMNS if name not in schema.names]
        if missing:
            msg = f"{path}: no column {', '.join(missing)}; it has {', '.join(schema.names)}"
            raise ValueError(msg)
        self.path = path
        self.is_pairs = "relaxed_cell" in schema.names
        wanted = [*_COLUMNS, "pbc", "relaxed_cell", "relaxed_positions"]
        table = pq.read_table(path, columns=[name for name in wanted if name in schema.names])
        in_split = np.array([row == split for row in table["split"].to_pylist()])
        if not in_split.any():
            msg = f"{path}: no row with split {split!r}"
            raise ValueError(msg)
        table = table.filter(in_split)
        self._columns = {name: _column(table[name]) for name in table.column_names}
        self.num_atoms = np.array([len(row) for row in self._columns["numbers"]])

    def __len__(self) -> int:
        return len(self.num_atoms)

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur."""
        return set(np.unique(np.concatenate(self._columns["numbers"])).tolist())

    @property
    def functionals(self) -> set[str]:
        """Functionals of the targets."""
        return set(self._columns["functional"])

    def __getitem__(self, row: int) -> Pair:
        columns = self._columns
        crystal = Crystal(
            numbers=columns["numbers"][row],
            positions=columns["positions"][row].reshape(-1, 3),
            cell=columns["cell"][row].reshape(3, 3),
            pbc=columns["pbc"][row] if "pbc" in columns else np.array([True] * 3),
        )
        functional = columns["functional"][row]
        functional = functional if functional in FUNCTIONALS else "unknown"
        if not self.is_pairs:
            return Pair(crystal, functional, np.zeros_like(crystal.positions), np.eye(3))
        relaxed_cell = columns["relaxed_cell"][row].reshape(3, 3)
        deformation = np.linalg.solve(crystal.cell, relaxed_cell)
        deformation = (deformation + deformation.T) / 2
        relaxed = columns["relaxed_positions"][row].reshape(-1, 3)
        displacements = relaxed @ np.linalg.inv(deformation) - crystal.positions
        displacements -= displacements.mean(axis=0)
        return Pair(crystal, functional, displacements, deformation)


def _column(chunked: Any) -> list[Any]:
    """Rows of a column: strings, or arrays that share one buffer."""
    array = chunked.combine_chunks()
    if not hasattr(array, "offsets"):
        return list(array.to_pylist())
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
    return [values[a:b] for a, b in pairwise(offsets)]


def collate(pairs: Sequence[Pair], config: NetworkConfig) -> tuple[CrystalGraph, Targets]:
    """Graph and targets of several pairs, in double precision."""
    graph = build_graph([p.crystal for p in pairs], [p.functional for p in pairs], config)
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


Reference = tuple[int, int]
"""Number of a file in the mixture, and a row of it."""


class Mixture(torch.utils.data.Dataset[tuple[CrystalGraph, Targets]]):
    """Several files as one endless, reproducible stream of batches.

    What batch `b` of epoch `e` holds, disturbance included, depends on the seed, `e` and `b`
    alone, so that a run can be resumed exactly. As a torch dataset it has the batches of one
    epoch, that of the last `set_epoch`.
    """

    def __init__(self, config: TrainConfig, split: str) -> None:
        self.config = config
        self.files = [PairFile(source.path, split) for source in config.sources]
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of an epoch: of similar size within a batch, in random order."""
        self.epoch = epoch
        rng = np.random.default_rng((self.config.seed, epoch))
        references = [
            (number, row)
            for number, (source, file) in enumerate(
                zip(self.config.sources, self.files, strict=True)
            )
            for row in _passes(source, len(file), rng)
        ]
        order = rng.permutation(len(references))
        batches: list[list[Reference]] = []
        for first in range(0, len(order), _POOL):
            pool = [references[index] for index in order[first : first + _POOL]]
            batches += self._pack(sorted(pool, key=self._num_atoms))
        self._batches = [batches[index] for index in rng.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[CrystalGraph, Targets]:
        rng = np.random.default_rng((self.config.seed, self.epoch, number))
        pairs = []
        for file_number, row in self._batches[number]:
            file = self.files[file_number]
            noise = self.config.augmentation if file.is_pairs else self.config.denoising
            pair = file[row]
            pairs.append(pair if noise is None else disturb(pair, noise, rng))
        return collate(pairs, self.config.network)

    def _pack(self, pool: list[Reference]) -> list[list[Reference]]:
        """Cut a sorted pool into batches of about as many edges as allowed."""
        largest = self.config.edges_per_batch / (self.config.network.max_neighbors + 2)
        batches: list[list[Reference]] = []
        atoms = np.inf
        for reference in pool:
            atoms += self._num_atoms(reference)
            if atoms > largest:
                batches.append([])
                atoms = self._num_atoms(reference)
            batches[-1].append(reference)
        return batches

    def _num_atoms(self, reference: Reference) -> int:
        return int(self.files[reference[0]].num_atoms[reference[1]])


def _passes(source: SourceConfig, count: int, rng: np.random.Generator) -> Iterator[int]:
    """Rows of a file for one epoch: whole passes, then a random part."""
    whole, part = divmod(source.passes, 1.0)
    for _ in range(int(whole)):
        yield from range(count)
    yield from rng.permutation(count)[: round(part * count)].tolist()
