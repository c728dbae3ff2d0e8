"""Draw the figures of README and manual from the results: no number of them is typed."""

from pathlib import Path

import numpy as np

from benchmarks import plan, plots, store
from benchmarks.accuracy import INPUT, OURS

_DOCS = Path(__file__).parent.parent / "docs"
_SHOWN = ("hypothetical (PBE)", "substitution (PBE)", "battery (PBE)")
"""Sets of the figure of accuracy."""
_TRADEOFF = "hypothetical (PBE)"


def draw(results: Path = store.RESULTS, folder: Path = _DOCS) -> None:
    """Draw what there are results of."""
    accuracy = store.read("accuracy", results)
    speed, steps = store.read("speed", results), store.read("steps", results)
    shown = {name: accuracy[name] for name in _SHOWN if name in accuracy}
    if shown:
        plots.plot_accuracy(shown, folder / "accuracy.png")
    first = str(plan.STEP_SETS[0])
    if first in steps:
        plots.plot_steps(steps[first], folder / "steps.png")
    if speed:
        plots.plot_growth(speed["growth"], folder / "speed.png")
    if speed and _TRADEOFF in accuracy:
        entries = accuracy[_TRADEOFF]
        seconds = {OURS: float(np.median([c["seconds"][OURS] for c in speed["crystals"]]))}
        seconds[f"{OURS}, in batches"] = float(np.median([c["batched"] for c in speed["crystals"]]))
        seconds |= {name: ratio["median_seconds"] for name, ratio in speed["ratios"].items()}
        errors = {label: entry["bonds"]["mean"] for label, entry in entries.items()}
        assert INPUT in errors
        crystals = f"{entries[INPUT]['crystals']} hypothetical pnictides relaxed with PBE"
        plots.plot_tradeoff(seconds, errors, crystals, folder / "tradeoff.png")
