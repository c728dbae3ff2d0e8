"""The same with density functional theory: GPAW's energies and ionic steps (Fig. 4 b, d, f)."""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.analysis.dimensionality import get_structure_components
from pymatgen.analysis.graphs import StructureGraph
from pymatgen.analysis.local_env import CrystalNN
from pymatgen.io.ase import AseAtomsAdaptor
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
RELAXATIONS: Mapping[str, int] = {"bulk": 16, "slab": 1}
"""Crystals of these groups that are relaxed."""
CONVERGED = 2
"""Crystals of the first group whose energies are computed with the finer settings, too."""
LAYERED = ("layered", "PBE-D3")
"""File of pairs and functional of the layered crystals."""
WAYS = ("input", "prediction", "data", "relaxed")
LAYERS = 5
"""Layered crystals whose distance between layers is computed."""
_ATOMS = (2, 16)
_SPACING, _FINE_SPACING = 15.0, 25.0
"""Number of k-points along an axis, times the length of the axis in Å."""
_OBLIQUE = 0.8
"""The same times the distance between lattice planes, in shares of those."""
_FINE_CUTOFF = 600.0
"""eV"""
_FLAT = 2
"""Dimensionality of a layer."""
_SOFT_FMAX = 0.02
"""eV/Å, where dispersion holds layers together"""
_SOFT_STEPS = 40
"""Steps in which such a relaxation has to end."""
_OPEN_SHELLS = frozenset({*range(24, 29), *range(58, 72), *range(90, 104)})
"""Atomic numbers from Cr to Ni, from Ce to Lu and from Th to Lr."""
GEOMETRIES = ("input", "prediction", "three passes")


def measure(
    folder: Path,
    rival: Rival,
    keep: Callable[[dict[str, Any]], None],
    before: Mapping[str, Any] | None = None,
) -> None:
    """Energies of every group, relaxations, and whether the settings are converged.

    Args:
        folder: Of the files of pairs.
        rival: GPAW.
        keep: Called with everything found so far after each crystal of a group and each part.
        before: What is known with these weights: crystals in there are not computed again.

    Raises:
        RivalError: The process of the rival ended.
        ValueError: A file of pairs is missing, or holds no fitting crystal.
    """
    before, first = before or {}, next(iter(GROUPS))
    found: dict[str, Any] = {**before, "energies": {**before.get("energies", {})}, "whole": False}
    for name in GROUPS:
        cases = _cases_of(folder, name, ENERGIES)
        entries, missing = _known_of(found["energies"].get(name, ()), cases)
        found["energies"][name] = entries
        for case in tqdm(missing, name, file=sys.stderr):
            entries.append(energies(case, rival))
            keep(found)
        if name == first and not _is_of(found.get("fine", ()), cases[:CONVERGED]):
            found["fine"] = [energies(case, rival, is_fine=True) for case in cases[:CONVERGED]]
            keep(found)
    cases = layered_cases(folder)
    if not _is_of(found.get("layers", ()), cases):
        found["layers"] = layers(cases, rival)
        keep(found)
    found["relaxations"] = {**before.get("relaxations", {})}
    for name, count in RELAXATIONS.items():
        cases = _cases_of(folder, name, count)
        known = found["relaxations"].get(name, {}).get("crystals", ())
        entries, missing = _known_of(known, cases)
        group = found["relaxations"][name] = {"failures": 0, "crystals": entries}
        for case in missing:
            one = steps.compare([case], rival, OPTIMIZER, _relaxation_options)
            group["failures"] += one["failures"]
            entries += one["crystals"]
            keep(found)
    found["whole"] = True
    keep(found)


def _cases_of(folder: Path, name: str, count: int) -> list[Case]:
    file, functional = GROUPS[name]
    return cheapest_cases(folder / f"{file}.parquet", count, functional)


def _known_of(
    known: Sequence[dict[str, Any]], cases: Sequence[Case]
) -> tuple[list[dict[str, Any]], list[Case]]:
    """Entries of these crystals, and the crystals without one."""
    entries = [entry for entry in known if entry["name"] in {case.name for case in cases}]
    names = {entry["name"] for entry in entries}
    return entries, [case for case in cases if case.name not in names]


