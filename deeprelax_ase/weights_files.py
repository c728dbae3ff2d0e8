"""Where weights lie and what their hash is: all that can be known of them without torch."""

import hashlib
from pathlib import Path

_INSTALLED = Path(__file__).resolve().parent / "weights"
_CHECKOUT = Path(__file__).resolve().parent.parent / "weights"


def available_weights() -> list[str]:
    """Names of the shipped weights."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def weights_path(name: str | Path) -> Path:
    """File of shipped weights, or of a path.

    Raises:
        ValueError: There are no weights of that name and no such file.
    """
    if str(name) in available_weights():
        return _folder() / f"{name}.safetensors"
    path = Path(name)
    if not path.is_file():
        known = ", ".join(available_weights()) or "none"
        msg = f"no weights {str(name)!r}: choose from {known}, or give a .safetensors file"
        raise ValueError(msg)
    return path


def weights_sha256(name: str | Path) -> str:
    """SHA-256 of a weights file, in hexadecimal."""
    return hashlib.sha256(weights_path(name).read_bytes()).hexdigest()


def _folder() -> Path:
    """Inside the wheel, or beside the package in a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
