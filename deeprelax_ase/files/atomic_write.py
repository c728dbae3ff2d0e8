"""Writing a file so that either all of it is there or the old one still is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SHOWN = 100
"""Letters of a name that its temporary neighbour ends in: names have at most 255 bytes."""


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside a file, to write to, which takes that file's place once all is well.

    Its name ends as that of the file does. On an error it is removed, and the file stays as it
    was: whatever is raised inside, and an OSError where the disk does not take it. A link stays
    one, permissions stay, and what is no file, such as /dev/stdout, is written to.
    """
    target = Path(os.path.realpath(path))
    is_special = path.exists() and not path.is_file()  # a pipe has no real path
    folder = Path(tempfile.gettempdir()) if is_special else target.parent
    beside = folder / f".{os.getpid()}.partial.{path.name[-_SHOWN:]}"
    try:
        yield beside
        if is_special:
            with beside.open("rb") as stream, path.open("wb") as special:
                shutil.copyfileobj(stream, special)
            return
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text in the place of a file.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
