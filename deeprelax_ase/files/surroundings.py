"""Read structure files together with the calculation around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeprelax_ase.files.aims_calculation import read_aims_calculation
from deeprelax_ase.files.calculation import Calculation, apply_calculation
from deeprelax_ase.files.castep_calculation import read_castep_calculation, read_param_beside
from deeprelax_ase.files.file_formats import AIMS, CASTEP, POSCAR, PW
from deeprelax_ase.files.file_text import decode, inner_name, read_bytes
from deeprelax_ase.files.poscar_text import poscar_ending
from deeprelax_ase.files.pw_calculation import read_pw_calculation
from deeprelax_ase.files.read_files import StructureFile, read_structures
from deeprelax_ase.files.vasp_calculation import read_vasp_calculation
from deeprelax_ase.structures.read_structure import HeldStructure, plain_crystal
from deeprelax_ase.structures.validation import StructureError


@dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    Attributes:
        file_format: Format of every file; None where name and content decide.
        species: Elements, in their order, of files that do not name them.
        functional: That the user names; None takes that of the calculation.
        force: Relax also what the calculation says is not to be relaxed.
    """

    file_format: str | None = None
    species: tuple[str, ...] = ()
    functional: str | None = None
    force: bool = False


def read_for_relaxation(
    path: Path, how: ReadOptions
) -> tuple[StructureFile, Sequence[HeldStructure]]:
    """Read every structure of a file, with what the calculation around it says.

    Raises:
        StructureError: It cannot be read, or its structure is not to be relaxed.
    """
    source = read_structures(path, how.file_format, how.species)
    try:
        calculation = _calculation_around(source)
        held = [
            apply_calculation(structure, calculation, how.functional, force=how.force)
            for structure in source.structures
        ]
    except ValueError as error:
        msg = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise StructureError(msg) from error
    return source, held


def _calculation_around(source: StructureFile) -> Calculation:
    """The calculation that a file is an input of; one that holds nothing for all others."""
    path = source.path
    ending = poscar_ending(inner_name(path))
    if source.format == POSCAR and ending is not None:
        return read_vasp_calculation(path.parent, ending)
    if source.format == AIMS:
        return read_aims_calculation(path, plain_crystal(source.structures[0]).cell)
    if source.format not in (PW, CASTEP):
        return Calculation()
    text, cell = decode(read_bytes(path)), plain_crystal(source.structures[0]).cell
    if source.format == PW:
        return read_pw_calculation(text, cell)
    return read_castep_calculation(text, cell, read_param_beside(path))
