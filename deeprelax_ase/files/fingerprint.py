"""What a file is known by, whatever its name."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
