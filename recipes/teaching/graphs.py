"""Neighbors of many structures in one padded graph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from vesin import NeighborList


@dataclass(frozen=True)
class PaddedGraph:
    """Pairs of atoms within a cutoff, and of each atom the pairs it is in.

    Attributes:
        vectors: Of each pair, from its first to its second atom, Å, `(pairs, 3)`.
        neighbors: Of each atom, 0 where there is none, `(atoms, width)`.
        pairs: Which pair each neighbor is of; padding has the index behind the last.
        reverse: Where the vector of the pair points to the atom, not away from it.
        centers: First atoms of pairs.
        ends: Second atoms.
        offsets: Cells between them.
    """

    vectors: Tensor
    neighbors: Tensor
    pairs: Tensor
    reverse: Tensor
    centers: Tensor
    ends: Tensor
    offsets: Tensor

    def spread(self, values: Tensor) -> Tensor:
        """Values of pairs at the neighbors of each atom, zero at padding."""
        padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return padded.index_select(0, self.pairs.flatten()).unflatten(0, self.pairs.shape)

    def with_vectors(self, vectors: Tensor) -> "PaddedGraph":
        """The same graph with the vectors of its pairs."""
        return replace(self, vectors=vectors)


def build_graph(structures: Sequence[Atoms], cutoff: float, device: str) -> PaddedGraph:
    """Find neighbors, without vectors.

    All axes count as periodic: vacuum is wider than any cutoff.

    Args:
        structures: Become parts of one graph that are not connected.
        cutoff: Å.
        device: `cpu` or `cuda`.
    """
    search = NeighborList(cutoff=cutoff, full_list=False)
    first, second, offsets = [], [], []
    start = 0
    for atoms in structures:
        i, j, shifts = search.compute(
            points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS"
        )
        first.append(i.astype(np.int64) + start)
        second.append(j.astype(np.int64) + start)
        offsets.append(shifts)
        start += len(atoms)
    i, j = np.concatenate(first), np.concatenate(second)
    pairs = len(i)
    centers, ends = np.concatenate([i, j]), np.concatenate([j, i])
    order = np.argsort(centers, kind="stable")
    counts = np.bincount(centers, minlength=start)
    width = max(int(counts.max()), 1)
    slots = np.arange(len(centers)) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors = np.zeros((start, width), dtype=np.int64)
    pair = np.full((start, width), pairs, dtype=np.int64)
    reverse = np.zeros((start, width), dtype=bool)
    rows = centers[order]
    neighbors[rows, slots] = ends[order]
    pair[rows, slots] = order % pairs if pairs else 0
    reverse[rows, slots] = order >= pairs

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device)

    shifts = tensor(np.concatenate(offsets).astype(np.float32))
    return PaddedGraph(
        vectors=torch.zeros(0, 3, device=device),
        neighbors=tensor(neighbors),
        pairs=tensor(pair),
        reverse=tensor(reverse),
        centers=tensor(i),
        ends=tensor(j),
        offsets=shifts,
    )
