"""Keeping other processes out of a folder."""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_held: set[IO[str]] = set()


def _let_go() -> None:
    """A process that was forked holds no lock: it would keep it when its parent is killed."""
    for stream in _held:
        stream.close()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path, told: str) -> Iterator[None]:
    """Be the only process at a folder, which is made; one that is killed leaves nothing in the way.

    Where a file system knows no locks, as Lustre can be mounted, a warning says so.

    Args:
        folder: Where the file `lock` is put.
        told: What is said where another process is at it.

    Raises:
        ValueError: Another process is at it.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(told) from None
        except OSError as error:
            text = f"{folder} cannot be locked ({error.strerror}): start nothing else at it"
            warnings.warn(text, stacklevel=3)
        _held.add(stream)
        try:
            yield
        finally:
            _held.discard(stream)
