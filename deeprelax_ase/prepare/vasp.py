"""VASP run folders: what lies beside the POSCAR and has to go on fitting it."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pymatgen.core import SETTINGS, Structure
from pymatgen.io.vasp import Incar

from deeprelax_ase.checks import StructureError
from deeprelax_ase.prepare.poscar import PoscarText, read_poscar_text

_RECENT = 24 * 3600
"""Seconds for which an OUTCAR without an end may be that of a running job."""
_END_OF_OUTCAR = b"General timing and accounting informations for this job"
_TAIL = 20_000
_PER_GROUP = ("LDAUL", "LDAUU", "LDAUJ")
_OF_THE_OLD_CELL = ("WAVECAR", "CHGCAR", "CHG")


@dataclass(frozen=True)
class VaspFolder:
    """A run folder whose files fit each other.

    Attributes:
        path: The folder.
        text: Of its POSCAR.
        structure: Of its POSCAR.
        warnings: What a person should know before they run VASP.
    """

    path: Path
    text: PoscarText
    structure: Structure
    warnings: tuple[str, ...]

    @property
    def poscar(self) -> Path:
        """The POSCAR."""
        return self.path / "POSCAR"


def read_vasp_folder(path: Path, *, force: bool = False) -> VaspFolder:
    """Read a run folder and check that its files fit each other.

    Args:
        path: The folder.
        force: Also where a job may be running.

    Raises:
        StructureError: There is no POSCAR, or it does not fit POTCAR or INCAR, or a job may be
            running; the message says what to do.
    """
    poscar = path / "POSCAR"
    if not path.is_dir():
        msg = f"{path} is no folder: name a run folder, or a CIF to make one of"
        raise StructureError(msg)
    if not poscar.is_file():
        msg = f"{path} holds no POSCAR: name a run folder with one"
        raise StructureError(msg)
    if not force:
        _check_not_running(path / "OUTCAR")
    try:
        text = read_poscar_text(poscar.read_text(encoding="utf-8", errors="replace"))
        potentials = _potentials(path)
        _check_potentials(text, potentials)
        structure = text.structure(potentials)
    except StructureError as error:
        msg = f"{poscar} {error}"
        raise StructureError(msg) from error
    _check_incar(path / "INCAR", text)
    return VaspFolder(path, text, structure, tuple(_warnings(path, text)))


def write_vasp_inputs(structure: Structure, folder: Path) -> None:
    """INCAR, KPOINTS, POSCAR and POTCAR of a relaxation as the Materials Project does it.

    Where pymatgen knows no POTCAR files (PMG_VASP_PSP_DIR), POTCAR.spec names them.

    Raises:
        ValueError: pymatgen cannot make them.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet

    MPRelaxSet(structure).write_input(folder, potcar_spec=not SETTINGS.get("PMG_VASP_PSP_DIR"))


def _check_not_running(outcar: Path) -> None:
    if not outcar.is_file() or time.time() - outcar.stat().st_mtime > _RECENT:
        return
    with outcar.open("rb") as stream:
        stream.seek(max(0, outcar.stat().st_size - _TAIL))
        has_ended = _END_OF_OUTCAR in stream.read()
    if not has_ended:
        msg = f"{outcar} is recent and has no end: is VASP running there? Pass --force if it is not"
        raise StructureError(msg)


def _potentials(path: Path) -> list[str]:
    """Elements in the order of POTCAR (its TITEL lines), or of POTCAR.spec."""
    if (path / "POTCAR").is_file():
        text = (path / "POTCAR").read_text(encoding="latin-1")
        titles = re.findall(r"^\s*TITEL\s*=\s*(.+)$", text, flags=re.MULTILINE)
        return [
            (words[1] if len(words) > 1 else words[0]).split("_")[0]
            for words in (title.split() for title in titles)
        ]
    if (path / "POTCAR.spec").is_file():
        return [name.split("_")[0] for name in (path / "POTCAR.spec").read_text().split()]
    return []


def _check_potentials(text: PoscarText, potentials: Sequence[str]) -> None:
    if not text.symbols and not potentials:
        msg = (
            "names no species (VASP 4) and there is no POTCAR to take them from: add a line with "
            "their symbols above the counts"
        )
        raise StructureError(msg)
    if not text.symbols and len(potentials) != len(text.counts):
        msg = f"has {len(text.counts)} groups of atoms, and POTCAR {len(potentials)} potentials"
        raise StructureError(msg)
    if text.symbols and potentials and list(text.symbols) != list(potentials):
        msg = (
            f"has the species {' '.join(text.symbols)}, but POTCAR {' '.join(potentials)}: bring "
            "them into the same order first"
        )
        raise StructureError(msg)


def _check_incar(path: Path, text: PoscarText) -> None:
    if not path.is_file():
        return
    try:
        incar = Incar.from_file(path)
    except Exception as error:  # the parser raises whatever its code runs into
        msg = f"{path} cannot be read: {' '.join(str(error).split())[:200]}"
        raise StructureError(msg) from error
    atoms = sum(text.counts)
    magmom = incar.get("MAGMOM")
    if isinstance(magmom, list):
        flat = [m for m in magmom if not isinstance(m, list)]
        length = len(flat) or len(magmom)
        if length not in (atoms, 3 * atoms):
            msg = f"{path}: MAGMOM has {length} values for {atoms} atoms"
            raise StructureError(msg)
    for name in _PER_GROUP:
        values = incar.get(name)
        if isinstance(values, list) and len(values) != len(text.counts):
            groups = len(text.counts)
            msg = f"{path}: {name} has {len(values)} values for {groups} groups of atoms"
            raise StructureError(msg)


def _warnings(path: Path, text: PoscarText) -> Iterator[str]:
    if text.has_velocities:
        yield "velocities are dropped: they belong to the unrelaxed atoms"
    old = [path / name for name in _OF_THE_OLD_CELL]
    names = [file.name for file in chain(old) if file.is_file() and file.stat().st_size]
    if names:
        yield (
            f"{' and '.join(names)} belong to the old cell: remove them, or set ISTART = 0 and "
            "ICHARG = 2"
        )
