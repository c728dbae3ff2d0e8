"""Writing parquet files in the schema that `dataset.py` reads."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.files.atomic_write import written_beside

_SHARES = (("val", 0.05), ("test", 0.10))
_VECTOR = pa.list_(pa.float64())
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.string(),
        "functional": pa.string(),
        "split": pa.string(),
        "numbers": pa.list_(pa.uint8()),
        "cell": _VECTOR,
        "positions": _VECTOR,
        "relaxed_cell": _VECTOR,
        "relaxed_positions": _VECTOR,
        "mean_displacement": pa.float64(),
        "log_volume_ratio": pa.float64(),
        "pbc": pa.list_(pa.bool_()),
        "fixed": pa.list_(pa.bool_()),
        "cell_free": pa.bool_(),
    }
)
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Row:
    """One row of a file of pairs."""

    id: str
    source: str
    split: str
    pair: Pair


def reduced_composition(numbers: Int[np.ndarray, " atoms"]) -> str:
    """Atomic numbers and their least counts, as text."""
    species, counts = np.unique(numbers, return_counts=True)
    counts = counts // np.gcd.reduce(counts)
    return " ".join(f"{z}:{n}" for z, n in zip(species, counts, strict=True))


def split_of(numbers: Int[np.ndarray, " atoms"]) -> str:
    """`train` (90 %), `val` or `test` (5 % each) by the reduced formula, the same everywhere."""
    formula = reduced_composition(numbers)
    digest = hashlib.sha256(formula.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return next((name for name, limit in _SHARES if share < limit), "train")


def write_pairs(path: Path, rows: Iterable[Row]) -> int:
    """Write a file of pairs, beside the old one first; how many there were.

    Raises:
        ValueError: There is not a single row.
        OSError: It cannot be written; a file that was there is as it was.
    """
    count = 0
    with written_beside(path) as beside:
        with pq.ParquetWriter(beside, _SCHEMA, compression="zstd") as writer:
            batch: list[dict[str, object]] = []
            for row in rows:
                batch.append(_record(row))
                count += 1
                if len(batch) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(batch, _SCHEMA))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, _SCHEMA))
        if not count:
            msg = f"nothing to write to {path}: not a single pair"
            raise ValueError(msg)
    return count


def _record(row: Row) -> dict[str, object]:
    pair = row.pair
    relaxed = pair.relaxed
    return {
        "id": row.id,
        "source": row.source,
        "functional": pair.functional,
        "split": row.split,
        "numbers": pair.crystal.numbers.tolist(),
        "cell": pair.crystal.cell.ravel(),
        "positions": pair.crystal.positions.ravel(),
        "relaxed_cell": relaxed.cell.ravel(),
        "relaxed_positions": relaxed.positions.ravel(),
        "mean_displacement": float(np.linalg.norm(pair.displacements, axis=1).mean()),
        "log_volume_ratio": float(np.log(np.linalg.det(pair.deformation))),
        "pbc": pair.crystal.pbc.tolist(),
        "fixed": [] if pair.crystal.fixed is None else pair.crystal.fixed.tolist(),
        "cell_free": not len(pair.crystal.held_strain),
    }
