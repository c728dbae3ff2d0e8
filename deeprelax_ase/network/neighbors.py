"""Choose the pairs of a graph: the nearest whole shells, as many as hold a crystal together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.joined import joined_copies, joined_parts

SHELL_GAP = 0.01
"""Neighbours closer than this (Å) in distance belong to one shell."""
_COPIES = np.array([[k >> 2, k >> 1 & 1, k & 1] for k in range(8)])
_FEW = 320
"""Nodes of which a dense matrix is faster than a sparse one."""


class PairList(NamedTuple):
    """Pairs of several crystals, atoms counted through."""

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    offsets: Int[np.ndarray, "pairs 3"]
    lengths: Float[np.ndarray, " pairs"]
    crystals: Int[np.ndarray, " pairs"]

    def of(self, chosen: np.ndarray) -> "PairList":
        """Some of them."""
        return PairList(*(part[chosen] for part in self))


def chosen_pairs(
    crystals: Sequence[Crystal], config: NetworkConfig, further: float = 0.0
) -> tuple[PairList, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of several crystals, and which of them `build_graph` keeps.

    Returns:
        All pairs; their vectors, Å; neighbours that each crystal asks for; the pairs to keep.
    """
    pair_lists = [crystal.pairs_within(config.reach + further) for crystal in crystals]
    num_atoms = np.array([len(crystal) for crystal in crystals])
    starts = np.cumsum(num_atoms) - num_atoms
    first, second, offsets, vectors, lengths = (
        np.concatenate(parts) for parts in zip(*pair_lists, strict=True)
    )
    pairs_per_crystal = np.array([len(pair_list[0]) for pair_list in pair_lists])
    of_pair = np.repeat(np.arange(len(crystals)), pairs_per_crystal)
    shift = np.repeat(starts, pairs_per_crystal)
    pairs = PairList(first + shift, second + shift, offsets, lengths, of_pair)
    near = pairs.of(lengths < config.reach) if further else pairs
    pbc = np.stack([crystal.pbc for crystal in crystals])
    neighbors, keep = enough_neighbors(near, num_atoms, pbc, config.max_neighbors)
    return pairs, vectors, neighbors, np.arange(len(lengths)) if further else keep


def enough_neighbors(
    pairs: PairList,
    num_atoms: Int[np.ndarray, " crystals"],
    pbc: Bool[np.ndarray, "crystals 3"],
    max_neighbors: int,
) -> tuple[Int[np.ndarray, " crystals"], Int[np.ndarray, " kept"]]:
    """How many neighbours the atoms of each crystal ask for, and the pairs that come of it.

    Args:
        pairs: All within the cutoff.
        num_atoms: Of each crystal.
        pbc: Which axes of each repeat.
        max_neighbors: Asked for at first; twice as many where that leaves a crystal in parts.
    """
    neighbors = np.full(len(num_atoms), max_neighbors)
    chosen = _nearest_shells(pairs.first, pairs.second, pairs.lengths, max_neighbors)
    loose = np.flatnonzero(~_hold_together(pairs.of(chosen), num_atoms, pbc))
    if not len(loose):
        return neighbors, chosen
    kept = np.zeros(len(pairs.lengths), dtype=bool)
    kept[chosen] = True
    own, theirs = _pairs_of(loose, pairs, num_atoms)
    # What no pair joins, such as a molecule far above a slab, is not waited for.
    fewest = _num_parts(theirs, num_atoms[loose])
    while True:
        is_loose = _num_parts(theirs.of(kept[own]), num_atoms[loose]) > fewest
        if not is_loose.any():
            return neighbors, np.flatnonzero(kept)
        loose, fewest = loose[is_loose], fewest[is_loose]
        own, theirs = _pairs_of(loose, pairs, num_atoms)
        max_neighbors *= 2
        neighbors[loose] = max_neighbors
        kept[own] = False
        kept[own[_nearest_shells(theirs.first, theirs.second, theirs.lengths, max_neighbors)]] = (
            True
        )


