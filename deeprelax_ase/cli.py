"""The command line: relax, info, train, evaluate, calibrate."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Relax crystal structures in one pass.", no_args_is_help=True, add_completion=False
)

_DEPENDENCIES = ("ase", "pymatgen", "torch", "e3nn", "numpy", "scipy", "vesin", "spglib")

Model = Annotated[str, typer.Option(help="Name of shipped weights, or a path to a weights file.")]


@app.command()
def relax(
    files: Annotated[list[Path], typer.Argument(help="POSCAR, CIF, extxyz, ...: any number.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File, or for several inputs a folder."),
    ] = None,
    functional: Annotated[
        str, typer.Option(help="Functional to relax to: PBE, PBEsol, r2SCAN, optB88-vdW, unknown.")
    ] = "PBE",
    model: Model = "default",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    vacuum: Annotated[
        str, typer.Option(help="auto: never strain an axis with a gap over 8 Å; none: strain all.")
    ] = "auto",
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Move atoms only.")] = False,
    allow_unseen: Annotated[
        bool, typer.Option("--allow-unseen", help="Go on with elements the weights never saw.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Relax structure files; write <name>_relaxed beside each, in the same format.

    Prints a line a structure. The exit code is 1 if any file or structure failed or was refused.
    """
    from deeprelax_ase.relax import shared_relaxer

    if len(files) > 1 and output is not None and output.exists() and not output.is_dir():
        _stop(f"{output} is a file, and there are {len(files)} inputs: name a folder")
    if len(files) > 1 and output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _stop(f"cannot make the folder {output}: {error.strerror}")
    try:
        relaxer = shared_relaxer(model, functional, device, not fixed_cell, vacuum, allow_unseen)
    except ValueError as error:
        _stop(str(error))
    if not as_json:
        print(_row("file", "formula", "atoms", "volume", "move/Å", "error/Å", "status"))
    written: set[Path] = set()
    failures = sum(
        _relax_file(relaxer, path, output, overwrite, as_json, written) for path in files
    )
    if failures:
        raise typer.Exit(1)


@app.command()
def info(
    model: Model = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show the weights: training data, accuracy, elements covered, versions."""
    from ase.data import chemical_symbols

    from deeprelax_ase.checkpoint import load_weights
    from deeprelax_ase.weights_files import available_weights

    try:
        weights = load_weights(model)
    except ValueError as error:
        _stop(str(error))
    provenance = dict(weights.provenance)
    elements = [chemical_symbols[z] for z in provenance.pop("elements", [])]
    facts: dict[str, Any] = {
        "weights": weights.name,
        "sha256": weights.sha256,
        "available": available_weights(),
        "parameters": sum(p.numel() for p in weights.network.parameters()),
        "network": weights.network.config.model_dump(),
        **provenance,
        "calibration": dict(weights.calibration),
        "elements": elements,
        "versions": {name: _version(name) for name in ("deeprelax-ase", *_DEPENDENCIES)},
    }
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, entry in value.items():
                print(f"  {name}: {_short(entry)}")
        else:
            print(f"{key}: {_short(value)}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="JSON or YAML file of a training run.")],
    folder: Annotated[
        Path, typer.Option(help="Where the run is kept; a run found there goes on.")
    ] = Path("run"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the parquet files; default: that of CONFIG.")
    ] = None,
) -> None:
    """Train a network; stops and resumes exactly, Ctrl-C included."""
    from deeprelax_ase.train.loop import Trainer, read_config

    try:
        trainer = Trainer(read_config(config, data), folder)
        trainer.run()
    except (ValueError, OSError) as error:
        _stop(str(error))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Parquet files of pairs.")],
    model: Model = "default",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[int | None, typer.Option(help="At most so many crystals a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare relaxed structures with their targets, and with the unrelaxed input."""
    from deeprelax_ase import evaluate as evaluation
    from deeprelax_ase.checkpoint import load_weights

    try:
        weights = load_weights(model)
        results = [evaluation.evaluate(path, weights, split, limit) for path in files]
    except (ValueError, OSError) as error:
        _stop(str(error))
    if as_json:
        print(json.dumps({result.name: result.summary() for result in results}))
    else:
        print(evaluation.markdown_table(results))


@app.command()
def calibrate(
    weights: Annotated[Path, typer.Argument(help="Weights file; its calibration is replaced.")],
    files: Annotated[list[Path], typer.Argument(help="Parquet files of pairs.")],
    limit: Annotated[int | None, typer.Option(help="At most so many crystals a file.")] = None,
) -> None:
    """Fit the factors of expected errors on the validation splits of files of pairs."""
    from deeprelax_ase import evaluate as evaluation

    try:
        print(evaluation.calibrate(weights, files, limit))
    except (ValueError, OSError) as error:
        _stop(str(error))


def _relax_file(
    relaxer: Any,
    path: Path,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    written: set[Path],
) -> int:
    """Relax and write one file; how many of its structures failed."""
    from deeprelax_ase.files import (
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
    return sum(result.status != "relaxed" for result in results)


def _check_output(target: Path, overwrite: bool, written: set[Path]) -> None:
    if target.resolve() in written:
        msg = f"{target} was written for another input just now: relax the two one at a time"
        raise ValueError(msg)
    if target.exists() and not overwrite:
        msg = f"{target} exists: pass --overwrite to replace it, or name another --output"
        raise ValueError(msg)


def _check_results(path: Path, results: list[Any]) -> None:
    if not any(result.status == "relaxed" for result in results):
        reason = f"{results[0].status}: {results[0].message}" if results else "holds no structure"
        msg = f"{path}: {reason}; nothing was written"
        raise ValueError(msg)


def _report(label: str, path: Path, target: Path, result: Any, as_json: bool) -> None:
    if as_json:
        row = {
            "file": str(path),
            "label": label,
            "output": str(target),
            "status": result.status,
            "message": result.message,
            "formula": result.formula,
            "atoms": result.num_atoms,
            "volume_change_percent": 100 * result.volume_change,
            "largest_displacement": result.largest_displacement,
            "expected_error": _finite(result.expected_error),
            "uncertainty": _finite(result.uncertainty),
            "seconds": result.seconds,
            "weights": result.weights.name,
            "sha256": result.weights.sha256,
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


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if value == value else None  # noqa: PLR0124 - NaN alone differs from itself


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(entry) for entry in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _stop(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
