"""The figures: time against atoms, accuracy, steps saved, and how far to trust what is expected."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.accuracy import INPUT, OURS, OWN_RELAXER
from benchmarks.rival import title
from benchmarks.steps import summarise

mpl.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito: told apart by colour-blind eyes as well.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_NEUTRAL = "#666666"
_PARTS = 10
_ENOUGH = 15
"""Crystals of a kind whose mean is shown."""
_MEASURES = {
    "coordinates": "coordinates",
    "displacement": "displacement",
    "bonds": "bond lengths",
    "lattice": "lattice",
    "volume": "volume",
}


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


def _contenders(found: Mapping[str, Any]) -> list[str]:
    """Whoever relaxes, each once."""
    return [label for label in found if label != INPUT and OWN_RELAXER not in label]


def plot_accuracy(sets: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Mean errors relative to those of the input, with 95 % intervals; a panel a file of pairs."""
    figure, axes = plt.subplots(
        1, len(sets), figsize=(1 + 5.2 * len(sets), 4.6), sharey=True, squeeze=False
    )
    # A rival may have been measured on some sets alone, and has one colour in all.
    known = list(dict.fromkeys(label for found in sets.values() for label in _contenders(found)))
    shown: dict[str, Any] = {}
    for axis, (name, found) in zip(axes[0], sets.items(), strict=True):
        contenders = sorted(_contenders(found), key=known.index)
        width = 0.8 / len(contenders)
        places = np.arange(len(_MEASURES))
        for number, label in enumerate(contenders):
            scale = np.array([100 / found[INPUT][m]["mean"] for m in _MEASURES])
            means = np.array([found[label][m]["mean"] for m in _MEASURES]) * scale
            spans = np.array([found[label][m]["interval"] for m in _MEASURES]).T * scale
            place = known.index(label)
            shown[title(label)] = axis.bar(
                places + (number - (len(contenders) - 1) / 2) * width,
                means,
                width * 0.9,
                yerr=np.abs(spans - means),
                color=_COLORS[place % len(_COLORS)],
                hatch=None if place < len(_COLORS) else "//",
                error_kw={"lw": 1, "ecolor": "#333333"},
            )
        axis.axhline(100, color=_NEUTRAL, ls="--", lw=1)
        axis.set_xticks(places, _MEASURES.values(), rotation=20, ha="right")
        axis.set_title(f"{name}: {found[INPUT]['crystals']} crystals")
        axis.grid(visible=True, axis="y", alpha=0.3)
    axes[0][0].set_ylabel("mean error / % of the unrelaxed input's")
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, out)


