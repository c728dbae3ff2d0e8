"""What pairs join: parts of a cell, and of twice its axes, which tell how far a part goes on."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_PLACES = np.array([4, 2, 1])
"""Bits of the number of a copy."""
COPIES = 8
"""Of a cell, two along each axis."""


def joined_copies(
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    offsets: Int[np.ndarray, "pairs 3"],
) -> tuple[Int[np.ndarray, " joins"], Int[np.ndarray, " joins"]]:
    """Atoms that pairs join, in the copies of a cell, two along each axis."""
    copies = np.arange(COPIES)
    # Going an odd number of cells along an axis leads to the other copy, whose bit is the other.
    ends = copies ^ ((offsets & 1) @ _PLACES)[:, None]
    sources = np.broadcast_to(COPIES * first[:, None] + copies, ends.shape)
    return sources.ravel(), (COPIES * second[:, None] + ends).ravel()


def joined_parts(
    sources: Int[np.ndarray, " edges"], targets: Int[np.ndarray, " edges"], count: int
) -> Int[np.ndarray, " nodes"]:
    """A label from 0 on for each node, the same for all that are joined."""
    ones = np.ones(len(sources), dtype=np.int8)
    joined = coo_array((ones, (sources, targets)), shape=(count, count))
    labels: np.ndarray = connected_components(joined, directed=False)[1]
    return labels
