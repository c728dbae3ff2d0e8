"""Small files of pairs in the published schema: strained and rattled textbook crystals."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase.build import bulk, mx2

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


def rows(count, seed=0, *, sheets=False):
    """Pairs whose relaxed side is a perfect crystal."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        relaxed = mx2("MoS2", a=3.2, vacuum=8.0) if sheets else bulk("MgO", "rocksalt", a=4.2)
        if not sheets and number % 2:
            relaxed = relaxed * (2, 1, 1)
        if not sheets and number % 3 == 0:
            relaxed.symbols[0] = "Ti"
        strain = rng.uniform(-0.04, 0.04, size=(3, 3))
        strain = (strain + strain.T) / 2
        if sheets:
            strain[2] = strain[:, 2] = 0
        deformation = np.eye(3) + strain
        cell = relaxed.cell[:] @ np.linalg.inv(deformation)
        moves = rng.normal(scale=0.05, size=relaxed.positions.shape)
        moves -= moves.mean(axis=0)
        positions = relaxed.positions @ np.linalg.inv(deformation) - moves
        row = {
            "id": f"row-{number}",
            "source": "made by the tests",
            "functional": ("PBE", "r2SCAN", "unknown")[number % 3],
            "split": SPLITS[number % len(SPLITS)],
            "numbers": relaxed.numbers.astype(np.uint8).tolist(),
            "cell": cell.astype(np.float32).ravel().tolist(),
            "positions": positions.astype(np.float32).ravel().tolist(),
            "relaxed_cell": relaxed.cell[:].astype(np.float32).ravel().tolist(),
            "relaxed_positions": relaxed.positions.astype(np.float32).ravel().tolist(),
        }
        if sheets:
            row["pbc"] = [True, True, False]
        yield row


def write_pairs(path, count=40, seed=0, *, sheets=False, drop=()):
    """Write a file of pairs; without the relaxed side it is a file of relaxed crystals."""
    table = pa.Table.from_pylist(list(rows(count, seed, sheets=sheets)))
    pq.write_table(table.drop_columns(list(drop)), path)
    return path


def write_relaxed(path, count=40, seed=1):
    """Perfect crystals, for denoising."""
    made = []
    for row in rows(count, seed):
        row["cell"], row["positions"] = row.pop("relaxed_cell"), row.pop("relaxed_positions")
        made.append(row)
    pq.write_table(pa.Table.from_pylist(made), path)
    return path