def _is_of(entries: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> bool:
    """Whether entries are of these crystals, or of some of them and the others failed."""
    names = {entry["name"] for entry in entries}
    return bool(names) and names <= {case.name for case in cases}


def cheapest_cases(path: Path, count: int | None, functional: str | None = None) -> list[Case]:
    """Those pairs of the validation split that DFT is quickest for: volume, atoms and k-points.

    One of a formula, and none with the f electrons or the magnetic 3d electrons that spin-paired
    DFT without U says little of. Crystals of equal cost come in an order that is the same every
    time and has no meaning.
    """

    def cost(case: Case) -> tuple[float, str]:
        size = len(case.atoms) * case.atoms.get_volume() * float(np.prod(mesh(case.atoms)))
        return size, hashlib.sha256(case.name.encode()).hexdigest()

    cases = choose_cases(path, None, sizes=_ATOMS, functional=functional)
    chosen: dict[str, Case] = {}
    for case in sorted(
        (case for case in cases if not _OPEN_SHELLS & set(case.atoms.numbers)), key=cost
    ):
        chosen.setdefault(case.atoms.get_chemical_formula(), case)
    return list(chosen.values())[:count]


def layered_cases(folder: Path) -> list[Case]:
    """The cheapest crystals whose bonds make nothing but layers, one of a compound."""
    file, functional = LAYERED
    chosen: dict[str, Case] = {}
    for case in cheapest_cases(folder / f"{file}.parquet", None, functional):
        compound = AseAtomsAdaptor.get_structure(case.target).composition.reduced_formula
        if compound not in chosen and case.atoms.pbc.all() and _layers_of(case.target):
            chosen[compound] = case
        if len(chosen) == LAYERS:
            break
    return list(chosen.values())


def mesh(atoms: Atoms, spacing: float = _SPACING) -> list[int]:
    """k-points along each axis; one across vacuum."""
    planes = np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    points = np.round(spacing * np.maximum(1 / atoms.cell.lengths(), _OBLIQUE * planes))
    return [max(1, int(n)) for n in np.where(atoms.pbc, points, 1)]


def energies(case: Case, rival: Rival, *, is_fine: bool = False) -> dict[str, Any]:
    """Energies (meV/atom) of input and predictions above the relaxed crystal of the data set.

    Args:
        case: The crystal.
        rival: GPAW.
        is_fine: Whether with more k-points and plane waves.

    Returns:
        `name`, `atoms` and the energy of each of `GEOMETRIES`; or `error`.

    Raises:
        RivalError: Its process ended.
    """
    options = _options(case)
    if is_fine:
        options |= {"kpts": mesh(case.atoms, _FINE_SPACING), "cutoff": _FINE_CUTOFF}
    answers = [rival.ask("energy", atoms, options=options) for atoms in _geometries(case)]
    entry: dict[str, Any] = {"name": case.name, "atoms": len(case.atoms)}
    reasons = [answer["error"] for answer in answers if "error" in answer]
    if reasons:
        return entry | {"error": reasons[0]}
    relaxed, *others = (1000 * answer["energy"] / len(case.atoms) for answer in answers)
    return entry | {k: e - relaxed for k, e in zip(GEOMETRIES, others, strict=True)}


def layers(cases: Sequence[Case], rival: Rival) -> list[dict[str, Any]]:
    """Distances between layers (Å): given, predicted, and where DFT with D3 ends (Sec. 2.5).

    It starts from the prediction, with the finer cutoff: at the other one, the stress of LiF is six
    times what energies say.

    Args:
        cases: Layered crystals.
        rival: GPAW.

    Returns:
        By crystal `name`, `formula`, the distance of `input`, `prediction`, `data` and `relaxed`,
        and `steps`; or `error`.

    Raises:
        RivalError: Its process ended.
    """
    found = []
    for case in tqdm(cases, "layers", file=sys.stderr):
        start = steps.predicted(case, passes=3)
        run = rival.relax(
            start, OPTIMIZER, _relaxation_options(case), fmax=_SOFT_FMAX, steps=_SOFT_STEPS
        )
        entry = {"name": case.name, "formula": case.atoms.get_chemical_formula(empirical=True)}
        if not run.get("converged"):
            reason = run.get("error", f"not converged in {_SOFT_STEPS} steps")
            found.append(entry | {"error": reason})
            continue
        end = Atoms(start.numbers, run["positions"], cell=run["cell"], pbc=True)
        plane, count = _layers_of(case.target) or (None, 0)
        if _layers_of(end) != (plane, count):
            found.append(entry | {"error": "it ends without these layers"})
            continue
        spacings = [
            AseAtomsAdaptor.get_structure(atoms).lattice.d_hkl(plane) / count
            for atoms in (case.atoms, start, case.target, end)
        ]
        found.append(entry | dict(zip(WAYS, spacings, strict=True)) | {"steps": run["steps"]})
    return found


def _layers_of(atoms: Atoms) -> tuple[tuple[int, ...], int] | None:
    """The lattice plane that all bonded parts of a crystal are layers along, and their number."""
    structure = AseAtomsAdaptor.get_structure(atoms)
    graph = StructureGraph.from_local_env_strategy(structure, CrystalNN())
    parts = get_structure_components(graph, inc_orientation=True)
    planes = {tuple(int(k) for k in part["orientation"] or ()) for part in parts}
    if len(planes) > 1 or any(part["dimensionality"] != _FLAT for part in parts):
        return None
    return planes.pop(), len(parts)


def _options(case: Case) -> dict[str, Any]:
    return {"kpts": mesh(case.atoms), "functional": case.pair.functional}


def _relaxation_options(case: Case) -> dict[str, Any]:
    """A cell that changes needs the finer cutoff: its stress converges later than energies do."""
    finer = {"cutoff": _FINE_CUTOFF} if any(case.strains) else {}
    return _options(case) | finer


def _geometries(case: Case) -> list[Atoms]:
    """The relaxed crystal, the input, and our predictions in one pass and in three."""
    return [case.target, case.atoms, steps.predicted(case), steps.predicted(case, passes=3)]


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


def layers_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Distances between layers by crystal, and how far each way is from DFT's on average."""
    known = [entry for entry in found if "error" not in entry]
    rows = [[entry["formula"], *(f"{entry[way]:.3f}" for way in WAYS)] for entry in known]
    if known:
        apart = [
            np.mean([abs(entry[way] - entry[WAYS[-1]]) for entry in known]) for way in WAYS[:-1]
        ]
        rows.append([f"mean error of {len(known)}", *(f"{error:.3f}" for error in apart), ""])
    failed = [
        [entry["formula"], *[""] * (len(WAYS) - 1), entry["error"]]
        for entry in found
        if "error" in entry
    ]
    header = ["distance between layers / Å", "input", "three passes", "data set", "GPAW, PBE-D3"]
    return markdown_table(header, rows + failed)
