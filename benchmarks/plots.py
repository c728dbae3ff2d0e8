"""The three figures: time against atoms, accuracy, and steps saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.accuracy import INPUT
from benchmarks.steps import summarise

mpl.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito: told apart by colour-blind eyes as well.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_NEUTRAL = "#666666"
_TITLES = {
    "m3gnet": "M3GNet",
    "chgnet": "CHGNet",
    "sevennet": "SevenNet-0",
    "gpaw": "GPAW (PBE)",
    INPUT: "unrelaxed input",
}
_MEASURES = {
    "coordinates": "coordinates",
    "displacement": "displacement",
    "bonds": "bond lengths",
    "lattice": "lattice",
    "volume": "volume",
}


def title(name: str) -> str:
    """How a contender is called in a figure."""
    first, comma, rest = name.partition(",")
    return _TITLES.get(first, first) + comma + rest


def plot_growth(found: Mapping[str, Any], out: Path) -> None:
    """Time of a relaxation against the number of atoms, a line each."""
    figure, axis = plt.subplots(figsize=(7, 4.8))
    for name, color, marker in zip(found["seconds"], _COLORS, _MARKERS, strict=False):
        seconds = found["seconds"][name]
        sizes = found["sizes"][: len(seconds)]
        axis.loglog(sizes, seconds, color=color, marker=marker, label=title(name))
    axis.set_xlabel("atoms in the cell")
    axis.set_ylabel("time of one relaxation / s")
    axis.set_title("One thread, one crystal at a time: Cu, and supercells of MgO")
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.legend(frameon=False)
    _save(figure, out)


def plot_accuracy(sets: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Mean errors relative to those of the input, with 95 % intervals; a panel a file of pairs."""
    figure, axes = plt.subplots(
        1, len(sets), figsize=(1 + 5.2 * len(sets), 4.6), sharey=True, squeeze=False
    )
    for axis, (name, found) in zip(axes[0], sets.items(), strict=True):
        contenders = [label for label in found if label != INPUT]
        width = 0.8 / len(contenders)
        places = np.arange(len(_MEASURES))
        for number, label in enumerate(contenders):
            scale = np.array([100 / found[INPUT][m]["mean"] for m in _MEASURES])
            means = np.array([found[label][m]["mean"] for m in _MEASURES]) * scale
            spans = np.array([found[label][m]["interval"] for m in _MEASURES]).T * scale
            axis.bar(
                places + (number - (len(contenders) - 1) / 2) * width,
                means,
                width * 0.9,
                yerr=np.abs(spans - means),
                color=_COLORS[number % len(_COLORS)],
                hatch=None if number < len(_COLORS) else "//",
                error_kw={"lw": 1, "ecolor": "#333333"},
                label=title(label),
            )
        axis.axhline(100, color=_NEUTRAL, ls="--", lw=1)
        axis.set_xticks(places, _MEASURES.values(), rotation=20, ha="right")
        axis.set_title(f"{name}: {found[INPUT]['crystals']} crystals")
        axis.grid(visible=True, axis="y", alpha=0.3)
    axes[0][0].set_ylabel("mean error / % of the unrelaxed input's")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    _save(figure, out)


def plot_steps(results: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Median steps, and median energy at the start above the end, from input and prediction."""
    summaries = {name: summarise(found) for name, found in results.items()}
    summaries = {name: entry for name, entry in summaries.items() if entry["crystals"]}
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.4))
    places = np.arange(len(summaries))
    for axis, key, label in (
        (axes[0], "steps_median", "relaxation steps, median"),
        (axes[1], "above_median", "energy at the start above the end,\nmedian / meV/atom"),
    ):
        values = np.array([entry[key] for entry in summaries.values()])
        for column, (start, color) in enumerate(
            (("unrelaxed input", _NEUTRAL), ("DeepRelax's prediction", _COLORS[0]))
        ):
            bars = axis.bar(
                places + (column - 0.5) * 0.4, values[:, column], 0.36, color=color, label=start
            )
            axis.bar_label(bars, fmt="{:.3g}", fontsize=9, padding=2)
        axis.set_xticks(places, [title(name) for name in summaries])
        axis.set_ylabel(label)
        axis.margins(y=0.15)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="start from", loc="outside lower center", ncols=2, frameon=False
    )
    _save(figure, out)


def _save(figure: Any, out: Path) -> None:
    figure.set_layout_engine("constrained")
    figure.savefig(out, dpi=130)
    plt.close(figure)
