"""The blocks of README, manual and model card that are made of measured numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import accuracy, card_tables, field, kinds, plan, real, run_tables, store
from benchmarks.ablation import table as ablation_table
from benchmarks.rival import title
from benchmarks.solves import table as solves_table
from benchmarks.transfer import table as transfer_table
from deeprelax_ase.evaluation.tables import improvement_table, markdown_table, trust_table

_KINDS = {
    "hypothetical": "hypothetical pnictides, as handed to VASP (PBE)",
    "substitution": "species written onto a neighbour's lattice",
    "substitution_2d": "the same for single sheets",
    "functional": "PBE geometry to PBEsol or r2SCAN",
    "battery": "battery compounds on a neighbour's lattice",
    "heusler": "double half-Heuslers, likewise",
    "orderings": "orderings of alloys and cathodes on an ideal lattice",
    "exfoliation_2d": "a layer cut from its bulk crystal",
    "defects_and_hydrides": "five hydrides, two crystals relaxed in a fixed cell",
}
_SUMMARY_KINDS = 7
"""Of those, in the README."""
_FOUR = ("displacement", "bonds", "lattice", "volume")
_FIVE = ("coordinates", *_FOUR)


def _result(name: str, results: Path) -> dict[str, Any]:
    """A result without what it was made with."""
    found = store.measured(name, results)
    found.pop(store.MADE_WITH, None)
    return found


def _better(summary: Mapping[str, Any], measures: tuple[str, ...]) -> list[str]:
    found = [summary[measure]["better"] for measure in measures]
    return ["-" if value is None else f"{value:.1f}" for value in found]


def _rates(summary: Mapping[str, Any]) -> str:
    return f"{summary['match_rate']:.0f} ({summary['input_match_rate']:.0f})"


def test_summary(results: Path) -> str:
    """Improvements on the test split, for the README."""
    found = _result("test", results)
    rows = [
        [_KINDS[k], f"{found[k]['crystals']:,}", *_better(found[k], _FOUR), _rates(found[k])]
        for k in list(_KINDS)[:_SUMMARY_KINDS]
    ]
    return markdown_table(["%", "crystals", *_FOUR, "match rate (input's)"], rows)


def test_one_pass(results: Path) -> str:
    """Improvements on the test split."""
    found = _result("test", results)
    rows = [
        [f"`{k}`: {_KINDS[k]}", f"{e['crystals']:,}", *_better(e, _FIVE), _rates(e)]
        for k, e in found.items()
    ]
    header = ["better than the unrelaxed input by (%)", "crystals", *_FIVE, "match rate (input's)"]
    return markdown_table(header, rows)


def test_three_passes(results: Path) -> str:
    """The same with three passes."""
    found = _result("test-3-passes", results)
    rows = [[f"`{k}`", f"{e['crystals']:,}", *_better(e, _FIVE)] for k, e in found.items()]
    return markdown_table(["", "crystals", *_FIVE], rows)


def rivals_summary(results: Path) -> str:
    """Mean errors of the bonds of every contender on every set, the smallest in bold."""
    found = store.measured("accuracy", results)
    labels = [accuracy.INPUT, accuracy.OURS, *plan.KNOWN]
    labels = [label for label in labels if any(label in entry for entry in found.values())]
    rows = []
    for name in map(str, plan.DFT_SETS):
        if name not in found:
            continue
        means = {label: e["bonds"]["mean"] for label, e in found[name].items() if label in labels}
        least = f"{min(means.values()):.3f}"
        cells = [
            "" if label not in means else _bold(f"{means[label]:.3f}", least) for label in labels
        ]
        rows.append([name, str(found[name][accuracy.INPUT]["crystals"]), *cells])
    header = ["mean error of bond lengths / Å", "crystals", *map(title, labels)]
    return markdown_table(header, rows)


def _bold(text: str, least: str) -> str:
    return f"**{text}**" if text == least else text


def _mean_median(entry: Mapping[str, float], digits: int = 3) -> str:
    return f"{entry['mean']:.{digits}f}, {entry['median']:.{digits}f}"


def _of_sets(results: Path, sets: tuple[plan.Set, ...]) -> str:
    found = store.measured("accuracy", results)
    order = [accuracy.INPUT, accuracy.OURS, *plan.KNOWN]
    rows = []
    for name in map(str, sets):
        entries = found.get(name, {})
        for label, entry in ((label, entries[label]) for label in order if label in entries):
            symmetry, energy = entry["symmetry"], entry.get("energy")
            counts = (entry["failures"], entry.get("not_converged", 0))
            rows.append(
                [
                    f"{name}, {entry['crystals']}" if label == accuracy.INPUT else "",
                    title(label),
                    *(_mean_median(entry[m]) for m in ("displacement", "bonds", "lattice")),
                    f"{entry['match_rate']:.0f}",
                    _mean_median(entry["rmsd"]) if "rmsd" in entry else "",
                    *(f"{symmetry[key]['lost']:.0f}" for key in symmetry),
                    f"{next(iter(symmetry.values()))['as_dft']:.0f}",
                    "" if energy is None else f"{energy['close']:.0f}",
                    f"{entry['steps']:.0f}" if entry.get("steps") is not None else "",
                    ", ".join(map(str, counts)),
                ]
            )
    header = [
        "set, crystals",
        "mean, median error",
        "displacement / Å",
        "bonds / Å",
        "lattice / Å",
        "match rate / %",
        "RMSD",
        *(f"symmetry lost, {symprec:g} Å / %" for symprec in field.SYMPRECS),
        "as many operations as DFT / %",
        "within 5 meV/atom / %",
        "steps, median",
        "failed, not converged",
    ]
    return markdown_table(header, rows)


def kinds_table(results: Path) -> str:
    """Expected errors of kinds that were left out of the fit."""
    return kinds.table(store.measured("kinds", results)["kinds"])


BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "test-summary": test_summary,
    "test": test_one_pass,
    "test-3-passes": test_three_passes,
    "rivals-summary": rivals_summary,
    "rivals": lambda results: _of_sets(results, plan.DFT_SETS),
    "rivals-taught": lambda results: _of_sets(results, tuple(plan.TAUGHT_SETS)),
    "speed-sentence": run_tables.speed_sentence,
    "speed": run_tables.speed_table,
    "growth": run_tables.growth_table,
    "steps": run_tables.steps_table,
    "dft": run_tables.dft_energies,
    "dft-layers": run_tables.dft_layers,
    "clients": run_tables.clients_table,
    "kinds": kinds_table,
    "real-runs": lambda results: real.table(store.measured("real_runs", results)),
    "weights": card_tables.weights_table,
    "data": card_tables.data_table,
    "elements": card_tables.elements_seen,
    "test_improvement": lambda results: improvement_table(_result("test", results)),
    "test3_improvement": lambda results: improvement_table(_result("test-3-passes", results)),
    "taught_improvement": lambda results: improvement_table(_result("taught", results)),
    "test_trust": lambda results: trust_table(_result("test", results)),
    "ablation": lambda results: ablation_table(_result("ablation", results)),
    "solves": lambda results: solves_table(_result("solves", results)),
    "transfer_sheets": lambda results: transfer_table(
        _result("transfer", results)["sheets"], "sheets"
    ),
    "transfer_hydrides": lambda results: transfer_table(
        _result("transfer", results)["hydrides"], "hydrides"
    ),
}
"""By name; each makes its block of the folder of results."""
