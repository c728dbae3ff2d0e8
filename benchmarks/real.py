"""What the shipped weights make of relaxations that nobody here made, case by case.

The cases are those of `benchmarks/real_runs`, whose README says where they are from. Each is
relaxed once, through the same door as a user's structure, and compared with its target.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import store
from benchmarks.cases import Case, Move, measure, still
from deeprelax_ase.evaluation.metrics import better
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import shared_relaxer
from deeprelax_ase.structures.crystal import exp_symmetric
from deeprelax_ase.structures.read_structure import held_structure

FOLDER = Path(__file__).parent / "real_runs"
PAIRS = FOLDER / "pairs.parquet"
MEASURES = ("displacement", "bonds", "lattice", "volume")
LICENSES = frozenset({"MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0"})
_HARM = 0.005
_HARM_SHARE = 0.05


@dataclass(frozen=True)
class Source:
    """Where one case is from.

    Attributes:
        package: Name of the sdist.
        version: Of the sdist.
        path: Of the run folder or output in the sdist.
        license: Of the package, as an SPDX identifier.
        code: That made the run.
        functional: As the output states it; the weights may not know it.
        held: What the importer read as held.
        kind: Bulk, defect, or sheet or slab.
    """

    package: str
    version: str
    path: str
    license: str
    code: str
    functional: str
    held: str
    kind: str


Verdict = Literal["nearer", "harmed", "unchanged", "about equal"]


def read_sources() -> dict[str, Source]:
    """Source of every case, by its id."""
    entries = json.loads((FOLDER / "sources.json").read_text())
    return {name: Source(**entry) for name, entry in entries.items()}


def relax_cases(cases: Iterable[Case]) -> dict[str, Any]:
    """Relax every case in one pass and measure the errors of the input and of the result.

    Args:
        cases: Of `pairs.parquet`. Each is relaxed to its own functional.
    """
    sources = read_sources()
    entries = []
    for case in cases:
        pair = case.pair
        functional: Any = pair.functional
        relaxer = shared_relaxer(RelaxOptions(functional=functional, allow_unseen=True))
        (result,) = relaxer.relax_many([held_structure(pair.crystal)])
        moved = still(case)
        if result.bonds is not None:
            moved = result.displacement, exp_symmetric(result.strain)
        source = sources[case.name]
        entries.append(
            {
                "name": case.name,
                "formula": case.atoms.get_chemical_formula(),
                "kind": source.kind,
                "atoms": len(case.atoms),
                "code": source.code,
                "functional": source.functional,
                "relaxed_to": pair.functional,
                "held": source.held,
                "status": result.status,
                "input": _errors(case, still(case)),
                "result": _errors(case, moved),
                "expected_error": _number(result.expected_error),
                "gain_probability": _number(result.gain_probability),
                "notes": [note.code for note in result.notes],
            }
        )
    for entry in entries:
        entry["verdict"] = verdict(entry)
    return {
        "cases": entries,
        "totals": totals(entries),
        store.MADE_WITH: {"weights": store.shipped()["default"]},
    }


def verdict(entry: Mapping[str, Any]) -> Verdict:
    """Say whether a case was harmed: bonds worse by more than 0.005 Å and 5 % of the input's."""
    before, after = entry["input"]["bonds"], entry["result"]["bonds"]
    if entry["status"] != "relaxed":
        return "unchanged"
    if after - before > max(_HARM, _HARM_SHARE * before):
        return "harmed"
    return "nearer" if after < before else "about equal"


def totals(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what became of the cases, and by how much their mean errors got smaller."""
    verdicts = [entry["verdict"] for entry in entries]
    means = {
        side: {name: float(np.mean([e[side][name] for e in entries])) for name in MEASURES}
        for side in ("input", "result")
    }
    return {
        "cases": len(entries),
        "nearer": verdicts.count("nearer"),
        "harmed": verdicts.count("harmed"),
        "about_equal": verdicts.count("about equal"),
        "unchanged": verdicts.count("unchanged"),
        **means,
        "better": {
            name: _number(better(means["result"][name], means["input"][name])) for name in MEASURES
        },
    }


def table(found: Mapping[str, Any]) -> str:
    """A row for each case and one of totals, in Markdown."""
    header = [
        "run",
        "kind",
        "atoms",
        "functional",
        "held",
        "displacement / Å",
        "bonds / Å",
        "lattice / Å",
        "volume / Å³",
        "expected error / Å",
        "probability of a gain",
        "what became of it",
    ]
    rows = [
        [
            f"{entry['formula']}, {entry['name'].partition('/')[0].replace('-', ' ')}",
            entry["kind"],
            str(entry["atoms"]),
            entry["functional"],
            entry["held"],
            *(_both(entry, name) for name in MEASURES),
            _shown(entry["expected_error"], 3),
            _shown(entry["gain_probability"], 2),
            entry["verdict"] if entry["status"] in ("relaxed", "unchanged") else entry["status"],
        ]
        for entry in found["cases"]
    ]
    total = found["totals"]
    counts = ", ".join(
        f"{total[name.replace(' ', '_')]} {name}"
        for name in ("nearer", "harmed", "about equal", "unchanged")
    )
    means = [
        f"{_both(total, name)}{'' if gain is None else f', {gain:+.0f} %'}"
        for name, gain in total["better"].items()
    ]
    rows.append([f"all {total['cases']}, mean", "", "", "", "", *means, "", "", counts])
    return markdown_table(header, rows)


def _errors(case: Case, move: Move) -> dict[str, float]:
    """Errors of the input of a case after a move."""
    measures = measure([case.pair], [move]).measures()
    return {name: float(measures[name][0]) for name in MEASURES}


def _both(entry: Mapping[str, Any], name: str) -> str:
    """An error before and after."""
    return f"{entry['input'][name]:.3f} → {entry['result'][name]:.3f}"


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
