"""Read the bytes and the text of a file: unpacked, within a limit, in whatever encoding it is.

Nothing here knows a format.
"""

import bz2
import codecs
import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from deeprelax_ase.structures.validation import StructureError

MAX_UNPACKED = 1 << 30
"""Bytes that a compressed file or an archive may unpack to: 1 GiB."""
_PEEK = 1 << 16
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = tuple(_OPENERS)
"""Endings of compressed files that are read."""
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def split_name(path: Path) -> tuple[str, str, str]:
    """Stem, suffix, and suffix of compression of a file's name."""
    compression = path.suffix if path.suffix.lower() in COMPRESSED else ""
    inner = Path(path.name.removesuffix(compression))
    return inner.stem, inner.suffix, compression


def split_suffix(path: Path) -> str:
    """Suffix of a file's name, in lower case, without that of compression."""
    return split_name(path)[1].lower()


def inner_name(path: Path) -> str:
    """Name of a file without the suffix of compression."""
    stem, suffix, _ = split_name(path)
    return f"{stem}{suffix}"


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacked if its name says that it is compressed."""
    opened: IO[bytes] = _OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return opened


def fortran_float(word: str) -> float:
    """Read a number as Fortran writes it: `0.44D+01` is 4.4.

    Raises:
        ValueError: It is none.
    """
    return float(re.sub("[dD]", "e", word))


def has_value(word: str) -> bool:
    """Whether a number, perhaps repeated as in `3*0.0`, is not zero."""
    return bool(re.search(r"[1-9]", re.split(r"[eEdD]", word.rsplit("*", maxsplit=1)[-1])[0]))


def _not_unpacked(path: Path, error: Exception) -> StructureError:
    if isinstance(error, PermissionError | FileNotFoundError):
        return StructureError(f"{path} cannot be read: {error.strerror}")
    return StructureError(f"{path} cannot be unpacked: {error}")


def read_bytes(path: Path) -> bytes:
    """Bytes of a file, unpacked.

    Raises:
        StructureError: It unpacks to more than `MAX_UNPACKED`, or is no compressed file.
    """
    if not is_compressed(path):
        return path.read_bytes()
    try:
        with open_unpacked(path) as stream:
            data = stream.read(MAX_UNPACKED + 1)
    except (EOFError, lzma.LZMAError, OSError) as error:
        raise _not_unpacked(path, error) from error
    if len(data) > MAX_UNPACKED:
        msg = f"{path} unpacks to more than {MAX_UNPACKED >> 20} MiB: unpack it first"
        raise StructureError(msg)
    return data


def check_unpacks(path: Path) -> None:
    """Refuse a file that is not compressed as its name says.

    Raises:
        StructureError: It is not.
    """
    try:
        with open_unpacked(path) as stream:
            stream.read(1)
    except (EOFError, lzma.LZMAError, OSError) as error:
        raise _not_unpacked(path, error) from error


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix.lower() in COMPRESSED


def peek(path: Path) -> bytes:
    """First bytes of a file, unpacked; nothing where that fails."""
    try:
        with open_unpacked(path) as stream:
            return stream.read(_PEEK)
    except (EOFError, lzma.LZMAError, OSError):
        return b""


def is_plain_text(data: bytes) -> bool:
    """Whether bytes are text that any reader takes: UTF-8 without a byte order mark."""
    if any(data.startswith(mark) for mark, _ in _BOMS) or b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4 and error.reason == "unexpected end of data"
    return True


def decode(data: bytes) -> str:
    """Text of bytes: UTF-8, or what a byte order mark says; lines end with a line feed.

    Bytes that are no UTF-8, such as an old comment in Latin-1, can be written back as they were
    with `errors="surrogateescape"`.
    """
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_binary(data: bytes) -> bool:
    """Whether bytes are no text."""
    return b"\0" in data and not any(data.startswith(mark) for mark, _ in _BOMS)
