"""Keeping other processes out of a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, told: str) -> Iterator[None]:
    """Be the only process at a folder, which is made; one that is killed leaves nothing in the way.

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
        except OSError:
            raise ValueError(told) from None
        yield
