"""The blocks of time, steps and energies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy, clients, dft, steps, store
from benchmarks.rival import title
from benchmarks.speed import SHOWN
from deeprelax_ase.evaluation.tables import markdown_table

_LARGE = 200
"""Atoms of a cell whose time and memory are listed."""


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
    for group, found in by_dft.get("relaxations", {}).items():
        sources[f"the smallest of `{dft.GROUPS[group][0]}`"] = {dft.RIVAL: found}
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


def dft_layers(results: Path) -> str:
    """Distances between layers by GPAW with D3."""
    found = store.measured("dft", results)
    return _with_origin(dft.layers_table(found["layers"]), found)


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
