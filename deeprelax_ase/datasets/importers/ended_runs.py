"""Say why the last structure of a run is not relaxed, as far as its files tell."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import Trajectory
from monty.io import zopen
from monty.os.path import zpath

from deeprelax_ase.files.file_text import is_compressed
from deeprelax_ase.files.incar_text import logical, number_of_tag, read_tags, text_of
from deeprelax_ase.files.vasp_calculation import HELD_BY_ISIF

_RELAXATIONS = (1, 2, 3)
_OURS = "DeepRelaxOptimizer"
_IONIC_STEP = re.compile(r"^\s*(\d+)\s+F=", re.MULTILINE)
END_OF_OUTCAR = "General timing and accounting informations for this job"
_TAIL = 20_000
"""Bytes at the end of an OUTCAR in which that stands."""
_NEARLY = 1.001


def why_vasprun_is_none(run: Any) -> str | None:
    """Why the end of a pymatgen `Vasprun` is no relaxed structure, or None."""
    tags = {**run.parameters, **run.incar}
    kind, steps = run.parameters.get("IBRION", -1), run.parameters.get("NSW", 0)
    if kind not in _RELAXATIONS or steps <= 0:
        return f"it is no relaxation (IBRION = {kind}, NSW = {steps})"
    if tags.get("IMAGES"):
        return f"it is an image of a path (IMAGES = {tags['IMAGES']})"
    if steps == 1 or not run.converged_ionic:  # to pymatgen, one step is always converged
        return f"it used up its {steps} ionic steps: it is not relaxed"
    return _why_tags_make_none(tags)


def why_run_is_none(folder: Path) -> str | None:
    """Why the CONTCAR of a folder is no relaxed structure, by the files beside it, or None."""
    incar = folder / "INCAR"
    tags = read_tags(text_of(incar) or "", incar)
    steps = [int(number) for number in _IONIC_STEP.findall(text_of(folder / "OSZICAR") or "")]
    if steps and max(steps) >= number_of_tag(incar, tags, "NSW", math.inf):
        return f"it used up its {max(steps)} ionic steps: it is not relaxed"
    outcar = Path(zpath(str(folder / "OUTCAR")))
    if outcar.is_file() and not has_ended(outcar):
        return "its OUTCAR has no end: it was killed, or is running"
    deciding = ("PSTRESS", "ICHAIN", "ISIF")
    numbers = {name: number_of_tag(incar, tags, name, 0.0) for name in deciding}
    held = {"LATTICE_CONSTRAINTS": tags.get("LATTICE_CONSTRAINTS", "")}
    return _why_tags_make_none({**numbers, **held})


def has_ended(outcar: Path) -> bool:
    """Whether an OUTCAR, which may be compressed, is that of a job that came to its end."""
    with zopen(outcar, "rb") as stream:
        if not is_compressed(outcar):
            stream.seek(max(0, outcar.stat().st_size - _TAIL))
        return END_OF_OUTCAR.encode() in stream.read()


def why_trajectory_is_none(path: Path) -> str | None:
    """Why the last frame of a .traj of ASE is no relaxed structure, or None."""
    if path.suffix != ".traj":
        return None
    with Trajectory(path) as trajectory:
        description = trajectory.description or {}
        last = trajectory[-1] if len(trajectory) else None
        steps = len(trajectory) - 1
    if description.get("optimizer") == _OURS:
        return f"it ends where {_OURS} predicts that it would be relaxed"
    if description.get("type") == "molecular-dynamics":
        return "it is molecular dynamics"
    most = description.get("max_steps")
    if isinstance(most, int) and 0 < most <= steps:  # forces do not tell whether a cell is relaxed
        return f"it used up its {most} steps: it is not relaxed"
    limit = description.get("fmax")
    largest = _largest_force(last)
    if largest is not None and isinstance(limit, int | float) and largest > _NEARLY * limit:
        return f"its last forces are up to {largest:.2g} eV/Å, above its fmax of {limit:g}"
    return None


def _largest_force(atoms: Any) -> float | None:
    """The largest force (eV/Å) that is stored with atoms, constraints applied; None without any."""
    if atoms is None or atoms.calc is None or atoms.calc.results.get("forces") is None:
        return None
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def _why_tags_make_none(tags: Mapping[str, Any]) -> str | None:
    if tags.get("PSTRESS"):
        return f"it is under pressure (PSTRESS = {tags['PSTRESS']:g} kB)"
    if tags.get("ICHAIN"):
        return f"it is a search for a saddle point (ICHAIN = {tags['ICHAIN']:g})"
    held = HELD_BY_ISIF.get(tags.get("ISIF", 2), "cell")
    if "positions" in held:
        return f"its atoms keep their fractional coordinates (ISIF = {tags['ISIF']:g})"
    if held not in ("cell", "nothing"):
        return f"its {held} is held (ISIF = {tags['ISIF']:g}), and pairs know whole cells alone"
    if held == "nothing" and _holds_some(tags.get("LATTICE_CONSTRAINTS", ())):
        return "a part of its cell is held (LATTICE_CONSTRAINTS), and pairs know whole cells alone"
    return None


def _holds_some(constraints: Any) -> bool:
    """Whether LATTICE_CONSTRAINTS, a text or its parts, holds a direction."""
    words = constraints.split() if isinstance(constraints, str) else constraints
    return any(logical(str(word)) is False for word in words)
