"""The blocks of README, manual and model card that are made of measured numbers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from benchmarks import accuracy, clients, dft, field, kinds, plan, real, steps, store
from benchmarks.ablation import table as ablation_table
from benchmarks.rival import title
from benchmarks.solves import table as solves_table
from benchmarks.speed import SHOWN
from benchmarks.transfer import table as transfer_table
from deeprelax_ase.evaluation.tables import improvement_table, markdown_table, trust_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.weights_registry import available_weights, name_of

_HERE = Path(__file__).parent
_LICENCES = json.loads((_HERE / "sources.json").read_text())
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

_LARGE = 200
"""Atoms of a cell whose time and memory are listed."""


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


def speed_sentence(results: Path) -> str:
    """The two ratios that the README names."""
    ratio = store.measured("speed", results)["ratios"]["m3gnet"]
    return (
        f"**Speed**: {ratio['single']:.0f} times as fast as M3GNet one by one, "
        f"{ratio['batched']:.0f} times in batches (medians, one thread): [how](docs/accuracy.md)."
    )


def speed_table(results: Path) -> str:
    """Medians and ratios."""
    found = store.measured("speed", results)
    own = [c["seconds"][accuracy.OURS] for c in found["crystals"]]
    batched = [c["batched"] for c in found["crystals"]]
    rows = [
        [f"DeepRelax, {how}", f"{1000 * np.median(values):.1f} ms", *[""] * 4]
        for how, values in (("one by one", own), ("in batches", batched))
    ]
    for name, ratio in found["ratios"].items():
        shown = [f"{ratio[key]:.0f}" for key in SHOWN]
        rows.append([title(name), f"{ratio['median_seconds']:.2f} s", *shown])
    atoms = [c["atoms"] for c in found["crystals"]]
    header = [
        f"one thread, {len(own)} crystals of {min(atoms)} to {max(atoms)} atoms",
        "median",
        "ratio of medians, one by one",
        "of totals",
        "ratio of medians, in batches",
        "of totals",
    ]
    return markdown_table(header, rows)


def growth_table(results: Path) -> str:
    """Time and memory of large cells."""
    growth = store.measured("speed", results)["growth"]
    rows = [
        [f"{atoms:,}", f"{seconds:.2f} s", f"{memory / 1e6:.0f} MB"]
        for atoms, seconds, memory in zip(
            growth["sizes"], growth["seconds"][accuracy.OURS], growth["peak_memory"], strict=True
        )
        if atoms >= _LARGE
    ]
    return markdown_table(["atoms, strained and rattled MgO", "one thread", "most memory"], rows)


def steps_table(results: Path) -> str:
    """Steps from the input and from the prediction."""
    rows = []
    sources = store.measured("steps", results)
    by_dft = store.read("dft", results)
    if "relaxations" in by_dft:
        sources["hypothetical (PBE), the smallest"] = {dft.RIVAL: by_dft["relaxations"]}
    for name, rivals in sources.items():
        for rival, found in rivals.items():
            entry = steps.summarise(found)
            rows.append(
                [
                    name,
                    title(rival),
                    str(entry["crystals"]),
                    "{:g}, {:g}".format(*entry["steps_median"]),
                    "{:,}, {:,}".format(*entry["steps_total"]),
                    "{:.0f}, {:.0f}".format(*entry["above_median"]),
                    f"{entry['different_minimum']} ({entry['of_these_lower']})",
                    f"{entry['not_converged']}, {entry['failures']}",
                ]
            )
    header = [
        "from the input, from the prediction",
        "",
        "crystals",
        "steps, median",
        "steps, all",
        "start above end, median / meV/atom",
        "another minimum (lower)",
        "not converged, failed",
    ]
    return markdown_table(header, rows)


def dft_energies(results: Path) -> str:
    """Energies of single crystals by GPAW."""
    found = store.measured("dft", results)
    coarse, fine = (
        {entry["name"]: entry for entry in entries if "error" not in entry}
        for entries in (next(iter(found["energies"].values())), found["fine"])
    )
    predicted = dft.GEOMETRIES[1:]
    apart = max(abs(coarse[k][g] - fine[k][g]) for k in fine for g in predicted)
    given = max(abs(coarse[k]["input"] / (fine[k]["input"] or 1.0) - 1.0) for k in fine)
    is_same = all(_order(coarse[k]) == _order(fine[k]) for k in fine)
    text = (
        "With a cutoff of 600 eV in place of 400 and five k-points along an axis in place of three,"
        f" predictions of {len(fine)} crystals change by {apart:.1f} meV/atom at most, inputs by "
        f"{100 * given:.0f} %, and the order is {'the same' if is_same else 'another one'}."
    )
    return _with_origin(f"{dft.table(found)}\n\n{text}", found)


def _order(entry: Mapping[str, Any]) -> list[str]:
    return sorted(dft.GEOMETRIES, key=entry.__getitem__)


def _with_origin(text: str, found: Mapping[str, Any]) -> str:
    """A block, and what has to be said of a result of other weights."""
    others = sorted({w[:8] for w in store.weights_of(found) if w != store.shipped()["default"]})
    return f"{text}\n\nMeasured with earlier weights ({', '.join(others)})." if others else text


def clients_table(results: Path) -> str:
    """Calls of the potential with a stock optimizer and with ours."""
    found = store.measured("clients", results)
    rows = []
    for label, entry in found["clients"].items():
        name, *way = label.split()
        package = clients.PACKAGES.get(name, name)
        pins = found[store.MADE_WITH]["rivals"][f"clients/{clients.CLIENTS[name]}"]
        for file, s in entry.items():
            both = [s[f"calls_{who}"]["all"] for who in ("stock", "ours")]
            rows.append(
                [
                    f"{package} {pins[package]}",
                    clients.words(clients.Way(*way)),
                    f"`{file}`",
                    f"{s['crystals']} ({s['failed']})",
                    ", ".join(f"{calls:,.0f}" for calls in both),
                    str(s["same"]),
                    f"{s['lower']}, {s['higher']}",
                ]
            )
    header = [
        "client",
        "optimizer",
        "set",
        "crystals (failed)",
        "calls of CHGNet, all: stock, ours",
        f"same energy within {1000 * clients.SAME:g} meV/atom",
        "lower, higher",
    ]
    return _with_origin(markdown_table(header, rows), found)


def kinds_table(results: Path) -> str:
    """Expected errors of kinds that were left out of the fit."""
    return kinds.table(store.measured("kinds", results)["kinds"])


def _weights(_results: Path) -> str:
    rows = []
    for name in available_weights():
        weights = load_weights(name)
        provenance = weights.provenance
        start = provenance.get("start_from")
        origin = "random"
        if start:
            sha256 = start["sha256"]  # shipped under another name, it may be
            origin = f"{name_of(sha256) or start['name']} ({sha256[:8]})"
        rows.append(
            [
                f"`{name}`",
                weights.sha256[:8],
                f"{sum(p.numel() for p in weights.network.parameters()):,}",
                origin,
                f"{provenance['steps']:,}",
                f"{provenance['crystals']:,}",
                f"{provenance['hours']:.1f}",
            ]
        )
    header = ["", "SHA-256", "parameters", "started from", "steps", "crystals shown", "hours"]
    return markdown_table(header, rows)


def _data(_results: Path) -> str:
    rows = []
    for file, entry in load_weights("default").provenance["sources"].items():
        stem = Path(file).stem
        counts = [f"{entry['rows']:,}", f"{entry['passes']:g}"]
        taught = f"taught by {', '.join(entry.get('potentials', ()))} (`recipes/data`)"
        rows.append([f"`{stem}`", *counts, _LICENCES.get(stem, taught)])
    header = ["last stage", "pairs or crystals", "passes an epoch", "source and licence"]
    return markdown_table(header, rows)


def _elements(_results: Path) -> str:
    symbols = [chemical_symbols[z] for z in load_weights("default").provenance["elements"]]
    return f"`default` saw {len(symbols)}: {' '.join(symbols)}."


BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "test-summary": test_summary,
    "test": test_one_pass,
    "test-3-passes": test_three_passes,
    "rivals-summary": rivals_summary,
    "rivals": lambda results: _of_sets(results, plan.DFT_SETS),
    "rivals-taught": lambda results: _of_sets(results, tuple(plan.TAUGHT_SETS)),
    "speed-sentence": speed_sentence,
    "speed": speed_table,
    "growth": growth_table,
    "steps": steps_table,
    "dft": dft_energies,
    "clients": clients_table,
    "kinds": kinds_table,
    "real-runs": lambda results: real.table(store.measured("real_runs", results)),
    "weights": _weights,
    "data": _data,
    "elements": _elements,
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
