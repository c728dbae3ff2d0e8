"""VASP run folders: what lies beside the POSCAR and has to go on fitting it."""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from monty.os.path import zpath
from pymatgen.core import SETTINGS, Structure
from pymatgen.io.vasp import Incar

from deeprelax_ase.datasets.importers.ended_runs import has_ended
from deeprelax_ase.files.calculation import Calculation
from deeprelax_ase.files.file_text import fortran_float, has_value
from deeprelax_ase.files.handedness import right_handed
from deeprelax_ase.files.incar_text import joined_lines, read_tags, text_of
from deeprelax_ase.files.moments import moments_of, up_or_down
from deeprelax_ase.files.new_poscar import new_poscar_text
from deeprelax_ase.files.poscar_text import (
    PoscarText,
    read_poscar_text,
)
from deeprelax_ase.files.vasp_calculation import read_vasp_calculation
from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import read_text
from deeprelax_ase.structures.validation import StructureError

_ELEMENT = re.compile(r"[A-Z][a-z]?")
_RECENT = 24 * 3600
"""Seconds for which an OUTCAR without an end may be that of a running job."""
_AT_ONCE = 60
"""Seconds within which the files of a folder may have been put there together."""
_PER_GROUP = ("LDAUL", "LDAUU", "LDAUJ")
_OF_THE_OLD_CELL = ("WAVECAR", "CHGCAR", "CHG")


@dataclass(frozen=True)
class VaspFolder:
    """A run folder whose files fit each other.

    Attributes:
        path: The folder.
        text: Of its POSCAR.
        structure: Of its POSCAR.
        calculation: What its INCAR asks for.
        warnings: What a person should know before they run VASP.
    """

    path: Path
    text: PoscarText
    structure: Structure
    calculation: Calculation
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
        msg = f"{path} holds no POSCAR (packed ones are not read): name a run folder with one"
        raise StructureError(msg)
    if not force:
        _check_not_running(path / "OUTCAR")
    try:
        text = read_poscar_text(read_text(poscar))
        potentials = _potentials(path)
        _check_potentials(text, potentials)
        structure = text.structure(potentials)
    except StructureError as error:
        msg = f"{poscar} {error}"
        raise StructureError(msg) from error
    calculation = read_vasp_calculation(path)
    _check_lengths(path, _read_incar(path), text)
    notes = [*_warnings(path, text, potentials)]
    if "cell" not in calculation.held.names and _are_cartesian(text_of(path / "KPOINTS") or ""):
        notes.append(
            "KPOINTS are Cartesian, which are others in another cell: give them as Reciprocal, or "
            "as a mesh"
        )
    return VaspFolder(path, text, structure, calculation, tuple(notes))


