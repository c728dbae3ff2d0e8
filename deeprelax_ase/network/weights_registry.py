"""Where weights lie and what their hash is: all that can be known of them without torch."""

from functools import lru_cache
from hashlib import sha256
from itertools import count, takewhile
from pathlib import Path

from deeprelax_ase.files.fingerprint import sha256_of

SPECIALIST = "sheets"
"""Weights that `default` takes for sheets by themselves, where they are shipped."""
_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "weights"
_CHECKOUT = _PACKAGE.parent / "weights"


def available_weights() -> list[str]:
    """Names of the shipped weights."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def is_shipped(path: Path) -> bool:
    """Whether a file is one of the shipped weights."""
    return path.parent == _folder() and path.stem in available_weights()


def has_specialist(model: object) -> bool:
    """Whether sheets are relaxed by weights of their own where a model is asked for."""
    is_default = isinstance(model, str | Path) and str(model) == "default"
    return is_default and SPECIALIST in available_weights()


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


def replicate_paths(name: str | Path) -> list[Path]:
    """File of weights, and those of its replicates.

    They are `NAME-2.safetensors`, `NAME-3` and so on beside it; or, as `train --replicates` writes
    them, `2/NAME.safetensors` and so on beside the folder `1` that it is in.

    Raises:
        ValueError: As `weights_path`.
    """
    first = weights_path(name)
    others = (first.with_name(f"{first.stem}-{number}{first.suffix}") for number in count(2))
    folder = first.resolve().parent
    if folder.name == "1":
        others = (folder.with_name(str(number)) / first.name for number in count(2))
    return [first, *takewhile(Path.is_file, others)]


def file_states(model: object) -> tuple[tuple[int, int], ...]:
    """Time and size of the files that a path stands for; none for names, whose files stay."""
    if not isinstance(model, str | Path) or not Path(model).is_file():
        return ()
    return tuple(map(_state, replicate_paths(model)))


def weights_sha256(name: str | Path, *, ensemble: bool = False) -> str:
    """SHA-256 of a weights file, in hexadecimal; of its hash and those of its replicates."""
    paths = replicate_paths(name) if ensemble else [weights_path(name)]
    hashes = [_sha256_of(path, *_state(path)) for path in paths]
    return hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256_of(path: Path, time: int, size: int) -> str:  # noqa: ARG001 - as it was then
    return sha256_of(path)


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def name_of(sha256: str) -> str | None:
    """Name that weights of a hash are shipped under now, if they are."""
    return next((name for name in available_weights() if weights_sha256(name) == sha256), None)


def _folder() -> Path:
    """Inside the wheel, or beside the package in a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