def _pairs_of(
    crystals: Int[np.ndarray, " some"], pairs: PairList, num_atoms: Int[np.ndarray, " crystals"]
) -> tuple[Int[np.ndarray, " own"], PairList]:
    """Which pairs are of some crystals, and these with the atoms of these counted through."""
    number = np.full(len(num_atoms), -1)
    number[crystals] = np.arange(len(crystals))
    own = np.flatnonzero(number[pairs.crystals] >= 0)
    theirs = pairs.of(own)
    starts, new_starts = (np.cumsum(counts) - counts for counts in (num_atoms, num_atoms[crystals]))
    of_pair = number[theirs.crystals]
    shift = (new_starts - starts[crystals])[of_pair]
    return own, theirs._replace(
        first=theirs.first + shift, second=theirs.second + shift, crystals=of_pair
    )


def _hold_together(
    pairs: PairList, num_atoms: Int[np.ndarray, " crystals"], pbc: Bool[np.ndarray, "crystals 3"]
) -> Bool[np.ndarray, " crystals"]:
    """Whether pairs join all atoms of a crystal, and these to their images along every period.

    Of two cells along each period, all atoms have to be joined. Networks that go through each
    other may be taken for loose ones, which does no harm.
    """
    exists = (pbc[:, None, :] >= _COPIES).all(axis=2)
    sources, targets = joined_copies(pairs.first, pairs.second, pairs.offsets)
    find = _joined_to_the_first if 8 * num_atoms.sum() <= _FEW and len(pbc) == 1 else joined_parts
    labels = find(sources, targets, 8 * int(num_atoms.sum()))
    # All copies have the label of the first one of their crystal, along what repeats.
    starts = np.cumsum(num_atoms) - num_atoms
    is_same = labels.reshape(-1, 8) == np.repeat(labels[8 * starts], num_atoms)[:, None]
    is_fine = is_same | ~np.repeat(exists, num_atoms, axis=0)
    together: np.ndarray = np.logical_and.reduceat(is_fine.all(axis=1), starts)
    return together


def _num_parts(
    pairs: PairList, num_atoms: Int[np.ndarray, " crystals"]
) -> Int[np.ndarray, " crystals"]:
    """Number of parts that two cells along each axis of a crystal are in."""
    labels = joined_parts(
        *joined_copies(pairs.first, pairs.second, pairs.offsets), 8 * int(num_atoms.sum())
    )
    firsts = np.unique(labels, return_index=True)[1]
    crystals = np.repeat(np.arange(len(num_atoms)), 8 * num_atoms)
    return np.bincount(crystals[firsts], minlength=len(num_atoms))


def _joined_to_the_first(
    sources: Int[np.ndarray, " edges"], targets: Int[np.ndarray, " edges"], count: int
) -> Int[np.ndarray, " nodes"]:
    """1 for nodes that are joined to the first one, by matrices that are faster while small."""
    joined = np.eye(count, dtype=np.float32)
    joined[sources, targets] = joined[targets, sources] = 1.0
    reached = joined[0]
    while True:
        further = np.minimum(reached @ joined, 1.0)
        if (further == reached).all():
            return reached.astype(np.int64)
        reached = further


def _nearest_shells(
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    lengths: Float[np.ndarray, " pairs"],
    max_neighbors: int,
) -> Int[np.ndarray, " kept"]:
    """Pairs among the nearest whole shells of either end."""
    centers = np.concatenate([first, second])
    distances = np.concatenate([lengths, lengths])
    # One number to sort by, as no two neighbours of an atom are so far apart.
    order = np.argsort(centers * (2.0 * lengths.max(initial=1.0)) + distances)
    centers, distances = centers[order], distances[order]
    is_first = np.ones(len(centers), dtype=bool)
    is_first[1:] = centers[1:] != centers[:-1]
    position = np.arange(len(centers))
    start = np.maximum.accumulate(np.where(is_first, position, 0))
    rank = position - start
    # A shell ends where the next neighbour is further by a gap; after the cap, the first end cuts.
    ends_shell = rank >= max_neighbors
    ends_shell[1:] &= distances[1:] - distances[:-1] > SHELL_GAP
    ended = np.cumsum(ends_shell)
    kept = np.zeros(len(lengths), dtype=bool)
    kept[order[ended == ended[start]] % len(lengths)] = True
    return kept.nonzero()[0]
