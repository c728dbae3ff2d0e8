"""`deeprelax vasp` and `deeprelax qe`: the prediction put into inputs that are there already."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeprelax_ase.cli.common import (
    FILE_OPTIONS,
    limit_threads,
    stop,
    with_relax_options,
    words_of,
)
from deeprelax_ase.cli.dft_input import DftInput, read_pw, read_vasp
from deeprelax_ase.relaxation.options import RelaxOptions

if TYPE_CHECKING:  # ASE and pymatgen are imported where they are needed
    from deeprelax_ase.files.calculation import Calculation
    from deeprelax_ase.structures.read_structure import HeldStructure

Limit = Annotated[
    float | None,
    typer.Option("--max-error", min=0, help="Leave what has a higher expected error (Å) as it is."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Undo = Annotated[bool, typer.Option("--undo", help="Put the inputs back as they were.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also where a job may run or has ended, an input was changed, or is of no relaxation.",
    ),
]


@with_relax_options(*FILE_OPTIONS)
def vasp(
    paths: Annotated[
        list[Path], typer.Argument(help="Run folders; or CIF files to make run folders of.")
    ],
    max_error: Limit = None,
    dry_run: DryRun = False,
    undo: Undo = False,
    force: Force = False,
    *,
    options: RelaxOptions,
    functional_given: bool,
) -> None:
    """Put predictions into VASP run folders, in the place of POSCAR; keep POSCAR.unrelaxed.

    Order and grouping of species, comment, selective dynamics and labels stay, so POTCAR and INCAR
    stay valid; they are checked. Of a CIF, a folder of its name is made with the inputs of
    pymatgen's MPRelaxSet.
    """
    if undo:
        _undo([path / "POSCAR" for path in paths], force, dry_run)
        return
    from deeprelax_ase.interfaces.dft_inputs.vasp import is_finished

    way = _Way(_relaxer(options), functional_given, max_error, dry_run, force)

    def put(path: Path) -> str:
        if path.is_file():
            return _from_cif(path, way)
        if not force and is_finished(path):
            return "finished already, left as it is (--force prepares it anew)"
        return _put(read_vasp(path, force), way)

    _each(paths, put)


@with_relax_options(*FILE_OPTIONS)
def qe(
    paths: Annotated[list[Path], typer.Argument(help="Inputs of pw.x.")],
    max_error: Limit = None,
    dry_run: DryRun = False,
    undo: Undo = False,
    force: Force = False,
    *,
    options: RelaxOptions,
    functional_given: bool,
) -> None:
    """Put predictions into inputs of Quantum ESPRESSO's pw.x; keep each as NAME.unrelaxed.

    Cell and positions change, all other namelists and cards stay as they are.
    """
    if undo:
        _undo(paths, force, dry_run)
        return
    way = _Way(_relaxer(options), functional_given, max_error, dry_run, force)
    _each(paths, lambda path: _put(read_pw(path), way))


@dataclass(frozen=True)
class _Way:
    """How inputs are to be relaxed.

    Attributes:
        relaxer: The relaxer.
        functional_given: Whether the user named the functional.
        max_error: Leave what has a higher expected error (Å) as it is.
        dry_run: Change nothing.
        force: Relax also what the calculation says is not to be relaxed.
    """

    relaxer: Any
    functional_given: bool
    max_error: float | None
    dry_run: bool
    force: bool

    def join(self, structure: Any, calculation: "Calculation") -> "HeldStructure":
        """A structure with what its calculation says."""
        from deeprelax_ase.files.calculation import apply_calculation

        functional = self.relaxer.functional if self.functional_given else None
        return apply_calculation(structure, calculation, functional, force=self.force)


def _relaxer(options: RelaxOptions) -> Any:
    from deeprelax_ase.relaxation.relaxer import shared_relaxer

    limit_threads()
    try:
        return shared_relaxer(options)
    except ValueError as error:
        stop(str(error))


def _each(paths: list[Path], put: Callable[[Path], str]) -> None:
    """Do it for every path; those that fail leave the others alone."""
    succeeded = [_succeeds(path, put) for path in paths]
    if not all(succeeded):
        raise typer.Exit(1)


def _succeeds(path: Path, put: Callable[[Path], str]) -> bool:
    try:
        line = put(path)
    except (ValueError, OSError) as error:
        end = "; nothing was changed" if isinstance(error, OSError) else ""
        print(f"error: {words_of(error, path)}{end}", file=sys.stderr)
        return False
    print(f"{path}: {line}")
    return True


def _put(entry: DftInput, way: _Way) -> str:
    """Relax an input and swap its file; what was done, in a line."""
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import swap

    for note in entry.notes:
        print(f"note: {entry.path}: {note}", file=sys.stderr)
    try:
        structure = way.join(entry.structure, entry.calculation)
    except ValueError as error:
        msg = f"{entry.path}: {error}"
        raise ValueError(msg) from error
    line, result = _predict(entry.path, structure, way)
    if result is None:
        return line
    try:
        text = entry.text(result.structure)
    except ValueError as error:
        msg = f"{entry.path} {error}"
        raise ValueError(msg) from error
    if way.dry_run:
        return f"{line}: would be written"
    swap(entry.path, text, _facts(result, structure.functional or way.relaxer.functional))
    return line


def _predict(path: Path, structure: "HeldStructure", way: _Way) -> tuple[str, Any]:
    """What came of a structure, in a line; and the result, unless it is to stay as it was.

    Raises:
        ValueError: It cannot be relaxed, or the prediction was refused.
    """
    try:
        result = way.relaxer.relax(structure)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    if not result.is_sound:
        msg = f"{path}: {result.status}: {result.message}; nothing was changed"
        raise ValueError(msg)
    for note in result.notes:
        print(f"note: {path}: {note.text}", file=sys.stderr)
    line = (
        f"{result.formula}, {result.num_atoms} atoms, volume {100 * result.volume_change:+.2f} %, "
        f"largest move {result.largest_displacement:.3f} Å, expected error "
        f"{result.expected_error:.3f} Å, a gain with a probability of {result.gain_probability:.2f}"
    )
    if way.max_error is not None and not result.expected_error <= way.max_error:
        return f"{line}: left as it was, above --max-error {way.max_error:g} Å", None
    if result.status == "unchanged":
        return f"{line}: unchanged", None
    return line, result


def _facts(result: Any, functional: str) -> dict[str, Any]:
    """What made a prediction, to be recorded beside it."""
    return {"formula": result.formula, "functional": functional, **result.facts()}


def _from_cif(path: Path, way: _Way) -> str:
    """Make a run folder of a structure file, beside it, with the prediction in it."""
    from deeprelax_ase.files.calculation import Calculation
    from deeprelax_ase.files.convert import as_structure
    from deeprelax_ase.files.poscar_text import poscar_ending
    from deeprelax_ase.files.read_files import read_structures
    from deeprelax_ase.files.vasp_calculation import tags_of
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import record_path
    from deeprelax_ase.interfaces.dft_inputs.vasp import write_vasp_inputs
    from deeprelax_ase.structures.held import Held
    from deeprelax_ase.structures.read_structure import read_structure

    folder = path.with_suffix("")
    if poscar_ending(path.name) is not None:
        msg = f"{path} is a file of a run: name its folder, {path.parent}"
        raise ValueError(msg)
    if folder.exists():
        msg = f"{folder} exists: it would be the run folder of {path}; remove or rename it"
        raise ValueError(msg)
    structures = read_structures(path).structures
    if len(structures) != 1:
        msg = f"{path} holds {len(structures)} structures: a run folder is of one"
        raise ValueError(msg)
    structure = as_structure(structures[0])
    options = way.relaxer.options
    notes = read_structure(structure, options.vacuum, held=options.held).notes
    is_held = any(note.code == "slab_cell_held" for note in notes)
    tags = tags_of(options.functional, Held.of("cell") if is_held else options.held)
    line, result = _predict(path, way.join(structure, Calculation()), way)
    if way.dry_run:
        return line if result is None else f"{line}: would be written"
    write_vasp_inputs(structure if result is None else result.structure, folder, tags)
    if result is not None:
        record = json.dumps(_facts(result, way.relaxer.functional), indent=1)
        record_path(folder / "POSCAR").write_text(record + "\n")
    return f"{line}; inputs in {folder}"


def _undo(paths: list[Path], force: bool, dry_run: bool) -> None:
    """Put inputs back; of several, those that were left alone are no failure."""
    from deeprelax_ase.interfaces.dft_inputs.swap_and_undo import NotPreparedError, undo

    def put_back(path: Path) -> str:
        try:
            undo(path, force=force, dry_run=dry_run)
        except NotPreparedError:
            if len(paths) == 1:
                raise
            return "was not prepared, nothing to restore"
        return "would be restored" if dry_run else "restored"

    _each(paths, put_back)
