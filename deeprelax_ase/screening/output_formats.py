"""Outputs of a screening: parquet, extxyz or an ASE database, streamed and never half written."""

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import ase.db
import pyarrow as pa
import pyarrow.parquet as pq
from ase.io import write as ase_write
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

from deeprelax_ase.screening.rows import RANKED, atoms_of_row
from deeprelax_ase.screening.work_folder import RUN_KEY, Run

ENDINGS = (".parquet", ".extxyz", ".db")
"""What the name of an output may end in."""
ROWS_IN_GROUP = 4096
"""Rows that a reader of the parquet file holds at once."""
_FACTS = (
    "id",
    "status",
    "error",
    "note",
    "volume_change",
    "largest_displacement",
    "functional",
    "passes",
    "expected_error",
    "gain_probability",
    "expected_gain",
    "uncertainty",
    "seconds",
    "weights",
    "weights_sha256",
    "rank",
    "trusted",
    "group",
    "representative",
)


def check_output(path: Path) -> None:
    """Refuse the name of an output in a format that is not written.

    Raises:
        ValueError: Its ending is none of `ENDINGS`, or its folder none that can be written in.
    """
    if path.suffix not in ENDINGS:
        msg = f"{path}: the name of the output has to end in one of {', '.join(ENDINGS)}"
        raise ValueError(msg)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        msg = (
            f"{str(path.absolute())!r} is no name in UTF-8, and Parquet takes no other: set a "
            "locale such as C.UTF-8, or name an output in another folder"
        )
        raise ValueError(msg) from error
    if path.is_dir():
        msg = f"{path} is a folder: name a file"
        raise ValueError(msg)


def write_output(
    path: Path, tables: Iterable[pa.Table], run: Run, ready: Callable[[Path], None]
) -> None:
    """Write rows in the format that the name asks for; a file that was there stays until then.

    Args:
        path: The output; no other process may be at it.
        tables: Its rows.
        run: What the run is.
        ready: Called with the file that is about to be renamed to the output.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    beside = path.with_name(f".{path.name}.partial{path.suffix}")
    writers = {".parquet": _write_parquet, ".extxyz": _write_extxyz, ".db": _write_database}
    for ending in ("", "-journal", ".lock"):  # of a run that was killed
        beside.with_name(f"{beside.name}{ending}").unlink(missing_ok=True)
    try:
        writers[path.suffix](beside, tables, run)
        ready(beside)
        beside.replace(path)
    except sqlite3.Error as error:  # of a disk that is full, say
        raise OSError(errno.EIO, str(error), str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def run_of(path: Path) -> Run | None:
    """The run a finished output is of; None for whatever else it is."""
    if path.suffix == ".db":
        return _run_of_database(path)
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    return json.loads(metadata[RUN_KEY]) if RUN_KEY in metadata else None


def is_of_run(path: Path, run: Run) -> bool:
    """Whether a finished output is of a run."""
    if path.suffix != ".extxyz":
        return run_of(path) == run
    mark, frames = f"run={_fingerprint(run)}", 0
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if mark in line:
                frames += 1
                if f"frames={frames}" in line.split():  # the last one knows how many there are
                    return not any(mark in left for left in stream)
    return False


def _fingerprint(run: Run) -> str:
    text = json.dumps(run, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def run_of_parquet(path: Path) -> Run:
    """The run a finished parquet output is of.

    Raises:
        ValueError: It is none.
    """
    run = None if path.suffix == ".db" else run_of(path)
    if run is None:
        what = "is no parquet file that deeprelax screen wrote" if path.exists() else "is not there"
        msg = f"{path} {what}"
        raise ValueError(msg)
    return run


def _run_of_database(path: Path) -> Run | None:
    try:
        run: Run | None = ase.db.connect(str(path), type="db").metadata.get(RUN_KEY.decode())
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is no output of ours
        return None
    return run


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a finished parquet file, one at a time.

    Raises:
        ValueError: It is no output of a screening.
    """
    run_of_parquet(path)
    for batch in pq.ParquetFile(path).iter_batches(ROWS_IN_GROUP):
        yield from batch.to_pylist()


def _write_parquet(path: Path, tables: Iterable[pa.Table], run: Run) -> None:
    schema = RANKED.with_metadata({RUN_KEY: json.dumps(run)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for table in tables:
            waiting.append(table)
            if sum(len(one) for one in waiting) >= ROWS_IN_GROUP:
                writer.write_table(pa.concat_tables(waiting).cast(schema))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting).cast(schema))


def _write_extxyz(path: Path, tables: Iterable[pa.Table], run: Run) -> None:
    mark = _fingerprint(run)
    with path.open("w", encoding="utf-8") as stream:
        for number, (row, following) in enumerate(pairwise(chain(_rows(tables), [None])), 1):
            assert row is not None
            atoms = atoms_of_row(row, relaxed=True)
            facts = _facts(row)
            atoms.info.update({**facts, "id": _as_text(on_one_line(facts["id"])), "run": mark})
            if following is None:
                atoms.info["frames"] = number
            ase_write(stream, atoms, format="extxyz")  # a frame of no atoms, if it failed


def _write_database(path: Path, tables: Iterable[pa.Table], run: Run) -> None:
    # The work folder keeps others out; a lock of ASE outlives a process that was killed.
    with ase.db.connect(str(path), type="db", use_lock_file=False) as database:
        for row in _rows(tables):
            facts = _facts(row)
            name = str(facts.pop("id"))
            # ASE's keys hold no text that reads as a number: what may be one is in `data`.
            database.write(atoms_of_row(row, relaxed=True), data={"id": name}, **facts)
        database.metadata = {RUN_KEY.decode(): dict(run)}


def _rows(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    facts = {key: row[key] for key in _FACTS if row[key] is not None}
    codes = {"note_codes": " ".join(row["note_codes"])} if row["note_codes"] else {}
    return {**facts, **codes}


def _as_text(name: str) -> str:
    """An id that ASE reads back as a text, also one that looks like a number, or like its JSON."""
    if not name.startswith("_JSON"):
        read = key_val_str_to_dict(key_val_dict_to_str({"id": name}))["id"]
        if isinstance(read, str):
            return name
    return f"_JSON {json.dumps(name)}"


def on_one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())
