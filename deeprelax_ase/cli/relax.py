"""`deeprelax relax`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deeprelax_ase.cli.common import Force, limit_threads, stop, with_relax_options
from deeprelax_ase.relaxation.options import RelaxOptions

RELAX_OPTIONS = (
    "functional",
    "model",
    "device",
    "passes",
    "hold",
    "relax_cell",
    "vacuum",
    "allow_unseen",
    "ensemble",
    "always_move",
)


@with_relax_options(*RELAX_OPTIONS)
def relax(
    files: Annotated[list[Path], typer.Argument(help="POSCAR, CIF, extxyz, ...: any number.")],
    output: Annotated[
        str | None,  # a Path would drop the slash of FOLDER/
        typer.Option("--output", "-o", help="File or FOLDER/; for several inputs a folder."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    force: Force = False,
    *,
    options: RelaxOptions,
    functional_given: bool,
) -> None:
    """Relax structure files; write <name>_relaxed beside each, in the same format.

    Prints a line a structure. The exit code is 1 if any file or structure failed or was refused.
    """
    from deeprelax_ase.relaxation.relaxer import shared_relaxer

    limit_threads()
    if len(files) > 1 and output is not None:
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            stop(f"{output} is a file, and there are {len(files)} inputs: name a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            stop(f"cannot make the folder {output}: {error.strerror}")
    try:
        relaxer = shared_relaxer(options)
    except ValueError as error:
        stop(str(error))
    if not as_json:
        print(_row("file", "formula", "atoms", "volume", "move/Å", "error/Å", "status"))
    written: set[Path] = set()
    failures = sum(
        _relax_file(relaxer, path, output, overwrite, as_json, written) for path in files
    )
    if failures:
        raise typer.Exit(1)


def _relax_file(
    relaxer: Any,
    path: Path,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    written: set[Path],
) -> int:
    """Relax and write one file; how many of its structures failed."""
    from deeprelax_ase.structures.files import (
        output_path,
        read_structures,
        write_structures,
    )

    try:
        source = read_structures(path)
        target = output_path(source, output)
        _check_output(target, overwrite, written)
        results = list(relaxer.relax_many(source.structures))
        _check_results(path, results)
        write_structures(source, [result.structure for result in results], target)
        written.add(target.resolve())
    except (ValueError, OSError) as error:
        _report_failure(path, error, as_json)
        return 1
    for note in source.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    for number, result in enumerate(results):
        label = path.name if len(results) == 1 else f"{path.name}[{number}]"
        _report(label, path, target, result, as_json)
    return sum(not result.is_sound for result in results)


def _check_output(target: Path, overwrite: bool, written: set[Path]) -> None:
    if target.resolve() in written:
        msg = f"{target} was written for another input just now: relax the two one at a time"
        raise ValueError(msg)
    if target.exists() and not overwrite:
        msg = f"{target} exists: pass --overwrite to replace it, or name another --output"
        raise ValueError(msg)


def _check_results(path: Path, results: list[Any]) -> None:
    if not any(result.is_sound for result in results):
        reason = f"{results[0].status}: {results[0].message}" if results else "holds no structure"
        msg = f"{path}: {reason}; nothing was written"
        raise ValueError(msg)


def _report(label: str, path: Path, target: Path, result: Any, as_json: bool) -> None:
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
        print(json.dumps(row))
        return
    status = f"{result.status} ({result.message})" if result.message else result.status
    numbers = (
        f"{100 * result.volume_change:+.2f}%",
        f"{result.largest_displacement:.3f}",
        f"{result.expected_error:.3f}",
    )
    print(_row(label, result.formula, str(result.num_atoms), *numbers, status))


def _report_failure(path: Path, error: Exception, as_json: bool) -> None:
    message = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
    if as_json:
        print(json.dumps({"file": str(path), "status": "failed", "message": message}))
    print(f"error: {message}", file=sys.stderr)


def _row(
    label: str, formula: str, atoms: str, volume: str, move: str, error: str, status: str
) -> str:
    numbers = f"{atoms:>6} {volume:>9} {move:>8} {error:>8}"
    return f"{label:<24} {formula:<16} {numbers}  {status}"
