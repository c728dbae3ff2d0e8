"""Results as JSON files, with what each was made with, so that what is out of date is found."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.environments import pinned_versions, pins_digest
from deeprelax_ase.files.atomic_write import replace_text
from deeprelax_ase.network.weights_registry import available_weights, weights_sha256

RESULTS = Path(__file__).parent / "results"
MADE_WITH = "made_with"
HISTORY = ("ablation", "solves", "transfer")
"""Experiments, each with weights of its own."""
_VERSIONS = ("deeprelax-ase", "torch", "numpy", "ase", "e3nn", "pymatgen", "spglib")
_PACKAGES = {"sevennet": "sevenn", "tensornet": "matgl"}
"""Package of a rival, where it has another name."""
_DIGITS = 12
_SHA256 = 64
"""Digits; the weights of rivals are named by their files."""


class NotMeasuredError(ValueError):
    """A page wants numbers that nobody measured."""


def measured(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """A result that a page shows.

    Raises:
        NotMeasuredError: There is none.
    """
    found = read(name, folder)
    if not found:
        msg = f"nothing was measured of {name!r}: run python -m benchmarks all --only {name}"
        raise NotMeasuredError(msg)
    return found


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """A result; empty where it was never measured."""
    path = folder / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def write(name: str, found: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Keep a result: the file is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / f"{name}.json", json.dumps(found, indent=1) + "\n")


@cache
def shipped() -> dict[str, str]:
    """SHA-256 of all shipped weights, by name."""
    return {name: weights_sha256(name) for name in available_weights()}


def is_current(found: Mapping[str, Any]) -> bool:
    """Whether a result is of the shipped default weights."""
    return bool(found.get(MADE_WITH, {}).get("weights") == shipped()["default"])


def weights_of(found: Mapping[str, Any]) -> set[str]:
    """Hashes of the weights that a result, or any part of it, was made with."""
    own = found.get(MADE_WITH, {}).get("weights")
    hashes = {own} if own and len(own) == _SHA256 else set()
    for entry in found.values():
        if isinstance(entry, Mapping):
            hashes |= weights_of(entry)
    return hashes


def of_rival(name: str, weights: Path | None) -> dict[str, str]:
    """What answers of a rival depend on: version, pinned environment, and name of its weights."""
    package = _PACKAGES.get(name, name)
    return {
        "version": f"{package} {pinned_versions(name)[package]}",
        "environment": pins_digest(name)[:_DIGITS],
        "weights": "" if weights is None else weights.name,
    }


def of_cases(cases: Sequence[Case]) -> str:
    """Digest of the inputs and targets of cases."""
    digest = hashlib.sha256()
    for case in cases:
        crystal, target = case.pair.crystal, case.pair.relaxed
        digest.update(f"{case.name} {case.pair.functional}".encode())
        for array in (crystal.numbers, crystal.cell, crystal.positions, target.positions):
            digest.update(array.round(4).tobytes())
    return digest.hexdigest()[:_DIGITS]


def of_this_run(rivals: Iterable[str]) -> dict[str, Any]:
    """Versions, ours and those of the rivals, weights and processor."""
    return {
        "versions": {"python": platform.python_version(), **{n: version(n) for n in _VERSIONS}},
        "weights": shipped()["default"],
        "rivals": {name: pinned_versions(name) for name in rivals},
        "processor": _processor(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
