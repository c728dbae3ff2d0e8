"""Evaluations as numbers, as JSON and as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from deeprelax_ase.evaluation.evaluate import Evaluation
from deeprelax_ase.evaluation.metrics import NO_ERROR, Errors, better
from deeprelax_ase.structures.elements import chemical_symbols

_MEASURES = tuple(field.name for field in fields(Errors))
_RESAMPLES = 1000
_WORST, _MOST_UNCERTAIN = 0.05, 0.2
_LEAST_CRYSTALS = 5
_TRUSTED = ("bonds", "displacement", "distances")


def summarise(evaluation: Evaluation, *, intervals: bool = True) -> dict[str, Any]:
    """Numbers of an evaluation.

    For each measure of `metrics.Errors`: mean, median and 90th percentile, those of the input,
    and by how many per cent the mean and the median are smaller, with the 95 % interval of a
    bootstrap over the crystals. Then match rates in per cent; how many crystals moved and failed;
    Spearman's correlation of expected and actual errors, the share of the worst 5 % that is among
    the most uncertain 20 %, and the coverage of the intervals of bond lengths. `distances` are the
    paper's measure: the system-level uncertainty (Eq. 24) against the error of the lengths that
    were predicted before the solve.

    Args:
        evaluation: Of a file, or of a part of it.
        intervals: Whether to resample.
    """
    count = len(evaluation)
    summary: dict[str, Any] = {
        "crystals": count,
        "moved": int(evaluation.moved.sum()),
        "failed": int(evaluation.failed.sum()),
    }
    for name in _MEASURES:
        own, dummy = getattr(evaluation.errors, name), getattr(evaluation.dummy, name)
        summary[name] = {
            **_statistics(own),
            "input": _statistics(dummy),
            "better": better(own.mean(), dummy.mean()),
            "median_better": better(np.median(own), np.median(dummy)),
            "better_interval": list(_bootstrap(own, dummy)) if intervals else None,
        }
    if evaluation.matched is not None and evaluation.dummy_matched is not None:
        summary["match_rate"] = 100 * float(evaluation.matched.mean())
        summary["input_match_rate"] = 100 * float(evaluation.dummy_matched.mean())
    return summary | {"uncertainty": _uncertainty(evaluation)}


def by_source(evaluation: Evaluation) -> Iterator[Evaluation]:
    """The parts of an evaluation that are from one source each."""
    sources = np.array(evaluation.sources)
    for source in sorted(set(evaluation.sources)):
        yield evaluation.of(sources == source, source)


def by_element(evaluation: Evaluation) -> Iterator[Evaluation]:
    """The crystals with each element; a crystal counts for each of its own."""
    for number in sorted(frozenset().union(*evaluation.elements)):
        chosen = np.array([number in elements for elements in evaluation.elements])
        yield evaluation.of(chosen, chemical_symbols[number])


def as_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Everything, by file, source and element; null where a number is not defined."""
    everything = {
        evaluation.name: {
            **summarise(evaluation),
            "sources": {p.name: summarise(p, intervals=False) for p in by_source(evaluation)},
            "elements": {p.name: summarise(p, intervals=False) for p in by_element(evaluation)},
        }
        for evaluation in evaluations
    }
    plain: dict[str, Any] = _without_nan(everything)
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def as_markdown(evaluations: Sequence[Evaluation], *, details: bool = False) -> str:
    """Tables: improvement, errors, uncertainty; with details also by source and by element."""
    summaries = {evaluation.name: summarise(evaluation) for evaluation in evaluations}
    blocks = [improvement_table(summaries), error_table(summaries), trust_table(summaries)]
    if details:
        for evaluation in evaluations:
            for title, parts in (("source", by_source), ("element", by_element)):
                rows = {p.name: summarise(p, intervals=False) for p in parts(evaluation)}
                blocks.append(f"`{evaluation.name}` by {title}:\n\n{improvement_table(rows)}")
    return "\n\n".join(blocks)


def improvement_table(summaries: dict[str, dict[str, Any]]) -> str:
    """By how much errors are smaller than those of the input, with 95 % intervals."""
    shown = ("coordinates", "displacement", "bonds", "lattice", "volume")
    header = ["better than the input by (%)", "crystals", *shown, "match rate (input)"]
    rows = []
    for name, summary in summaries.items():
        cells = [f"`{name}`", str(summary["crystals"])]
        for measure in shown:
            better, low_high = summary[measure]["better"], summary[measure]["better_interval"]
            known = better is not None and np.isfinite(better)
            span = f" ({low_high[0]:.1f} to {low_high[1]:.1f})" if low_high and known else ""
            cells.append(f"{better:.1f}{span}" if known else "-")
        rate, dummy = summary.get("match_rate"), summary.get("input_match_rate")
        cells.append("" if rate is None else f"{rate:.1f} ({dummy:.1f})")
        rows.append(cells)
    return markdown_table(header, rows)


