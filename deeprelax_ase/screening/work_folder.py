"""What a screening has done so far, kept in a folder beside its output until it is finished.

Every chunk is a file of its own, written beside and then renamed: whenever the process is killed,
a chunk is there as a whole or not at all. `run.json` says what the run is, so that another one
neither goes on with it nor writes over it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeprelax_ase.files.atomic_write import replace_text, written_beside
from deeprelax_ase.files.lock import locked

RUN_KEY = b"deeprelax_screen"
"""Where the metadata of an output says which run it is of."""
_RUN = "run.json"
_FINISHED = "finished"
_NAMES = {"input_sha256": "the input: names, sizes and times of change, or how it is read"}
"""What a message calls parts of a run."""
_LENGTH_OF_SHA256 = 64
Run = Mapping[str, Any]
"""What a run is: inputs, options, weights, share. Plain values, as JSON knows them."""


class WorkFolder:
    """Chunks that are done; a context manager that keeps other processes out.

    Args:
        output: File that the run is to write; the folder is `OUTPUT.work`.
        run: What the run is.
        overwrite: Throw away what another run left there.

    Raises:
        ValueError: Another run left its work there, or is at it.
        OSError: The folder cannot be written.
    """

    def __init__(self, output: Path, run: Run, *, overwrite: bool = False) -> None:
        self.path = work_path(output)
        self._lock = ExitStack()
        told = f"{self.path} is in use: another process is at this output; name another one"
        self._lock.enter_context(locked(self.path, told))
        found = _read_run(self.path)
        if found != run:
            if found is not None and not overwrite and any(self.parts()):
                self._lock.close()
                msg = (
                    f"{self.path} holds the work of another run ({difference(found, run)}): pass "
                    "--overwrite to throw it away, or name another output"
                )
                raise ValueError(msg)
            for part in self.path.glob("*.parquet"):
                part.unlink()
        replace_text(self.path / _RUN, json.dumps(run, indent=1))

    def __enter__(self) -> "WorkFolder":  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _part(self, number: int) -> Path:
        return self.path / f"{number:08d}.parquet"

    def has(self, number: int) -> bool:
        """Whether a chunk is done."""
        return self._part(number).exists()

    def add(self, number: int, rows: pa.Table) -> None:
        """Keep the rows of a chunk.

        Raises:
            OSError: They cannot be written; nothing is left of them.
        """
        with written_beside(self._part(number)) as beside:
            pq.write_table(rows, beside, compression="zstd")

    def parts(self) -> Iterator[Path]:
        """Files of all chunks, in order."""
        yield from sorted(self.path.glob("[!.]*.parquet"))  # none that was cut short

    def about_to_finish(self, written: Path) -> None:
        """Note which file is to become the output: once it has, all is done."""
        replace_text(self.path / _FINISHED, str(written.stat().st_ino))

    def is_finished(self, output: Path) -> bool:
        """Whether the output is there, and only the folder was still to be thrown away."""
        note = self.path / _FINISHED
        return note.exists() and output.exists() and note.read_text() == str(output.stat().st_ino)

    def remove(self) -> None:
        """Throw the folder away, once the output is written."""
        # Renamed first: killed in the middle, what is left is nobody's work.
        gone = self.path.with_name(f".{self.path.name}.{os.getpid()}.gone")
        self.path.rename(gone)
        shutil.rmtree(gone)


def has_work(output: Path) -> bool:
    """Whether there is work to go on with."""
    return (work_path(output) / _RUN).exists()


def work_path(output: Path) -> Path:
    """Folder of the work of an output."""
    return output.with_name(f"{output.name}.work")


def difference(found: Run, run: Run) -> str:
    """In what two runs differ, for a message."""
    return (
        "; ".join(
            f"{_plain(found[key])} there, {_plain(run[key])} now, of {_NAMES.get(key, key)}"
            if not isinstance(run.get(key), dict) or not isinstance(found.get(key), dict)
            else difference(found[key], run[key])
            for key in sorted({*found, *run})
            if key in found and key in run and found[key] != run[key]
        )
        or "of another kind"
    )


def _plain(value: Any) -> str:
    """A value for a message, hashes cut short."""
    text = str(value)
    return f"{text[:8]}…" if len(text) == _LENGTH_OF_SHA256 else text


def _read_run(folder: Path) -> Run | None:
    path = folder / _RUN
    return json.loads(path.read_text()) if path.exists() else None
