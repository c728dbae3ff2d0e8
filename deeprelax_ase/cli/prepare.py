"""`deeprelax vasp` and `deeprelax qe`: the prediction put into inputs that are there already."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from deeprelax_ase.cli.common import (
    AllowUnseen,
    AlwaysMove,
    Ensemble,
    FixedCell,
    Functional,
    Model,
    limit_threads,
    stop,
)

Limit = Annotated[
    float | None,
    typer.Option("--max-error", min=0, help="Leave what has a higher expected error (Å) as it is."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Undo = Annotated[bool, typer.Option("--undo", help="Put the inputs back as they were.")]
Force = Annotated[
    bool, typer.Option("--force", help="Also where a job may run, or an input was changed since.")
]


@dataclass(frozen=True)
class _Input:
    """An input as it was read.

    Attributes:
        path: File to be swapped.
        structure: What is to be relaxed.
        text: Gives the new text for a relaxed structure.
        notes: What a person should know.
        keeps_cell: What keeps the cell in the calculation that follows, or nothing.
    """

    path: Path
    structure: Any
    text: Callable[[Any], str]
    notes: tuple[str, ...] = ()
    keeps_cell: str = ""


def vasp(
    paths: Annotated[
        list[Path], typer.Argument(help="Run folders; or CIF files to make run folders of.")
    ],
    functional: Functional = "PBE",
    model: Model = "default",
    max_error: Limit = None,
    dry_run: DryRun = False,
    undo: Undo = False,
    force: Force = False,
    fixed_cell: FixedCell = False,
    allow_unseen: AllowUnseen = False,
    ensemble: Ensemble = False,
    always_move: AlwaysMove = False,
) -> None:
    """Put predictions into VASP run folders, in the place of POSCAR; keep POSCAR.unrelaxed.

    Order and grouping of species, comment, selective dynamics and labels stay, so POTCAR and INCAR
    stay valid; they are checked. Of a CIF, a folder of its name is made with the inputs of
    pymatgen's MPRelaxSet.
    """
    if undo:
        _each(paths, lambda path: _undo(path / "POSCAR", force))
        return
    relaxer = _relaxer(model, functional, fixed_cell, allow_unseen, ensemble, always_move)

    def put(path: Path) -> str:
        if path.is_file():
            return _from_cif(path, relaxer, max_error, dry_run)
        return _put(_read_vasp(path, functional, force), relaxer, max_error, dry_run)

    _each(paths, put)


def qe(
    paths: Annotated[list[Path], typer.Argument(help="Inputs of pw.x.")],
    functional: Functional = "PBE",
    model: Model = "default",
    max_error: Limit = None,
    dry_run: DryRun = False,
    undo: Undo = False,
    force: Force = False,
    fixed_cell: FixedCell = False,
    allow_unseen: AllowUnseen = False,
    ensemble: Ensemble = False,
    always_move: AlwaysMove = False,
) -> None:
    """Put predictions into inputs of Quantum ESPRESSO's pw.x; keep each as NAME.unrelaxed.

    Cell and positions change, all other namelists and cards stay as they are.
    """
    if undo:
        _each(paths, lambda path: _undo(path, force))
        return
    relaxer = _relaxer(model, functional, fixed_cell, allow_unseen, ensemble, always_move)
    _each(paths, lambda path: _put(_read_pw(path), relaxer, max_error, dry_run))


def _relaxer(
    model: str,
    functional: str,
    fixed_cell: bool,
    allow_unseen: bool,
    ensemble: bool,
    always_move: bool,
) -> Any:
    from deeprelax_ase.relaxation.relaxer import Relaxer

    limit_threads()
    try:
        return Relaxer(
            model,
            functional,
            relax_cell=not fixed_cell,
            allow_unseen=allow_unseen,
            ensemble=ensemble,
            always_move=always_move,
        )
    except ValueError as error:
        stop(str(error))


def _each(paths: list[Path], put: Callable[[Path], str]) -> None:
    """Do it for every path; those that fail leave the others alone."""
    succeeded = [_succeeds(path, put) for path in paths]
    if not all(succeeded):
        raise typer.Exit(1)


def _succeeds(path: Path, put: Callable[[Path], str]) -> bool:
    try:
        print(f"{path}: {put(path)}")
    except (ValueError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{error.filename or path}: {error.strerror or error}; nothing was changed"
        print(f"error: {reason}", file=sys.stderr)
        return False
    return True


def _read_vasp(path: Path, functional: str, force: bool) -> _Input:
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import check_not_prepared
    from deeprelax_ase.interfaces.dft_inputs.vasp import read_vasp_folder

    check_not_prepared(path / "POSCAR")
    folder = read_vasp_folder(path, force=force)
    notes = [*folder.warnings]
    if folder.functional == "unknown":
        notes.append(
            "INCAR relaxes with a functional that the weights do not know, and the prediction is "
            f"for {functional}"
        )
    elif folder.functional not in (None, functional):
        notes.append(
            f"INCAR relaxes with {folder.functional}, and the prediction is for {functional}: "
            f"try --functional {folder.functional}"
        )
    return _Input(
        folder.poscar,
        folder.structure,
        folder.text.with_structure,
        tuple(notes),
        folder.keeps_cell,
    )


def _read_pw(path: Path) -> _Input:
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import check_not_prepared, read_text
    from deeprelax_ase.structures.pw_text import keeps_cell, read_pw_text, with_atoms
    from deeprelax_ase.structures.validation import StructureError

    if not path.is_file():
        msg = f"no file {path}: name an input of pw.x"
        raise StructureError(msg)
    check_not_prepared(path)
    text = read_text(path)
    try:
        atoms = read_pw_text(text)
    except StructureError as error:
        msg = f"{path} {error}"
        raise StructureError(msg) from error
    keeps = "the calculation keeps the cell" if keeps_cell(text) else ""
    return _Input(path, atoms, lambda new: with_atoms(text, new), keeps_cell=keeps)


def _put(entry: _Input, relaxer: Any, max_error: float | None, dry_run: bool) -> str:
    """Relax an input and swap its file; what was done, in a line."""
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import swap

    notes = [*entry.notes]
    if entry.keeps_cell and relaxer.relax_cell:
        notes.append(f"{entry.keeps_cell}, and the prediction changes it: try --fixed-cell")
    for note in notes:
        print(f"note: {entry.path}: {note}", file=sys.stderr)
    line, result = _predict(entry.path, entry.structure, relaxer, max_error)
    if result is None:
        return line
    try:
        text = entry.text(result.structure)
    except ValueError as error:
        msg = f"{entry.path} {error}"
        raise ValueError(msg) from error
    if dry_run:
        return f"{line}: would be written"
    swap(entry.path, text, _facts(result, relaxer))
    return line


def _predict(path: Path, structure: Any, relaxer: Any, max_error: float | None) -> tuple[str, Any]:
    """What came of a structure, in a line; and the result, unless it is to stay as it was.

    Raises:
        ValueError: It cannot be relaxed, or the prediction was refused.
    """
    try:
        result = relaxer.relax(structure)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    if result.status != "relaxed":
        msg = f"{path}: {result.status}: {result.message}; nothing was changed"
        raise ValueError(msg)
    line = (
        f"{result.formula}, {result.num_atoms} atoms, volume {100 * result.volume_change:+.2f} %, "
        f"largest move {result.largest_displacement:.3f} Å, expected error "
        f"{result.expected_error:.3f} Å"
    )
    if max_error is not None and not result.expected_error <= max_error:
        return f"{line}: left as it was, above --max-error {max_error:g} Å", None
    if not result.strain.any() and not result.displacement.any():
        return f"{line}: {result.message}", None
    return line, result


def _facts(result: Any, relaxer: Any) -> dict[str, Any]:
    """What made a prediction, to be recorded beside it."""
    return {"formula": result.formula, "functional": relaxer.functional, **result.facts()}


def _from_cif(path: Path, relaxer: Any, max_error: float | None, dry_run: bool) -> str:
    """Make a run folder of a structure file, beside it, with the prediction in it."""
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import record_path
    from deeprelax_ase.interfaces.dft_inputs.vasp import write_vasp_inputs
    from deeprelax_ase.structures.files import read_structures
    from deeprelax_ase.structures.write_files import as_structure

    folder = path.with_suffix("")
    if folder.exists():
        msg = f"{folder} exists: it would be the run folder of {path}; remove or rename it"
        raise ValueError(msg)
    structures = read_structures(path).structures
    if len(structures) != 1:
        msg = f"{path} holds {len(structures)} structures: a run folder is of one"
        raise ValueError(msg)
    structure = as_structure(structures[0])
    line, result = _predict(path, structure, relaxer, max_error)
    if dry_run:
        return line if result is None else f"{line}: would be written"
    write_vasp_inputs(structure if result is None else result.structure, folder)
    if result is not None:
        record = json.dumps(_facts(result, relaxer), indent=1)
        record_path(folder / "POSCAR").write_text(record + "\n")
    return f"{line}; inputs in {folder}"


def _undo(path: Path, force: bool) -> str:
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import undo

    undo(path, force=force)
    return "restored"
