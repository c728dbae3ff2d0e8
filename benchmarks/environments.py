"""Virtual environments of the rivals, made from the pinned files under `environments/`.

Every rival has its own, so that none of its pins touches ours or those of another.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

_PINS = Path(__file__).parent / "environments"
_COMPLETE = "complete.sha256"
_HEADER = "# python:"
_LAST_LINES = 3


class RivalError(Exception):
    """A rival cannot take part; the others go on."""


def known_environments() -> list[str]:
    """Names of the rivals that have a pinned file."""
    return sorted(path.stem for path in _PINS.glob("*.txt"))


def pinned_versions(name: str) -> dict[str, str]:
    """Version of every package in a rival's environment."""
    lines = (_PINS / f"{name}.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return dict(pairs)


def pins_digest(name: str) -> str:
    """SHA-256 of a rival's pinned file."""
    return hashlib.sha256((_PINS / f"{name}.txt").read_bytes()).hexdigest()


def interpreter(name: str, root: Path) -> Path:
    """Python of a rival's environment, which is made if it is not there or its pins have changed.

    Args:
        name: Of the rival.
        root: Folder of the environments.

    Raises:
        RivalError: There is no such pinned file, no fitting Python, or pip failed.
    """
    pins = _PINS / f"{name}.txt"
    if not pins.is_file():
        msg = f"no rival {name!r}: choose from {', '.join(known_environments())}"
        raise RivalError(msg)
    folder = root / name
    python = folder / "bin" / "python"
    digest = pins_digest(name)
    complete = folder / _COMPLETE
    if complete.is_file() and complete.read_text() == digest and python.is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{name}: making an environment in {folder}", file=sys.stderr)
    _run(name, [_fitting_python(name, pins), "-m", "venv", str(folder)])
    # The files name every package: nothing is to be resolved, whatever a package claims to need.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
    _run(name, [*pip, "--requirement", str(pins)])
    complete.write_text(digest)
    return python


def _fitting_python(name: str, pins: Path) -> str:
    """The first Python of those that the head of a pinned file names that is installed."""
    first = pins.read_text().splitlines()[0]
    versions = first.removeprefix(_HEADER).split()
    for version in versions:
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            return sys.executable
        found = shutil.which(f"python{version}")
        if found and _runs(found):
            return found
    msg = f"{name}: needs Python {' or '.join(versions)}, and none is on the PATH"
    raise RivalError(msg)


def _runs(python: str) -> bool:
    """Whether it is a Python: a version manager's stand-in may have none behind it."""
    done = subprocess.run([python, "--version"], capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        msg = f"{name}: cannot run {command[0]}: {error}"
        raise RivalError(msg) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
        msg = f"{name}: its environment cannot be made, {' '.join(command)} said: {said}"
        raise RivalError(msg)
