"""How many steps of a rival's relaxation are saved by starting from our prediction."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from tqdm import tqdm

from benchmarks.accuracy import our_move
from benchmarks.cases import Case, relaxed_atoms
from benchmarks.rival import Rival
from deeprelax_ase.evaluation.tables import markdown_table

_SAME_ENERGY = 10.0
"""Ends whose energies differ by more (meV/atom) are different minima."""


@dataclass(frozen=True)
class Comparison:
    """One crystal, relaxed by a rival from the input and from our prediction.

    Attributes:
        name: Of the case.
        atoms: Their number.
        steps: From the input, and from the prediction.
        seconds: The same.
        above: Energy of the start above that of the end, meV/atom; the same.
        ends_above: End of the relaxation from the prediction above that from the input, meV/atom.
        is_same: Whether both ends are the same minimum: StructureMatcher takes them for one
            structure and their energies differ by at most 10 meV/atom.
        converged: Whether both relaxations converged.
    """

    name: str
    atoms: int
    steps: tuple[int, int]
    seconds: tuple[float, float]
    above: tuple[float, float]
    ends_above: float
    is_same: bool
    converged: bool


def predicted(case: Case, passes: int = 1) -> Atoms:
    """Our relaxation of a case; the input where it was refused."""
    move = our_move(case, passes)
    return case.atoms if move is None else relaxed_atoms(case.pair, *move)


def compare(
    cases: Sequence[Case],
    rival: Rival,
    optimizer: str = "FIRE",
    options: Callable[[Case], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Relax every case twice with a rival.

    Args:
        cases: The crystals.
        rival: Whose potential it is.
        optimizer: Of ASE.
        options: For the rival's calculator, of a case; none: those of its functional.

    Raises:
        RivalError: Its process ended.
    """
    found, failures = [], 0
    for case in tqdm(cases, rival.name, file=sys.stderr):
        own = rival.options(case.pair.functional) if options is None else options(case)
        starts = (case.atoms, predicted(case))
        runs = [rival.relax(start, optimizer, own, case.strains) for start in starts]
        if any("error" in run for run in runs):
            failures += 1
            continue
        found.append(_comparison(case, runs))
    return {"failures": failures, "crystals": [asdict(entry) for entry in found]}


def _comparison(case: Case, runs: Sequence[Mapping[str, Any]]) -> Comparison:
    raw, ours = runs
    count = len(case.atoms)
    scale = 1000 / count
    ends_above = (ours["energies"][-1] - raw["energies"][-1]) * scale
    ends = [_structure(case.atoms, run) for run in runs]
    return Comparison(
        name=case.name,
        atoms=count,
        steps=(raw["steps"], ours["steps"]),
        seconds=(raw["seconds"], ours["seconds"]),
        above=(
            (raw["energies"][0] - raw["energies"][-1]) * scale,
            (ours["energies"][0] - ours["energies"][-1]) * scale,
        ),
        ends_above=ends_above,
        is_same=abs(ends_above) <= _SAME_ENERGY and _is_one(*ends),
        converged=bool(raw["converged"] and ours["converged"]),
    )


def _is_one(one: Structure, other: Structure) -> bool:
    """Whether two ends are one structure, also where pymatgen finds no reduced cell, of a slab."""
    try:
        return bool(StructureMatcher().fit(one, other))
    except ValueError:
        return bool(StructureMatcher().fit(one, other, skip_structure_reduction=True))


def _structure(atoms: Atoms, run: Mapping[str, Any]) -> Any:
    end = Atoms(atoms.numbers, run["positions"], cell=run["cell"], pbc=atoms.pbc)
    return AseAtomsAdaptor.get_structure(end)


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Medians and sums over the crystals of one rival."""
    crystals = found["crystals"]
    if not crystals:
        return {"crystals": 0, "failures": found["failures"]}
    steps, seconds, above = (
        np.array([c[k] for c in crystals]) for k in ("steps", "seconds", "above")
    )
    same = np.array([c["is_same"] for c in crystals])
    lower = np.array([c["ends_above"] for c in crystals]) < -_SAME_ENERGY
    return {
        "crystals": len(crystals),
        "failures": found["failures"],
        "not_converged": sum(not c["converged"] for c in crystals),
        "steps_median": np.median(steps, axis=0).tolist(),
        "steps_total": steps.sum(axis=0).tolist(),
        "seconds_total": seconds.sum(axis=0).tolist(),
        "above_median": np.median(above, axis=0).tolist(),
        "above_mean": above.mean(axis=0).tolist(),
        "different_minimum": int((~same).sum()),
        "of_these_lower": int((~same & lower).sum()),
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a rival: from the input, and from the prediction."""
    header = [
        "from the input, from the prediction",
        "crystals",
        "steps, median",
        "steps, all",
        "seconds, all",
        "start above end, median / meV/atom",
        "start above end, mean / meV/atom",
        "another minimum (of these lower)",
        "not converged",
        "failures",
    ]
    rows = []
    for name, found in results.items():
        entry = summarise(found)
        if not entry["crystals"]:
            rows.append([name, "0", *[""] * (len(header) - 3), str(entry["failures"])])
            continue
        rows.append(
            [
                name,
                str(entry["crystals"]),
                "{:g}, {:g}".format(*entry["steps_median"]),
                "{:,}, {:,}".format(*entry["steps_total"]),
                "{:.0f}, {:.0f}".format(*entry["seconds_total"]),
                "{:.1f}, {:.1f}".format(*entry["above_median"]),
                "{:.1f}, {:.1f}".format(*entry["above_mean"]),
                f"{entry['different_minimum']} ({entry['of_these_lower']})",
                str(entry["not_converged"]),
                str(entry["failures"]),
            ]
        )
    return markdown_table(header, rows)
