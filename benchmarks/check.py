"""The regression guard: our own ratios, now, against those in `baseline.json`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import INPUT, OURS, compare
from benchmarks.cases import Case
from benchmarks.rival import Rival
from benchmarks.speed import SHOWN, ratios
from benchmarks.speed import compare as compare_speed

BASELINE = Path(__file__).parent / "baseline.json"
ALLOWED = 0.2
_ACCURACY = ("coordinates", "displacement", "bonds", "lattice", "volume")


def measure(
    timed: Sequence[Case], pairs: Mapping[str, Sequence[Case]], rivals: Mapping[str, Rival]
) -> dict[str, float]:
    """Our ratios, each the larger the better.

    Args:
        timed: Crystals that speed is measured on, beside the rivals.
        pairs: Cases by the name of their file, for accuracy.
        rivals: By name.

    Returns:
        `speed M ratio` for each rival M: its time over ours. `accuracy F measure` for each file F:
        error of the input over ours.
    """
    found: dict[str, float] = {}
    for name, entry in ratios(compare_speed(timed, rivals)).items():
        found |= {f"speed {name} {kind}": entry[kind] for kind in SHOWN}
    for name, cases in pairs.items():
        errors = compare(cases, {})
        for kind in _ACCURACY:
            ratio = errors[INPUT][kind]["mean"] / errors[OURS][kind]["mean"]
            found[f"accuracy {name} {kind}"] = ratio
    return found


def worsened(baseline: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """A sentence for each ratio that is more than 20 % below the baseline, or was not measured."""
    sentences = []
    for name, before in baseline.items():
        if name not in now:
            sentences.append(f"{name}: was {before:.3g}, and could not be measured")
        elif now[name] < (1 - ALLOWED) * before:
            sentences.append(f"{name}: was {before:.3g}, is {now[name]:.3g}")
    return sentences


def read_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """What was measured last.

    Raises:
        ValueError: There is no such file.
    """
    if not path.is_file():
        msg = f"no {path}: `python -m benchmarks check --update` writes it"
        raise ValueError(msg)
    found: dict[str, Any] = json.loads(path.read_text())
    return found