def write_vasp_inputs(structure: Structure, folder: Path, tags: Mapping[str, Any]) -> None:
    """INCAR, KPOINTS, POSCAR and POTCAR of a relaxation as the Materials Project does it.

    Args:
        structure: To relax.
        folder: Is made.
        tags: Of the INCAR, in the place of those of the Materials Project.

    Where pymatgen knows no POTCAR files (PMG_VASP_PSP_DIR), POTCAR.spec names them. VASP refuses
    left-handed cells, and pymatgen would write their mirror image: see `right_handed`.

    Raises:
        ValueError: pymatgen cannot make them, or moments are not collinear.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet

    # Written beside first: a folder that is there is whole.
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        inputs = MPRelaxSet(
            right_handed(_with_collinear(structure)), user_incar_settings=dict(tags)
        )
        inputs.write_input(beside, potcar_spec=not SETTINGS.get("PMG_VASP_PSP_DIR"))
        text = new_poscar_text(inputs.poscar.structure, inputs.poscar.comment)
        (beside / "POSCAR").write_text(text, encoding="utf-8")
        beside.rename(folder)
    except OSError:
        raise
    except Exception as error:  # pymatgen raises whatever its code runs into
        reason = " ".join(str(error).split())
        msg = f"MPRelaxSet has no inputs for {structure.formula}: {type(error).__name__}, {reason}"
        raise ValueError(msg[:300]) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _with_collinear(structure: Structure) -> Structure:
    """The structure with moments that are numbers: MAGMOM where spins are up or down."""
    given = moments_of(structure)
    if not any(np.ndim(moment) for moment in given):
        return structure
    moments = up_or_down(given)
    if moments is None:
        msg = "its moments are not collinear, which takes LNONCOLLINEAR and an INCAR of your own"
        raise ValueError(msg)
    return structure.copy(site_properties={"magmom": moments})


def is_finished(folder: Path) -> bool:
    """Whether a run came to its end, and nobody gave it another POSCAR since."""
    poscar, contcar, outcar = (folder / name for name in ("POSCAR", "CONTCAR", "OUTCAR"))
    if not all(path.is_file() and path.stat().st_size for path in (poscar, contcar, outcar)):
        return False
    one, other = poscar.stat(), outcar.stat()
    # A POSCAR that was moved there keeps the date of its content.
    is_older = one.st_mtime <= other.st_mtime and one.st_ctime <= other.st_ctime + _AT_ONCE
    return is_older and has_ended(outcar)


def _check_not_running(outcar: Path) -> None:
    if not outcar.is_file() or time.time() - outcar.stat().st_mtime > _RECENT:
        return
    if not has_ended(outcar):
        msg = f"{outcar} is recent and has no end: is VASP running there? Pass --force if it is not"
        raise StructureError(msg)


def _potentials(path: Path) -> list[str]:
    """Elements in the order of POTCAR (its TITEL lines), or of POTCAR.spec."""
    names: list[str] = []
    text = text_of(path / "POTCAR")
    if text is not None:
        titles = re.findall(r"^[ \t]*TITEL[ \t]*=[ \t]*(\S.*)$", text, flags=re.MULTILINE)
        names = [words[1] if len(words) > 1 else words[0] for words in map(str.split, titles)]
    elif (path / "POTCAR.spec").is_file():
        names = (path / "POTCAR.spec").read_text().split()
    found = [_ELEMENT.match(name) for name in names]  # of Fe_pv, H1.25, O
    return [match[0] for match in found if match]


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


def _read_incar(path: Path) -> Incar:
    """The INCAR of a folder; an empty one where there is none."""
    text = joined_lines(text_of(path / "INCAR") or "")  # pymatgen 2025 does not join them
    try:
        return Incar.from_str(text)
    except Exception as error:  # the parser raises whatever its code runs into
        msg = f"{path / 'INCAR'} cannot be read: {' '.join(str(error).split())[:200]}"
        raise StructureError(msg) from error


def _check_lengths(path: Path, incar: Incar, text: PoscarText) -> None:
    """Refuse an INCAR whose lists are not as long as the POSCAR needs."""
    atoms = sum(text.counts)
    # As they stand there: pymatgen puts three together where moments are not collinear.
    given = read_tags(text_of(path / "INCAR") or "").get("MAGMOM", "")
    magmom = given.replace(",", " ").split()
    if magmom:
        odd = next((word for word in magmom if not _is_number(word.rpartition("*")[2])), None)
        if odd is not None:
            msg = f"{path / 'INCAR'}: MAGMOM has {odd!r}, which is no number"
            raise StructureError(msg)
        length = sum(map(_repeats, magmom))
        is_noncollinear = bool(incar.get("LNONCOLLINEAR") or incar.get("LSORBIT"))
        needed = 3 * atoms if is_noncollinear else atoms
        if length != needed:
            what = (
                f"{atoms} atoms" if needed == atoms else f"{needed} (3 for each of {atoms} atoms)"
            )
            msg = f"{path / 'INCAR'}: MAGMOM has {length} values for {what}"
            raise StructureError(msg)
    for name in _PER_GROUP:
        values = incar.get(name)
        if isinstance(values, list) and len(values) != len(text.counts):
            groups = len(text.counts)
            msg = f"{path / 'INCAR'}: {name} has {len(values)} values for {groups} groups of atoms"
            raise StructureError(msg)


def _is_number(word: str) -> bool:
    try:
        fortran_float(word)
    except ValueError:
        return False
    return True


def _are_cartesian(k_points: str) -> bool:
    """Whether a KPOINTS lists points, or vectors of a mesh, by Cartesian coordinates."""
    lines = [line.strip() for line in k_points.splitlines()]
    mode, *points = lines[2:] or [""]
    if mode[:1].lower() == "l":
        mode, *points = points or [""]
    numbers = [word for point in points for word in point.split()[:3]]
    return mode[:1].lower() in ("c", "k") and any(map(has_value, numbers))


def _repeats(word: str) -> int:
    """How many values a word of an INCAR stands for: `4*0` for four."""
    count = word.partition("*")[0]
    return int(count) if "*" in word and count.isdecimal() else 1


def _warnings(path: Path, text: PoscarText, potentials: Sequence[str]) -> Iterator[str]:
    if not potentials and Path(zpath(str(path / "POTCAR"))).is_file():
        yield "POTCAR has no TITEL lines: its order was not checked"
    if text.has_velocities:
        yield "velocities are dropped: they belong to the unrelaxed atoms"
    old = [path / name for name in _OF_THE_OLD_CELL]
    names = [file.name for file in chain(old) if file.is_file() and file.stat().st_size]
    if names:
        yield (
            f"{' and '.join(names)} belong to the old cell: remove them, or set ISTART = 0 and "
            "ICHARG = 2"
        )
