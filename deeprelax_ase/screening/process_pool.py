"""Chunks relaxed by several processes, each with weights of its own, in whatever order.

While one process reads, another one's network runs. A process that dies (killed for its memory,
a crash in a library) costs no structure but the one that killed it.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa

from deeprelax_ase.relaxation.devices import limit_torch, may_have_gpu
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening.chunk import Chunk, failed_chunk, relax_chunk

_AHEAD = 2
"""Chunks that wait for each process, so that none waits for a chunk."""
_MOST_DEATHS = 25
"""Processes that may die in a row: one structure at fault in a chunk kills nine."""
_relaxer: Any = None
"""Of a process of the pool."""


class Pool(Protocol):
    """Whatever turns chunks into tables of rows."""

    def relax(self, chunks: Iterable[Chunk]) -> Iterator[tuple[int, pa.Table]]:
        """Numbers of chunks and their rows, as they come."""


class ProcessPool:
    """Processes on this machine; a context manager.

    Args:
        options: Of the relaxers.
        workers: Number of processes. Where there are several CUDA devices, they take turns.
    """

    def __init__(self, options: RelaxOptions, workers: int) -> None:
        self._options = options
        self._workers = workers
        self._deaths = 0
        self._executor = self._start()

    def __enter__(self) -> "ProcessPool":  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:  # nothing that they do is asked for: nobody waits for them
            # From Python 3.14 on, this is `kill_workers`.
            for process in [*(self._executor._processes or {}).values()]:  # noqa: SLF001
                process.kill()
        self._executor.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        counter = context.Value("i", 0)
        return ProcessPoolExecutor(
            self._workers,
            context,
            initializer=_begin,
            initargs=(self._options, counter, os.getpid()),
        )

    def relax(self, chunks: Iterable[Chunk]) -> Iterator[tuple[int, pa.Table]]:
        """Numbers of chunks and their rows, as they come.

        Raises:
            ValueError: The options are wrong, or processes die whatever they are given.
        """
        source = iter(chunks)
        running: dict[Future[pa.Table], Chunk] = {}
        while True:
            for chunk in islice(source, _AHEAD * self._workers - len(running)):
                running[self._submit(chunk)] = chunk
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    table = future.result()
                    yield running.pop(future).number, table
            except BrokenProcessPool:
                suspects, running = list(running.values()), {}
                self._restart()
                for chunk in suspects:
                    yield chunk.number, self._one_by_one(chunk)

    def _check_alive(self) -> None:
        """Refuse to blame a structure where processes die before they are given one."""
        try:
            self._executor.submit(os.getpid).result()
        except BrokenProcessPool:
            msg = (
                "processes die as they begin, whatever they are given: is memory short? Try fewer "
                "--workers"
            )
            raise ValueError(msg) from None

    def _submit(self, chunk: Chunk) -> Future[pa.Table]:
        try:
            with _deaf_to_interrupts():  # a process may begin here
                return self._executor.submit(_relax, chunk)
        except BrokenProcessPool as error:
            failed: Future[pa.Table] = Future()
            failed.set_exception(error)
            return failed

    def _restart(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._start()

    def _one_by_one(self, chunk: Chunk) -> pa.Table:
        """Rows of a chunk that may kill its process: of its halves, down to the one at fault."""
        try:
            table = self._submit(chunk).result()
        except BrokenProcessPool:
            self._deaths += 1
            if self._deaths > _MOST_DEATHS:
                msg = (
                    f"{self._deaths} processes in a row died at what they were given: is memory "
                    "short? Try fewer --workers, or a smaller --memory"
                )
                raise ValueError(msg) from None
            self._restart()
        else:
            self._deaths = 0
            return table
        if len(chunk.items) == 1:
            self._check_alive()
            return failed_chunk(chunk, "the process that relaxed it died: was memory short?")
        half = len(chunk.items) // 2
        halves = (chunk.items[:half], chunk.items[half:])
        return pa.concat_tables([self._one_by_one(chunk._replace(items=items)) for items in halves])


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C is for this process alone: those it starts inherit that they do not hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _begin(options: RelaxOptions, counter: Any, parent: int) -> None:
    """Make a process ready: one thread, weights loaded, gone when its parent is gone."""
    global _relaxer  # noqa: PLW0603 - what an initializer leaves for the calls has to stand there
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    limit_torch(1)
    from deeprelax_ase.relaxation.relaxer import Relaxer

    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if options.device in ("auto", "cuda") and may_have_gpu():
        import torch

        devices = torch.cuda.device_count()
        if devices:
            options = replace(options, device=f"cuda:{number % devices}")
    try:
        _relaxer = Relaxer(options=options)
    except ValueError as error:  # raised by the first chunk: an initializer would break the pool
        _relaxer = error


def _watch(parent: int) -> None:
    """End this process once its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _relax(chunk: Chunk) -> pa.Table:
    if isinstance(_relaxer, Exception):
        raise _relaxer
    return relax_chunk(_relaxer, chunk)
