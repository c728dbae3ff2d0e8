"""The same with density functional theory: GPAW's steps saved, and energies (Fig. 4 b, d, f)."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from benchmarks import steps
from benchmarks.cases import Case, choose_cases
from benchmarks.rival import Rival
from deeprelax_ase.evaluation.tables import markdown_table

RIVAL = "gpaw"
OPTIMIZER = "BFGS"
RELAXATIONS, ENERGIES = 8, 30
_SPACING = 20.0
"""Number of k-points along an axis, times the length of the axis in Å."""


def cheapest_cases(path: Path, count: int, sizes: tuple[int, int] = (2, 8)) -> list[Case]:
    """Those pairs of the validation split that DFT is quickest for, by atoms times k-points.

    Crystals of equal cost come in an order that is the same every time and has no meaning.
    """

    def cost(case: Case) -> tuple[float, str]:
        points = float(np.prod(mesh(case.atoms)))
        return len(case.atoms) * points, hashlib.sha256(case.name.encode()).hexdigest()

    return sorted(choose_cases(path, None, sizes=sizes), key=cost)[:count]


def mesh(atoms: Atoms) -> list[int]:
    """k-points along each axis."""
    return [max(1, round(_SPACING / length)) for length in atoms.cell.lengths()]


def measure(
    path: Path, rival: Rival, num_relaxations: int = RELAXATIONS, num_energies: int = ENERGIES
) -> dict[str, Any]:
    """Energies and steps of the crystals of a file that are quickest.

    Raises:
        RivalError: The process of the rival ended.
    """
    cases = cheapest_cases(path, max(num_relaxations, num_energies))
    return {
        "relaxations": relaxations(cases[:num_relaxations], rival),
        "energies": energies(cases[:num_energies], rival),
    }


def energies(cases: Sequence[Case], rival: Rival) -> list[dict[str, Any]]:
    """Energies (meV/atom) of input and prediction above the relaxed crystal of the data set.

    Raises:
        RivalError: Its process ended.
    """
    found = []
    for case in tqdm(cases, f"{rival.name}, energies", file=sys.stderr):
        geometries = (case.target, case.atoms, steps.predicted(case))
        options = {"kpts": mesh(case.atoms)}
        answers = [rival.ask("energy", atoms, options=options) for atoms in geometries]
        entry: dict[str, Any] = {"name": case.name, "atoms": len(case.atoms)}
        reasons = [answer["error"] for answer in answers if "error" in answer]
        if reasons:
            entry["error"] = reasons[0]
        else:
            relaxed, before, ours = (1000 * a["energy"] / len(case.atoms) for a in answers)
            entry |= {
                "input": before - relaxed,
                "prediction": ours - relaxed,
                "largest_forces": [answer["largest_force"] for answer in answers],
            }
        found.append(entry)
    return found


def relaxations(cases: Sequence[Case], rival: Rival) -> dict[str, Any]:
    """Ionic steps from the input and from the prediction, see `steps.compare`."""
    return steps.compare(cases, rival, OPTIMIZER, lambda case: {"kpts": mesh(case.atoms)})


def table(found: Sequence[dict[str, Any]]) -> str:
    """Energies above the relaxed crystal: mean, median and 90th percentile."""
    known = [entry for entry in found if "error" not in entry]
    rows = []
    for name in ("input", "prediction"):
        values = np.array([entry[name] for entry in known])
        rows.append(
            [
                name,
                str(len(values)),
                f"{values.mean():.1f}",
                f"{np.median(values):.1f}",
                f"{np.percentile(values, 90):.1f}",
                str(len(found) - len(known)),
            ]
        )
    header = [
        "GPAW, energy above the relaxed crystal / meV/atom",
        "crystals",
        "mean",
        "median",
        "90th percentile",
        "failures",
    ]
    return markdown_table(header, rows)
