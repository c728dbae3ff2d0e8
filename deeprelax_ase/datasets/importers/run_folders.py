"""Where runs of VASP and of ASE keep the first and the last structure."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
from monty.io import zopen
from pymatgen.io.vasp.outputs import Vasprun

from deeprelax_ase.datasets.importers.ended_runs import (
    why_run_is_none,
    why_trajectory_is_none,
    why_vasprun_is_none,
)
from deeprelax_ase.datasets.importers.raw_pair import Found, Structure, ends, file_reader
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.vasp_calculation import (
    functional_of,
    names_pbe,
    read_vasp_calculation,
)
from deeprelax_ase.structures.validation import StructureError

_TRAJECTORIES = (".traj", ".extxyz", ".xyz")
_NO_OUTPUTS = ("~", ".bak", ".deeprelax.json", ".save", ".swp", ".tmp")
"""Endings of copies that editors leave, and of the record of a prediction."""
_OVERFLOW = re.compile(rb'(<i type="int"[^>]*>)[ \t]*\*+[ \t]*(</i>)')
"""A whole number that VASP could not fit into its columns, such as KINTER."""


# VASP runs


def runs(path: Path) -> list[Path]:
    """Folders with the output of a run, a given one and all below it."""
    if not path.is_dir():
        return []
    outputs = [
        mark
        for stem in ("vasprun.xml", "XDATCAR")
        for mark in path.rglob(f"{stem}*")
        if _is_output(stem, mark)
    ]
    contcars = [mark for mark in path.rglob("CONTCAR*") if any(mark.parent.glob("POSCAR*"))]
    return sorted({mark.parent for mark in (*outputs, *contcars)})


def read_vasp(root: Path) -> Iterator[Found]:
    """Each run by its vasprun.xml, else POSCAR and CONTCAR, else the ends of its XDATCAR.

    Of a run in several steps in one folder (`CONTCAR.relax1`, `.relax2`, and without an ending what
    came last; `POSCAR.orig` came first), from the first input to the last output.
    """
    for folder in runs(root):
        name = folder.name if folder == root else str(folder.relative_to(root))
        vaspruns, poscars, contcars, xdatcars = (
            sorted(
                (path for path in folder.glob(f"{stem}*") if _is_output(stem, path)),
                key=partial(_turn, stem),
            )
            for stem in ("vasprun.xml", "POSCAR", "CONTCAR", "XDATCAR")
        )
        if vaspruns:
            yield _read_vasprun(vaspruns[0], vaspruns[-1], name)
        elif (poscars and contcars) or xdatcars:
            functional, reason = _read_incar(folder)
            if reason:
                yield _refused(name, reason)
            elif poscars and contcars:
                before, after = file_reader(poscars[0]), file_reader(contcars[-1])
                yield Found(name, before, after, functional)
            else:
                yield ends(name, functional, _snapshots, xdatcars)


def _is_output(stem: str, path: Path) -> bool:
    """Whether a file is such an output, with any ending but those of editors and archives."""
    rest = path.name.removeprefix(stem)
    is_other = rest[:1].isalpha() or ".tar" in path.suffixes or rest.endswith(_NO_OUTPUTS)
    return path.is_file() and not is_other


def _read_incar(folder: Path) -> tuple[str | None, str]:
    """Functional that an INCAR names, if there is one, and why the run is no relaxation."""
    try:
        calculation = read_vasp_calculation(folder)
        functional = calculation.functional
        if functional is None and names_pbe(folder):
            functional = "PBE"
        return functional, calculation.refusal or why_run_is_none(folder) or ""
    except StructureError as error:
        return None, str(error)


def _turn(stem: str, path: Path) -> tuple[int, list[int], str]:
    """When in a run of several steps a file was written, by its ending."""
    ending = re.sub(r"\.(gz|bz2|xz|Z)$", "", path.name.removeprefix(stem))
    place = {".orig": 0, ".unrelaxed": 0, "": 2}.get(ending, 1)
    return place, [int(number) for number in re.findall(r"\d+", ending)], ending


def _snapshots(xdatcars: Sequence[Path]) -> Sequence[Structure]:
    return [frame for path in xdatcars for frame in ase.io.read(path, ":", format="vasp-xdatcar")]


def _read_vasprun(first: Path, last: Path, name: str) -> Found:
    options = {"parse_dos": False, "parse_eigen": False, "parse_potcar_file": False}
    try:
        start, end = (_parse_vasprun(path, **options) for path in (first, last))
        functional = _vasp_functional(end)
        reason = why_vasprun_is_none(end)
    except Exception as error:  # noqa: BLE001 - of a file that broke off, whatever it meets
        functional, reason = None, f"{last} cannot be read ({type(error).__name__}: {error})"
    if reason:
        return _refused(name, reason)
    return Found(name, lambda: start.initial_structure, lambda: end.final_structure, functional)


def _parse_vasprun(path: Path, **options: bool) -> Vasprun:
    """Parse a vasprun.xml, also where a whole number overflowed to asterisks.

    pymatgen gives up at those. They become 0: an overflowed NSW then counts as no relaxation.
    """
    with zopen(path, "rb") as stream:
        content = stream.read()
    mended = _OVERFLOW.sub(rb"\g<1>0\2", content)
    if mended == content:
        return Vasprun(path, **options)
    with TemporaryDirectory() as folder:
        copy = Path(folder, "vasprun.xml")
        copy.write_bytes(mended)
        return Vasprun(copy, **options)


def _refused(name: str, reason: str) -> Found:
    """A run that is no pair, with the reason."""
    return Found(name, partial(_refuse, reason), partial(_refuse, reason))


def _refuse(reason: str) -> Structure:
    raise StructureError(reason)


def _vasp_functional(run: Vasprun) -> str:
    if any("PBE" not in symbol for symbol in run.potcar_symbols):
        return "unknown"
    meta = run.incar.get("METAGGA", "")
    return functional_of({**run.parameters, **run.incar, "METAGGA": meta})


# Trajectories


def trajectories(path: Path) -> list[Path]:
    """The trajectory that a path is, or all .traj files below it."""
    if path.is_file():
        return [path] if path.suffix in _TRAJECTORIES else []
    return sorted(path.rglob("*.traj"))


def read_trajectories(path: Path) -> Iterator[Found]:
    """First and last frame of each."""
    for file in trajectories(path):
        name = file.stem if file == path else str(file.relative_to(path).with_suffix(""))
        yield ends(name, None, _frames, file)


def _frames(file: Path) -> Sequence[Structure]:
    reason = why_trajectory_is_none(file)
    if reason:
        raise StructureError(reason)
    return read_structures(file).structures
