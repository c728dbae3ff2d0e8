"""The outputs of all shares of a screening, put together in the order of the input."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from deeprelax_ase.screening.output_formats import (
    ROWS_IN_GROUP,
    check_output,
    read_rows,
    run_of_parquet,
    write_output,
)
from deeprelax_ase.screening.rank_and_deduplicate import Summary, Tally, overview
from deeprelax_ase.screening.rows import ROWS
from deeprelax_ase.screening.work_folder import Run, WorkFolder, difference

_OF_A_SHARE = ("shard", "max_error", "deduplicate")


def merge(
    shares: Sequence[Path],
    output: Path,
    *,
    max_error: float | None = None,
    deduplicate: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Put shares together; ranks, trust and duplicates are found anew over all of them.

    Args:
        shares: Parquet outputs of `deeprelax screen --shard`, all of one run; or a single output.
        output: File to write.
        max_error: As of a screening; None: that of the shares.
        deduplicate: As of a screening; also where the shares were.
        overwrite: Replace a file that is there.

    Raises:
        ValueError: A share is missing, there twice, or of another run.
        OSError: The output cannot be written.
    """
    check_output(output)
    if output.exists() and not overwrite:
        msg = f"{output} exists: pass --overwrite to replace it, or name another output"
        raise ValueError(msg)
    run, limits, was_deduplicated = _run_of_all(shares)
    deduplicate = deduplicate or was_deduplicated
    if max_error is None and len(limits) > 1:
        named = ", ".join(map(str, sorted(limits, key=str)))
        msg = f"the shares were screened with different limits ({named}): name a --max-error"
        raise ValueError(msg)
    max_error = max_error if max_error is not None else limits.pop()
    if any(output.exists() and output.samefile(share) for share in shares):
        msg = f"{output} is one of the shares as well: name another output"
        raise ValueError(msg)
    run = {
        **run,
        "merged": len(shares),
        "shard": 1,
        "shards": 1,
        "max_error": max_error,
        "deduplicate": deduplicate,
    }
    with WorkFolder(output, run, overwrite=overwrite) as work:
        rows = heapq.merge(*(read_rows(share) for share in shares), key=lambda row: row["item"])
        for number, table in enumerate(_tables(rows)):
            work.add(number, table)
        whole = overview(list(work.parts()), max_error, deduplicate=deduplicate)
        tally = Tally()
        write_output(output, tally.watch(whole.tables()), run, work.about_to_finish)
        work.remove()
    return tally.summary()


def _run_of_all(shares: Sequence[Path]) -> tuple[Run, set[float | None], bool]:
    """What shares have in common, the errors that they trust, and whether they have groups."""
    runs: dict[int, Run] = {}
    first: Run | None = None
    for share in shares:
        run = run_of_parquet(share)
        common = {key: value for key, value in run.items() if key not in _OF_A_SHARE}
        first = first or common
        if common != first:
            msg = f"{share} is of another run than {shares[0]} ({difference(first, common)})"
            raise ValueError(msg)
        if run["shard"] in runs:
            msg = f"{share} is shard {run['shard']}/{run['shards']}, which is there already"
            raise ValueError(msg)
        runs[run["shard"]] = run
    assert first is not None
    missing = sorted(set(range(1, first["shards"] + 1)) - runs.keys())
    if missing:
        names = ", ".join(f"{number}/{first['shards']}" for number in missing)
        msg = f"the shards {names} are missing: screen them, or name their outputs too"
        raise ValueError(msg)
    limits = {run["max_error"] for run in runs.values()}
    return first, limits, any(run["deduplicate"] for run in runs.values())


def _tables(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    while some := list(islice(rows, ROWS_IN_GROUP)):
        yield pa.Table.from_pylist(some, ROWS)
