"""The same with density functional theory: GPAW's energies and ionic steps (Fig. 4 b, d, f)."""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
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
GROUPS: Mapping[str, tuple[str, str]] = {
    "bulk": ("hypothetical", "PBE"),
    "bulk, PBEsol": ("functional", "PBEsol"),
    "sheet": ("substitution_2d", "PBE"),
    "slab": ("slabs", "PBE"),
    "inserted ion": ("ions", "PBE"),
}
"""Kinds of crystals, each with the file of pairs and the functional."""
ENERGIES = 12
"""Crystals of a group."""
RELAXATIONS = 16
"""Crystals of the first group."""
CONVERGED = 2
"""Crystals of the first group whose energies are computed with the finer settings, too."""
_ATOMS = (2, 16)
_SPACING, _FINE_SPACING = 15.0, 25.0
"""Number of k-points along an axis, times the length of the axis in Å."""
_FINE_CUTOFF = 600.0
"""eV"""
_F_ELEMENTS = frozenset({*range(58, 72), *range(90, 104)})
"""Atomic numbers from Ce to Lu and from Th to Lr."""
GEOMETRIES = ("input", "prediction", "three passes")


def measure(folder: Path, rival: Rival, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Energies of every group, relaxations of the first, and whether the settings are converged.

    Args:
        folder: Of the files of pairs.
        rival: GPAW.
        keep: Called with everything found so far after each part.

    Raises:
        RivalError: The process of the rival ended.
        ValueError: A file of pairs is missing, or holds no fitting crystal.
    """
    found: dict[str, Any] = {"energies": {}}
    for name, (file, functional) in GROUPS.items():
        cases = cheapest_cases(folder / f"{file}.parquet", ENERGIES, functional)
        found["energies"][name] = energies(cases, rival)
        if "fine" not in found:
            found["fine"] = energies(cases[:CONVERGED], rival, is_fine=True)
        keep(found)
    file, functional = next(iter(GROUPS.values()))
    first = cheapest_cases(folder / f"{file}.parquet", RELAXATIONS, functional)
    found["relaxations"] = steps.compare(
        first, rival, OPTIMIZER, lambda case: {"kpts": mesh(case.atoms)}
    )
    found["whole"] = True
    keep(found)
    return found


def cheapest_cases(path: Path, count: int, functional: str | None = None) -> list[Case]:
    """Those pairs of the validation split that DFT is quickest for: volume, atoms and k-points.

    One of a formula, and none with f electrons, which spin-paired DFT without U says little of.
    Crystals of equal cost come in an order that is the same every time and has no meaning.
    """

    def cost(case: Case) -> tuple[float, str]:
        size = len(case.atoms) * case.atoms.get_volume() * float(np.prod(mesh(case.atoms)))
        return size, hashlib.sha256(case.name.encode()).hexdigest()

    cases = choose_cases(path, None, sizes=_ATOMS, functional=functional)
    chosen: dict[str, Case] = {}
    for case in sorted(
        (case for case in cases if not _F_ELEMENTS & set(case.atoms.numbers)), key=cost
    ):
        chosen.setdefault(case.atoms.get_chemical_formula(), case)
    return list(chosen.values())[:count]


def mesh(atoms: Atoms, spacing: float = _SPACING) -> list[int]:
    """k-points along each axis; one across vacuum."""
    points = [max(1, round(spacing / length)) for length in atoms.cell.lengths()]
    return [n if periodic else 1 for n, periodic in zip(points, atoms.pbc, strict=True)]


def energies(cases: Sequence[Case], rival: Rival, *, is_fine: bool = False) -> list[dict[str, Any]]:
    """Energies (meV/atom) of input and predictions above the relaxed crystal of the data set.

    Args:
        cases: The crystals.
        rival: GPAW.
        is_fine: Whether with more k-points and plane waves.

    Returns:
        By crystal `name`, `atoms` and the energy of each of `GEOMETRIES`; or `error`.

    Raises:
        RivalError: Its process ended.
    """
    found = []
    for case in tqdm(cases, f"{rival.name}, energies", file=sys.stderr):
        options: dict[str, Any] = {"kpts": mesh(case.atoms), "functional": case.pair.functional}
        if is_fine:
            options |= {"kpts": mesh(case.atoms, _FINE_SPACING), "cutoff": _FINE_CUTOFF}
        answers = [
            rival.ask("energy", _periodic(atoms), options=options) for atoms in _geometries(case)
        ]
        entry: dict[str, Any] = {"name": case.name, "atoms": len(case.atoms)}
        reasons = [answer["error"] for answer in answers if "error" in answer]
        if reasons:
            entry["error"] = reasons[0]
        else:
            relaxed, *others = (1000 * a["energy"] / len(case.atoms) for a in answers)
            entry |= {k: e - relaxed for k, e in zip(GEOMETRIES, others, strict=True)}
        found.append(entry)
    return found


def _geometries(case: Case) -> list[Atoms]:
    """The relaxed crystal, the input, and our predictions in one pass and in three."""
    return [case.target, case.atoms, steps.predicted(case), steps.predicted(case, passes=3)]


def _periodic(atoms: Atoms) -> Atoms:
    """Plane waves repeat along every axis."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def table(found: Mapping[str, Any]) -> str:
    """Energies above the relaxed crystal, by group: mean and median."""
    rows = []
    for name, entries in found["energies"].items():
        known = [entry for entry in entries if "error" not in entry]
        cells = []
        for geometry in GEOMETRIES:
            values = np.array([entry[geometry] for entry in known])
            cells.append(f"{values.mean():.1f}, {np.median(values):.1f}" if known else "")
        rows.append([name, str(len(known)), *cells, str(len(entries) - len(known))])
    header = ["meV/atom above the relaxed crystal: mean, median", "crystals", *GEOMETRIES, "failed"]
    return markdown_table(header, rows)
