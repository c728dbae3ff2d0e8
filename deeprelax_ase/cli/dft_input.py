"""Read the inputs of DFT codes that a prediction is put into."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # ASE and pymatgen are imported where they are needed
    from deeprelax_ase.files.calculation import Calculation


@dataclass(frozen=True)
class DftInput:
    """An input as it was read.

    Attributes:
        path: File to be swapped.
        structure: What is to be relaxed.
        text: Gives the new text for a relaxed structure.
        calculation: What the calculation that follows asks for.
        notes: What a person should know.
    """

    path: Path
    structure: Any
    text: Callable[[Any], str]
    calculation: "Calculation"
    notes: tuple[str, ...] = ()


def read_vasp(path: Path, force: bool) -> DftInput:
    """Read a run folder of VASP; see `read_vasp_folder`."""
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import check_not_prepared
    from deeprelax_ase.interfaces.dft_inputs.vasp import read_vasp_folder

    check_not_prepared(path / "POSCAR")
    folder = read_vasp_folder(path, force=force)
    return DftInput(
        folder.poscar,
        folder.structure,
        folder.text.with_structure,
        folder.calculation,
        folder.warnings,
    )


def read_pw(path: Path) -> DftInput:
    """Read an input of pw.x.

    Raises:
        ValueError: It is none, or was prepared already.
    """
    from deeprelax_ase.files.pw_calculation import read_pw_calculation
    from deeprelax_ase.files.pw_text import notes_of_dropped, read_pw_text, with_atoms
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import check_not_prepared, read_text

    if not path.is_file():
        msg = f"no file {path}: name an input of pw.x"
        raise ValueError(msg)
    check_not_prepared(path)
    text = read_text(path)
    try:
        atoms = read_pw_text(text)
        calculation = read_pw_calculation(text, atoms.cell[:])
    except ValueError as error:
        msg = f"{path} {error}"
        raise ValueError(msg) from error
    notes = notes_of_dropped(text)
    return DftInput(path, atoms, lambda new: with_atoms(text, new), calculation, notes)