def error_table(summaries: dict[str, dict[str, Any]]) -> str:
    """Mean, median and 90th percentile of the errors."""
    shown = {
        "coordinates": "coordinates / Å",
        "bonds": "bonds / Å",
        "lattice": "lattice / Å",
        "volume": "volume / Å³",
    }
    header = ["mean, median, 90th percentile (of the input)", *shown.values()]
    rows = [
        [f"`{name}`", *(_three(summary[measure]) for measure in shown)]
        for name, summary in summaries.items()
    ]
    return markdown_table(header, rows)


def _three(entry: dict[str, Any]) -> str:
    own, dummy = (
        ", ".join(f"{part[key]:.3f}" for key in ("mean", "median", "percentile_90"))
        for part in (entry, entry["input"])
    )
    return f"{own} ({dummy})"


def trust_table(summaries: dict[str, dict[str, Any]]) -> str:
    """How far expected errors can be believed."""
    header = [
        "uncertainty",
        "expected, actual error of bonds / Å",
        "Spearman bonds, displacements, distances",
        "worst 5 % flagged bonds, displacements, distances / %",
        "coverage / %",
        "left as they were",
        "refused or failed",
    ]
    rows = []
    for name, summary in summaries.items():
        entry = summary["uncertainty"]
        covered = ", ".join(
            f"{100 * float(share):.0f}: {value:.1f}" for share, value in entry["coverage"].items()
        )
        kept = summary["crystals"] - summary["moved"] - summary["failed"]
        rows.append(
            [
                f"`{name}`",
                _two(entry, "{}_error", ("expected", "actual"), 3),
                _two(entry, "spearman_{}", _TRUSTED, 2),
                _two(entry, "flagged_{}", _TRUSTED, 0),
                covered,
                str(kept),
                str(summary["failed"]),
            ]
        )
    return markdown_table(header, rows)


def _two(entry: dict[str, Any], pattern: str, names: Sequence[str], digits: int) -> str:
    values = (entry[pattern.format(name)] for name in names)
    known = ("-" if v is None or not np.isfinite(v) else f"{v:.{digits}f}" for v in values)
    return ", ".join(known)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a header, in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _statistics(values: Float[np.ndarray, " crystals"]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "percentile_90": float(np.percentile(values, 90)),
    }


def _bootstrap(own: Float[np.ndarray, " n"], dummy: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """95 % interval of the improvement of the mean, crystals drawn anew with a fixed seed."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(own), size=(_RESAMPLES, len(own)))
    shares = own[draws].mean(axis=1) / np.maximum(dummy[draws].mean(axis=1), NO_ERROR)
    low, high = np.percentile(100 * (1 - shares), [2.5, 97.5])
    return float(low), float(high)


def _uncertainty(evaluation: Evaluation) -> dict[str, Any]:
    predicted = np.array([e.mean() if len(e) else np.nan for e in evaluation.bond_errors])
    pairs = {
        "bonds": (evaluation.expected, predicted),
        "displacement": (evaluation.expected_displacement, evaluation.errors.displacement),
        "distances": (evaluation.uncertainty, evaluation.distance_errors),
    }
    found: dict[str, Any] = {
        "expected_error": _mean(evaluation.expected),
        "actual_error": _mean(predicted),
        "expected_displacement_error": _mean(evaluation.expected_displacement),
    }
    for name, (expected, actual) in pairs.items():
        known = np.isfinite(expected) & np.isfinite(actual)
        found[f"spearman_{name}"] = _spearman(expected[known], actual[known])
        found[f"flagged_{name}"] = _flagged(expected[known], actual[known])
    found["coverage"] = {
        str(share): 100 * _mean(np.concatenate(within, dtype=float))
        for share, within in evaluation.within.items()
    }
    return found


def _mean(values: Float[np.ndarray, " n"]) -> float:
    """Of what is known; not a number where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _spearman(expected: Float[np.ndarray, " n"], actual: Float[np.ndarray, " n"]) -> float:
    if len(expected) < _LEAST_CRYSTALS or np.ptp(expected) == 0 or np.ptp(actual) == 0:
        return float("nan")
    return float(spearmanr(expected, actual).statistic)


def _flagged(expected: Float[np.ndarray, " n"], actual: Float[np.ndarray, " n"]) -> float:
    """Of the worst 5 % by error, how many per cent are among the most uncertain 20 %."""
    if len(expected) < _LEAST_CRYSTALS:
        return float("nan")
    worst = np.argsort(-actual)[: max(1, round(_WORST * len(actual)))]
    uncertain = np.argsort(-expected)[: max(1, round(_MOST_UNCERTAIN * len(actual)))]
    return 100 * float(np.isin(worst, uncertain).mean())
