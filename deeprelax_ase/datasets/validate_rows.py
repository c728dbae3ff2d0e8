"""What is wrong with rows of a file of pairs: found for whole columns at once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.crystal import LEAST_DISTANCE, MAX_ATOMIC_NUMBER

LARGEST_MEAN_DISPLACEMENT = 3.0
"""Sites that move further than this in the mean (Å) do not stand in the same order: twice what
`cleanup` takes for a relaxation, for those who measure moves in another frame."""
_LEAST_VOLUME = 1e-3
_TOO_NEAR = f"has two atoms less than {LEAST_DISTANCE} Å apart"
HELD = 1e-2
"""Å and strain by which something held differs at most."""
_SIZES = {"cell": 9, "relaxed_cell": 9, "positions": None, "relaxed_positions": None, "pbc": 3}
"""Values in a row; None: three an atom."""
_LARGEST_SHEAR = 1e-3
_PAIRS_AT_ONCE = 1_000_000


def find_faults(columns: Mapping[str, Sequence[Any]]) -> dict[int, str]:
    """Rows that cannot be used, and why.

    Args:
        columns: Rows of `numbers`, `cell`, `positions`, and for pairs `relaxed_cell` and
            `relaxed_positions`, as flat arrays; perhaps `relaxed_numbers`.
    """
    faults: dict[int, str] = {}

    def report(wrong: Bool[np.ndarray, " rows"], reason: str) -> None:
        for row in np.flatnonzero(wrong).tolist():
            faults.setdefault(row, reason)

    counts = _lengths(columns["numbers"])
    report(counts == 0, "it has no atoms")
    floats = [name for name in _SIZES if name in columns]
    for name in floats:
        size = _SIZES[name] or 3 * counts
        report(_lengths(columns[name]) != size, f"{name} has the wrong count of values")
    for name in floats:
        report(~_all(columns[name], np.isfinite), f"{name} has NaN or infinite values")
    report(
        ~_all(columns["numbers"], lambda z: (z >= 1) & (z <= MAX_ATOMIC_NUMBER)),
        f"numbers has values outside 1 to {MAX_ATOMIC_NUMBER}",
    )
    if "relaxed_numbers" in columns:
        pairs = zip(columns["numbers"], columns["relaxed_numbers"], strict=True)
        report(
            np.array([not np.array_equal(a, b) for a, b in pairs]),
            "the atoms stand in another order after relaxation",
        )
    if "fixed" in columns:
        sizes = _lengths(columns["fixed"])
        report((sizes != counts) & (sizes != 0), "fixed has the wrong count of values")
    sound = np.setdiff1d(np.arange(len(counts)), list(faults))
    if len(sound):
        kept = {name: [column[row] for row in sound] for name, column in columns.items()}
        for wrong, reason in _geometry_faults(kept, counts[sound]):
            for row in sound[wrong].tolist():
                faults.setdefault(row, reason)
    return faults


def _geometry_faults(
    columns: Mapping[str, Sequence[Any]], counts: Int[np.ndarray, " rows"]
) -> Iterator[tuple[Bool[np.ndarray, " rows"], str]]:
    """Of rows whose arrays have the right sizes."""
    cells = np.stack(columns["cell"]).reshape(-1, 3, 3)
    volumes = np.linalg.det(cells)
    flat = np.abs(volumes) < _LEAST_VOLUME
    yield flat, "cell has no volume"
    positions = np.concatenate(columns["positions"]).reshape(-1, 3)
    yield _have_near_atoms(cells, positions, counts, flat), f"positions {_TOO_NEAR}"
    if "relaxed_cell" not in columns:
        return
    relaxed_cells = np.stack(columns["relaxed_cell"]).reshape(-1, 3, 3)
    relaxed_volumes = np.linalg.det(relaxed_cells)
    relaxed_flat = np.abs(relaxed_volumes) < _LEAST_VOLUME
    yield relaxed_flat, "relaxed_cell has no volume"
    yield volumes * relaxed_volumes < 0, "relaxed_cell is a mirror image of cell"
    cells[flat], relaxed_cells[relaxed_flat] = np.eye(3), np.eye(3)
    deformations = np.linalg.solve(cells, relaxed_cells)
    shear = np.abs(deformations - deformations.swapaxes(1, 2)).max(axis=(1, 2))
    yield (
        shear > _LARGEST_SHEAR * np.abs(deformations).max(axis=(1, 2)),
        "relaxed_cell is rotated against cell",
    )
    inverted = np.linalg.eigvalsh((deformations + deformations.swapaxes(1, 2)) / 2)[:, 0] <= 0
    yield inverted, "relaxed_cell is no strain of cell, but turns it over"
    back = np.repeat(np.linalg.solve(relaxed_cells, cells), counts, axis=0)
    relaxed = np.concatenate(columns["relaxed_positions"]).reshape(-1, 3)
    near = _have_near_atoms(relaxed_cells, relaxed, counts, relaxed_flat)
    yield near, f"relaxed_positions {_TOO_NEAR}"
    if "cell_free" in columns:
        is_held = ~_all(columns["cell_free"], np.asarray)
        strain = np.abs(deformations - np.eye(3)).max(axis=(1, 2))
        yield is_held & (strain > HELD), "relaxed_cell differs from cell, and cell_free is false"
    moves = (relaxed[:, None, :] @ back)[:, 0] - positions
    starts = np.cumsum(counts) - counts
    if "fixed" in columns:
        sizes = np.linalg.norm(moves, axis=1) * _of_atoms(columns["fixed"], counts)
        yield np.maximum.reduceat(sizes, starts) > HELD, "an atom moves that is fixed"
    means = np.add.reduceat(moves, starts) / counts[:, None]
    lengths = np.linalg.norm(moves - np.repeat(means, counts, axis=0), axis=1)
    if "pbc" in columns:
        still = ~np.stack(columns["pbc"])
        stretch = np.linalg.norm(relaxed_cells - cells, axis=2)
        yield (stretch * still).max(axis=1) > _LARGEST_SHEAR, "relaxed_cell differs in its vacuum"
    far = np.add.reduceat(lengths, starts) / counts > LARGEST_MEAN_DISPLACEMENT
    yield (
        far,
        f"atoms move by over {LARGEST_MEAN_DISPLACEMENT} Å in the mean: another order, or wrapped?",
    )


def _have_near_atoms(
    cells: Float[np.ndarray, "rows 3 3"],
    positions: Float[np.ndarray, "all_atoms 3"],
    counts: Int[np.ndarray, " rows"],
    flat: Bool[np.ndarray, " rows"],
) -> Bool[np.ndarray, " rows"]:
    """Which crystals have two atoms on a site, images counted.

    Rounding the fractional distance finds the nearest image where that is much nearer than the
    cell is wide, and no other matters here.
    """
    wrong = np.zeros(len(counts), dtype=bool)
    starts = np.cumsum(counts) - counts
    for count in np.unique(counts[counts > 1]).tolist():
        first, second = np.triu_indices(count, 1)
        same = np.flatnonzero((counts == count) & ~flat)
        size = max(1, _PAIRS_AT_ONCE // len(first))
        for rows in np.split(same, range(size, len(same), size)):
            own = cells[rows]
            scaled = positions[starts[rows, None] + np.arange(count)] @ np.linalg.inv(own)
            vectors = scaled[:, second] - scaled[:, first]
            vectors = (vectors - np.rint(vectors)) @ own
            squares = np.einsum("rpx,rpx->rp", vectors, vectors)
            wrong[rows] = squares.min(axis=1) < LEAST_DISTANCE**2
    return wrong


def _of_atoms(
    column: Sequence[np.ndarray], counts: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " atoms"]:
    """A column with a value an atom, or none in a row, as one array."""
    rows = zip(column, counts, strict=True)
    return np.concatenate([row if len(row) else np.zeros(n, dtype=bool) for row, n in rows])


def _lengths(column: Sequence[Any]) -> np.ndarray:
    return np.array([len(values) for values in column])


def _all(column: Sequence[Any], test: Any) -> Bool[np.ndarray, " rows"]:
    """Of each row, whether all its values pass."""
    lengths = _lengths(column)
    passed = test(np.concatenate(column)) if lengths.sum() else np.zeros(0, dtype=bool)
    failures = np.concatenate([[0], np.cumsum(~passed)])
    ends = np.cumsum(lengths)
    return failures[ends] == failures[ends - lengths]