def plot_tradeoff(
    seconds: Mapping[str, float], errors: Mapping[str, float], crystals: str, out: Path
) -> None:
    """Mean error of the bonds against the time of a relaxation; one point a contender.

    Args:
        seconds: Median time of a relaxation, by contender.
        errors: Mean error of the bonds, Å, by contender; that of the input is a line.
        crystals: What was relaxed.
        out: File of the figure.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2))
    axis.axhline(errors[INPUT], color=_NEUTRAL, ls="--", lw=1)
    axis.annotate(
        title(INPUT),
        (0.98, errors[INPUT]),
        xycoords=("axes fraction", "data"),
        ha="right",
        xytext=(0, 4),
        textcoords="offset points",
        color=_NEUTRAL,
    )
    shown = [label for label in seconds if label.partition(",")[0] in errors]
    for number, label in enumerate(shown):
        error = errors[label.partition(",")[0]]
        is_ours = label.startswith(OURS)
        color = _COLORS[0] if is_ours else _NEUTRAL
        axis.plot(
            seconds[label], error, "*" if is_ours else "o", ms=13 if is_ours else 7, color=color
        )
        beside = {"xytext": (-9, 0), "ha": "right", "va": "center"}
        over = {"xytext": (0, 9 if number % 2 else -17), "ha": "center"}
        axis.annotate(
            title(label),
            (seconds[label], error),
            textcoords="offset points",
            fontsize=9,
            color=color,
            **(over if is_ours else beside),
        )
    axis.set_xscale("log")
    axis.set_ylim(0, 1.1 * max(errors.values()))
    axis.margins(x=0.12)
    axis.set_xlabel("time of a relaxation, median, one thread / s")
    axis.set_ylabel("mean error of bond lengths / Å")
    axis.set_title(crystals)
    axis.grid(visible=True, which="major", alpha=0.3)
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
        axis.set_xticks(places, [title(name).replace("-", "-\n", 1) for name in summaries])
        axis.set_ylabel(label)
        axis.margins(y=0.15)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="start from", loc="outside lower center", ncols=2, frameon=False
    )
    _save(figure, out)


def plot_reliability(found: Mapping[str, Any], folder: Path) -> None:
    """What was said of kinds that were left out against what came: errors and gains."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6))
    expected, errors = (
        np.concatenate([getattr(far, name) for far, _ in found.values()])
        for name in ("expected", "errors")
    )
    for name, (far, _) in found.items():
        if len(far.errors) >= _ENOUGH:
            left.loglog(far.expected.mean(), far.errors.mean(), "o", color=_NEUTRAL, ms=4)
            place = far.expected.mean(), far.errors.mean()
            left.annotate(name, place, fontsize=6, xytext=(3, 3), textcoords="offset points")
    parts = np.array_split(np.argsort(expected), _PARTS)
    points = [(expected[part].mean(), errors[part].mean()) for part in parts]
    left.loglog(*zip(*points, strict=True), "s-", color=_COLORS[0], label="tenths of all crystals")
    ends = np.array([points[0][0] / 2, points[-1][0] * 2])
    left.loglog(ends, ends, color=_NEUTRAL, lw=1)
    left.fill_between(ends, ends / 1.5, ends * 1.5, color=_NEUTRAL, alpha=0.15, lw=0)
    left.set_xlabel("expected error / Å")
    left.set_ylabel("mean error of bonds / Å")
    left.set_title("Kinds left out of the fit; shaded: a factor of 1.5")
    left.legend(frameon=False)
    runs = [run for pair in found.values() for run in pair]
    said, gained = (
        np.concatenate([getattr(run, name) for run in runs]) for name in ("probability", "gained")
    )
    parts = np.array_split(np.argsort(said), _PARTS)
    points = [(said[part].mean(), gained[part].mean()) for part in parts]
    right.plot([0, 1], [0, 1], color=_NEUTRAL, lw=1)
    right.plot(*zip(*points, strict=True), "s-", color=_COLORS[1])
    right.set_xlabel("probability of a gain that was said")
    right.set_ylabel("share of crystals that gained")
    right.set_title("The same, with points nearly at the target")
    for axis in (left, right):
        axis.grid(visible=True, which="major", alpha=0.3)
    _save(figure, folder / "reliability.png")


def plot_risk(kinds: Sequence[Any], folder: Path) -> None:
    """Mean error of what remains when the least certain crystals are dropped, of all kinds."""
    figure, axis = plt.subplots(figsize=(7, 4.8))
    expected, errors = (
        np.concatenate([getattr(kind, name) for kind in kinds]) for name in ("expected", "errors")
    )
    kept = np.arange(1, len(errors) + 1) / len(errors)
    for order, label, style in (
        (expected, "by expected error", {"color": _COLORS[0], "lw": 2.5}),
        (errors, "by the error itself", {"color": _NEUTRAL, "ls": "--"}),
    ):
        ranked = errors[np.argsort(order)]
        axis.plot(
            100 * kept, np.cumsum(ranked) / np.arange(1, len(ranked) + 1), label=label, **style
        )
    axis.set_xlabel("crystals kept, the most certain first / %")
    axis.set_ylabel("mean error of bonds / Å")
    axis.set_title("All kinds together, each left out of the fit in turn")
    axis.grid(visible=True, alpha=0.3)
    axis.legend(frameon=False)
    _save(figure, folder / "risk.png")


def _save(figure: Any, out: Path) -> None:
    figure.set_layout_engine("constrained")
    figure.savefig(out, dpi=130)
    plt.close(figure)
