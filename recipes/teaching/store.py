"""Finished pairs: one line of JSON each while they are made, parquet files in the end."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deeprelax_ase.datasets.validate_rows import find_faults
from deeprelax_ase.datasets.write_pairs import reduced_composition
from deeprelax_ase.files.atomic_write import written_beside

_FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.string(),
        "functional": pa.string(),
        "split": pa.string(),
        "numbers": pa.list_(pa.uint8()),
        "cell": _FLOATS,
        "positions": _FLOATS,
        "relaxed_cell": _FLOATS,
        "relaxed_positions": _FLOATS,
        "mean_displacement": pa.float32(),
        "log_volume_ratio": pa.float32(),
        "pbc": pa.list_(pa.bool_()),
        "fixed": pa.list_(pa.bool_()),
        "cell_free": pa.bool_(),
        "kind": pa.string(),
        "variant": pa.string(),
        "potential": pa.string(),
        "host": pa.string(),
        "steps": pa.int32(),
    }
)
_CHECKED = ("numbers", "cell", "positions", "relaxed_cell", "relaxed_positions", "pbc")


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Finished lines of all processes; one that was cut off is left out."""
    for path in sorted(folder.glob("pairs-*.jsonl")):
        with path.open(encoding="utf-8") as stream:
            yield from filter(None, map(_read_line, stream))


def _read_line(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def read_done(folder: Path) -> defaultdict[str, set[int]]:
    """Indices of each kind that are made or dropped."""
    done: defaultdict[str, set[int]] = defaultdict(set)
    for line in read_lines(folder):
        done[line["kind"]].add(line["index"])
    return done


def to_line(kind: str, index: int, outcome: Mapping[str, Any]) -> str:
    """A line of JSON: floats of single precision in their shortest form."""

    def plain(value: Any) -> Any:
        return [float(str(v)) for v in value] if isinstance(value, np.ndarray) else value

    record = {name: plain(value) for name, value in outcome.items()}
    return json.dumps({**record, "kind": kind, "index": index}) + "\n"


def merge(folder: Path, target: Path, held_back: frozenset[str] = frozenset()) -> Counter[str]:
    """Write one parquet file a kind; how many pairs there are, and how many were dropped and why.

    Args:
        folder: With finished lines.
        target: Folder of the files; those of kinds without pairs are left as they are.
        held_back: Reduced compositions that must not be taught.

    Raises:
        ValueError: A row is no sound pair: the folder was written by something else.
    """
    rows: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    counts: Counter[str] = Counter()
    for line in read_lines(folder):
        if "numbers" not in line:
            counts[f"{line['kind']}: {line['reason'].partition(':')[0]}"] += 1
        elif reduced_composition(np.array(line["numbers"])) in held_back:
            counts[f"{line['kind']}: held back"] += 1
        else:
            rows[line["kind"]][line["id"]] = line
    target.mkdir(parents=True, exist_ok=True)
    for kind, by_id in sorted(rows.items()):
        table = sorted(by_id.values(), key=lambda line: line["index"])
        columns = {name: [np.asarray(row[name]) for row in table] for name in _CHECKED}
        faults = find_faults(columns)
        if faults:
            first = next(iter(faults))
            msg = f"{len(faults)} rows of {kind} are no pairs: {table[first]['id']} {faults[first]}"
            raise ValueError(msg)
        rows_of_kind = [{name: row[name] for name in SCHEMA.names} for row in table]
        with written_beside(target / f"{kind}.parquet") as beside:
            pq.write_table(
                pa.Table.from_pylist(rows_of_kind, SCHEMA),
                beside,
                compression="zstd",
                compression_level=19,
                use_dictionary=["source", "functional", "split", "kind", "potential"],
                use_byte_stream_split=False,
            )
        counts[kind] = len(table)
    return counts
