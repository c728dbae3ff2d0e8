"""`deeprelax relax`."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from deeprelax_ase.cli.common import (
    FILE_OPTIONS,
    Force,
    Format,
    Species,
    limit_threads,
    stop,
    with_relax_options,
)
from deeprelax_ase.relaxation.options import RelaxOptions

if TYPE_CHECKING:
    from deeprelax_ase.files.surroundings import ReadOptions


_STANDARD = Path("-")
"""Standard input, or standard output."""


@dataclass
class _Files:
    """How files are read and written, and which were written already.

    Attributes:
        output: File or folder that the user named.
        output_format: Format to write, if the user named one.
        how: How files are read.
        overwrite: Whether outputs that exist are replaced.
        as_json: Whether results are printed as JSON.
        inputs: All files of this command.
        written: Outputs of this command.
    """

    output: str | None
    output_format: str | None
    how: "ReadOptions"
    overwrite: bool
    as_json: bool
    inputs: frozenset[Path]
    written: set[Path] = field(default_factory=set)


@with_relax_options(*FILE_OPTIONS)
def relax(
    files: Annotated[
        list[Path],
        typer.Argument(help="POSCAR, CIF, extxyz, ...: any number; - is standard input."),
    ],
    output: Annotated[
        str | None,  # a Path would drop the slash of FOLDER/
        typer.Option("--output", "-o", help="File, FOLDER/ (of several inputs), or - to print."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    form: Format = None,
    output_format: Annotated[
        str | None, typer.Option("--output-format", help="Format to write, if not the one read.")
    ] = None,
    species: Species = None,
    force: Force = False,
    *,
    options: RelaxOptions,
    functional_given: bool,
) -> None:
    """Relax structure files; write <name>_relaxed beside each, in the same format.

    Prints a line a structure. The exit code is 1 if any file or structure failed or was refused.
    What comes from standard input goes to standard output, unless --output names a file; with
    --output -, what comes from a file does, too.
    """
    from deeprelax_ase.files.file_formats import named_format
    from deeprelax_ase.files.surroundings import ReadOptions
    from deeprelax_ase.files.unnamed_species import parse_species
    from deeprelax_ase.relaxation.relaxer import shared_relaxer

    limit_threads()
    _check_folder(files, output)
    try:
        how = ReadOptions(
            None if form is None else named_format(form),
            parse_species(species),
            options.functional if functional_given else None,
            force,
        )
        output_name = output_format and named_format(output_format, for_output=True)
        inputs = frozenset(path.resolve() for path in files)
        task = _Files(output, output_name, how, overwrite, as_json, inputs)
        relaxer = shared_relaxer(options)
    except ValueError as error:
        stop(str(error))
    table = sys.stderr if any(_is_printed(path, output) for path in files) else sys.stdout
    if not as_json:
        columns = ("file", "formula", "atoms", "volume", "move/Å", "error/Å", "gain", "status")
        print(_row(*columns), file=table)
    failures = sum(_relax_file(relaxer, path, task, table) for path in files)
    if failures:
        raise typer.Exit(1)


def _check_folder(files: list[Path], output: str | None) -> None:
    """Make the folder that the outputs of several files go into."""
    if len(files) == 1 or output is None:
        if len(files) > 1 and any(map(_is_stream, files)):
            stop("standard input (-) and files have outputs in different places: name an --output")
        return
    if output == str(_STANDARD):
        stop(f"there are {len(files)} inputs, and standard output (-) takes one: name a folder")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        stop(f"{output} is a file, and there are {len(files)} inputs: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"cannot make the folder {output}: {error.strerror}")


def _relax_file(relaxer: Any, path: Path, task: _Files, table: TextIO) -> int:
    """Relax and write one file; how many of its structures failed."""
    from deeprelax_ase.files.surroundings import read_for_relaxation
    from deeprelax_ase.files.write_files import output_path, write_structures

    is_printed = _is_printed(path, task.output)
    with ExitStack() as stack:
        readable, name = path, str(path)
        try:
            readable, name = stack.enter_context(_readable(path))
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            source, structures = read_for_relaxation(readable, task.how)
            output = f"{folder}{os.sep}" if is_printed else task.output
            target = output_path(source, output, task.output_format)
            if not is_printed:
                _check_output(target, path, task)
            results = list(relaxer.relax_many(structures))
            _check_results(readable, results)
            relaxed = [result.structure for result in results]
            write_structures(source, relaxed, target, task.output_format)
            if is_printed:
                sys.stdout.buffer.write(target.read_bytes())
                sys.stdout.flush()
            task.written.add(target.resolve())
        except (ValueError, OSError) as error:
            said = str(error).replace(str(readable), name)
            _report_failure(path, said, error, table if task.as_json else None)
            return 1
    shown = _STANDARD if is_printed else target
    for note in source.notes:
        print(f"note: {name}: {note}", file=sys.stderr)
    for number, result in enumerate(results):
        label = Path(name).name if len(results) == 1 else f"{Path(name).name}[{number}]"
        _report(label, path, shown, result, task.as_json, table)
    return sum(not result.is_sound for result in results)


def _is_printed(path: Path, output: str | None) -> bool:
    """Whether what becomes of a file goes to standard output."""
    return output == str(_STANDARD) or (output is None and _is_stream(path))


def _is_stream(path: Path) -> bool:
    """Whether a path is standard input or a pipe, as a shell makes of <(...)."""
    if path == _STANDARD:
        return True
    with suppress(OSError):  # of a name that is too long
        return path.exists() and not path.is_file() and not path.is_dir()
    return False


@contextmanager
def _readable(path: Path) -> Iterator[tuple[Path, str]]:
    """A file to read, and what it is called; what streams in is put into one for the time."""
    if not _is_stream(path):
        yield path, str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        if path != _STANDARD:
            copy = Path(folder) / path.name
            copy.write_bytes(path.read_bytes())
            yield copy, str(path)
            return
        copy = Path(folder) / "stdin"
        copy.write_bytes(sys.stdin.buffer.read() if sys.stdin else b"")  # None where it is closed
        yield copy, "standard input"


def _check_output(target: Path, path: Path, task: _Files) -> None:
    if target.resolve() in task.inputs - {path.resolve()}:
        msg = f"{target} is an input as well: relax the two one at a time, or name an --output"
        raise ValueError(msg)
    if target.resolve() in task.written:
        msg = f"{target} was written for another input just now: relax the two one at a time"
        raise ValueError(msg)
    if target.exists() and not _is_stream(target) and not task.overwrite:
        msg = f"{target} exists: pass --overwrite to replace it, or name another --output"
        raise ValueError(msg)


def _check_results(path: Path, results: list[Any]) -> None:
    if not any(result.is_sound for result in results):
        reason = f"{results[0].status}: {results[0].message}" if results else "holds no structure"
        msg = f"{path}: {reason}; nothing was written"
        raise ValueError(msg)


def _report(
    label: str, path: Path, target: Path, result: Any, as_json: bool, table: TextIO
) -> None:
    if as_json:
        facts = result.facts()
        row = {
            "file": str(path),
            "label": label,
            "output": str(target),
            "status": result.status,
            "message": result.message,
            "notes": [note.code for note in result.notes],
            "formula": result.formula,
            "atoms": result.num_atoms,
            "volume_change_percent": 100 * facts.pop("volume_change"),
            "sha256": facts.pop("weights_sha256"),
            **facts,
        }
        print(json.dumps(row), file=table)
        return
    status = f"{result.status} ({result.message})" if result.message else result.status
    numbers = (
        f"{100 * result.volume_change:+.2f}%",
        f"{result.largest_displacement:.3f}",
        f"{result.expected_error:.3f}",
        f"{result.gain_probability:.2f}",
    )
    print(_row(label, result.formula, str(result.num_atoms), *numbers, status), file=table)


def _report_failure(path: Path, said: str, error: Exception, rows: TextIO | None) -> None:
    message = f"{path}: {error.strerror}" if isinstance(error, OSError) else said
    if rows is not None:
        print(json.dumps({"file": str(path), "status": "failed", "message": message}), file=rows)
    print(f"error: {message}", file=sys.stderr)


def _row(
    label: str,
    formula: str,
    atoms: str,
    volume: str,
    move: str,
    error: str,
    gain: str,
    status: str,
) -> str:
    numbers = f"{atoms:>6} {volume:>9} {move:>8} {error:>8} {gain:>5}"
    return f"{label:<24} {formula:<16} {numbers}  {status}"
