"""Chunks relaxed on a Ray cluster, by actors of Ray Data that hold the weights.

The driver reads the input and writes the output, so the machines need no file system in common
unless the input is a folder of files. What a lost machine was at is done again by another one.
"""

import pickle
import socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import ray

from deeprelax_ase.relaxation.devices import limit_torch
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening.chunk import Chunk, relax_chunk

_WINDOW = 256
"""Chunks handed to Ray at once: all that the driver and the object store hold of the input."""
_AUTO = "auto"
_PATIENCE = 10  # seconds


class RayPool:
    """Actors on a Ray cluster; a context manager.

    Args:
        options: Of the relaxers.
        address: Of the cluster; `auto`: the one that RAY_ADDRESS names or that runs here, or else
            one that is started on this machine.
        workers: Actors at most; default: one a core, or one a GPU where there are any.

    Raises:
        ValueError: There is no cluster at that address.
    """

    def __init__(self, options: RelaxOptions, address: str, workers: int | None) -> None:
        self._options = options
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _check_reachable(address)
            ray.init(None if address == _AUTO else address, log_to_driver=False)
        resources = ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0)) if options.device in ("auto", "cuda") else 0
        self._workers = workers or self._gpus or max(1, int(resources.get("CPU", 1)))

    def __enter__(self) -> "RayPool":  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            ray.shutdown()

    def relax(self, chunks: Iterable[Chunk]) -> Iterator[tuple[int, pa.Table]]:
        """Numbers of chunks and their rows, as they come."""
        source = iter(chunks)
        while window := list(islice(source, _WINDOW)):
            yield from self._relax_window(window)

    def _relax_window(self, window: Sequence[Chunk]) -> Iterator[tuple[int, pa.Table]]:
        from ray import data

        data.DataContext.get_current().enable_progress_bars = False
        rows = [{"chunk": pickle.dumps(chunk)} for chunk in window]
        relaxed = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(self._options,),
            batch_size=1,
            batch_format="pyarrow",
            concurrency=(1, min(self._workers, len(window))),
            num_gpus=1 if self._gpus else 0,
        )
        for batch in relaxed.iter_batches(batch_size=1, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield row["number"], pa.ipc.open_stream(row["rows"]).read_all()


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing answers: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in (_AUTO, "local"):
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, ValueError) as error:
        msg = (
            f"no Ray cluster at {address} ({error}): give HOST:PORT as `ray start --head` shows "
            "it, or auto"
        )
        raise ValueError(msg) from error


class _Actor:
    """Relaxes chunks with weights that are loaded once."""

    def __init__(self, options: RelaxOptions) -> None:
        from deeprelax_ase.relaxation.relaxer import Relaxer

        limit_torch(1)
        self._relaxer = Relaxer(options=options)

    def __call__(self, batch: pa.Table) -> dict[str, list[Any]]:
        # These bytes are the driver's own, of this very run: nothing a user gave is unpickled.
        chunks: list[Chunk] = [pickle.loads(row) for row in batch["chunk"].to_pylist()]  # noqa: S301
        return {
            "number": [chunk.number for chunk in chunks],
            "rows": [_to_bytes(relax_chunk(self._relaxer, chunk)) for chunk in chunks],
        }


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
