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
    """

    path: Path
    structure: Any
    text: Callable[[Any], str]
    notes: tuple[str, ...] = ()


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
    from deeprelax_ase.prepare.swap import swap

    relaxer = (
        None
        if undo
        else _relaxer(model, functional, fixed_cell, allow_unseen, ensemble, always_move)
    )

    def put(path: Path) -> str:
        if undo:
            return _undo(path / "POSCAR", force)
        if path.is_file():
            return _from_cif(path, relaxer, max_error, dry_run)
        return _put(_read_vasp(path, force), relaxer, max_error, dry_run, swap)

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
    from deeprelax_ase.prepare.swap import swap

    relaxer = (
        None
        if undo
        else _relaxer(model, functional, fixed_cell, allow_unseen, ensemble, always_move)
    )

    def put(path: Path) -> str:
        if undo:
            return _undo(path, force)
        return _put(_read_pw(path), relaxer, max_error, dry_run, swap)

    _each(paths, put)


def _relaxer(
    model: str,
    functional: str,
    fixed_cell: bool,
    allow_unseen: bool,
    ensemble: bool,
    always_move: bool,
) -> Any:
    from deeprelax_ase.relax import Relaxer

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


def _read_vasp(path: Path, force: bool) -> _Input:
    from deeprelax_ase.prepare.swap import check_not_prepared
    from deeprelax_ase.prepare.vasp import read_vasp_folder

    check_not_prepared(path / "POSCAR")
    folder = read_vasp_folder(path, force=force)
    return _Input(folder.poscar, folder.structure, folder.text.with_structure, folder.warnings)


def _read_pw(path: Path) -> _Input:
    from deeprelax_ase.checks import StructureError
    from deeprelax_ase.prepare.espresso import keeps_cell, read_pw_text, with_atoms
    from deeprelax_ase.prepare.swap import check_not_prepared

    if not path.is_file():
        msg = f"no file {path}: name an input of pw.x"
        raise StructureError(msg)
    check_not_prepared(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        atoms = read_pw_text(text)
    except StructureError as error:
        msg = f"{path} {error}"
        raise StructureError(msg) from error
    notes = ("the calculation keeps the cell, and the prediction changes it: try --fixed-cell",)
    is_fixed = keeps_cell(text)
    return _Input(path, atoms, lambda new: with_atoms(text, new), notes if is_fixed else ())


def _put(
    entry: _Input,
    relaxer: Any,
    max_error: float | None,
    dry_run: bool,
    swap: Callable[[Path, str, dict[str, Any]], None],
) -> str:
    """Relax an input and swap its file; what was done, in a line."""
    for note in entry.notes:
        print(f"note: {entry.path}: {note}", file=sys.stderr)
    try:
        result = relaxer.relax(entry.structure)
    except ValueError as error:
        msg = f"{entry.path}: {error}"
        raise ValueError(msg) from error
    line = (
        f"{result.formula}, {result.num_atoms} atoms, volume {100 * result.volume_change:+.2f} %, "
        f"largest move {result.largest_displacement:.3f} Å, expected error "
        f"{result.expected_error:.3f} Å"
    )
    if result.status != "relaxed":
        msg = f"{entry.path}: {result.status}: {result.message}; nothing was changed"
        raise ValueError(msg)
    if max_error is not None and not result.expected_error <= max_error:
        return f"{line}: left as it was, above --max-error {max_error:g} Å"
    if not result.strain.any() and not result.displacement.any():
        return f"{line}: {result.message}"
    try:
        text = entry.text(result.structure)
    except ValueError as error:
        msg = f"{entry.path} {error}"
        raise ValueError(msg) from error
    if dry_run:
        return f"{line}: would be written"
    facts = {
        "formula": result.formula,
        "expected_error": result.expected_error,
        "volume_change": result.volume_change,
        "largest_displacement": result.largest_displacement,
        "functional": relaxer.functional,
        "weights": result.weights.name,
        "weights_sha256": result.weights.sha256,
    }
    swap(entry.path, text, json.loads(json.dumps(facts)))
    return line


def _from_cif(path: Path, relaxer: Any, max_error: float | None, dry_run: bool) -> str:
    """Make a run folder of a structure file, beside it, with the prediction in it."""
    from deeprelax_ase.files import as_structure, read_structures
    from deeprelax_ase.prepare.vasp import write_vasp_inputs

    folder = path.with_suffix("")
    if folder.exists():
        msg = f"{folder} exists: it would be the run folder of {path}; remove or rename it"
        raise ValueError(msg)
    structures = read_structures(path).structures
    if len(structures) != 1:
        msg = f"{path} holds {len(structures)} structures: a run folder is of one"
        raise ValueError(msg)

    def make(_: Path, __: str, facts: dict[str, Any]) -> None:
        write_vasp_inputs(relaxed[0], folder)
        (folder / "POSCAR.deeprelax.json").write_text(json.dumps(facts, indent=1) + "\n")

    relaxed: list[Any] = []

    def keep(structure: Any) -> str:
        relaxed.append(structure)
        return ""

    entry = _Input(path, as_structure(structures[0]), keep)
    done = _put(entry, relaxer, max_error, dry_run, make)
    if not folder.exists() and not dry_run:
        write_vasp_inputs(entry.structure, folder)
    return f"{done}; inputs in {folder}" if folder.exists() else done


def _undo(path: Path, force: bool) -> str:
    from deeprelax_ase.prepare.swap import undo

    undo(path, force=force)
    return "restored"
