"""`deeprelax info`, `train`, `evaluate` and `calibrate`."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from deeprelax_ase.cli.common import AlwaysMove, Ensemble, Limit, Model, Strict, stop, words_of

_DEPENDENCIES = ("ase", "pymatgen", "torch", "e3nn", "numpy", "scipy", "spglib")


def info(
    model: Model = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show the weights: training data, accuracy, elements covered, versions."""
    from deeprelax_ase.compiled import IS_COMPILED
    from deeprelax_ase.network.checkpoint import elements_seen, load_weights
    from deeprelax_ase.network.weights_registry import available_weights, name_of
    from deeprelax_ase.structures.elements import chemical_symbols

    try:
        weights = load_weights(model)
    except ValueError as error:
        stop(str(error))
    provenance = dict(weights.provenance)
    start = provenance.get("start_from")
    if start:  # by the name it has now
        provenance["start_from"] = start | {"name": name_of(start["sha256"]) or start["name"]}
    elements = [chemical_symbols[z] for z in provenance.pop("elements", [])]
    provenance["functionals"] = {
        name: [chemical_symbols[z] for z in sorted(seen)]
        for name, seen in elements_seen(provenance).items()
    }
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
        "compiled": IS_COMPILED,
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


def train(
    config: Annotated[Path, typer.Argument(help="JSON or YAML file of a training run.")],
    folder: Annotated[
        Path, typer.Option(help="Where the run is kept; a run found there goes on.")
    ] = Path("run"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the parquet files; default: that of CONFIG.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Weights to go on from: a name, or a path (transfer)."),
    ] = None,
    freeze_trunk: Annotated[
        bool, typer.Option("--freeze-trunk", help="Train the heads alone.")
    ] = False,
    replicates: Annotated[
        int,
        typer.Option(min=1, help="Train so many, of other seeds each, in FOLDER/1, FOLDER/2, ..."),
    ] = 1,
    strict: Strict = False,
) -> None:
    """Train a network; stops and resumes exactly, Ctrl-C included.

    Under torchrun, the processes share every batch.
    """
    from deeprelax_ase.network.weights_registry import weights_path
    from deeprelax_ase.training.config import read_config
    from deeprelax_ase.training.trainer import Trainer

    changes: dict[str, Any] = {}
    try:
        if start is not None:
            changes["start_from"] = weights_path(start)
        if freeze_trunk:
            changes["freeze_trunk"] = True
        if strict:
            changes["strict"] = True
        run = read_config(config, data, **changes)
        if replicates == 1:
            Trainer(run, folder).run()
        else:
            for number in range(1, replicates + 1):
                own = run.model_copy(update={"seed": run.seed + number - 1})
                Trainer(own, folder / str(number)).run()
    except (ValueError, OSError) as error:
        stop(words_of(error, folder))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
        raise typer.Exit(130) from None


def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Parquet files of pairs.")],
    model: Model = "default",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Limit = None,
    ensemble: Ensemble = False,
    always_move: AlwaysMove = False,
    passes: Annotated[int, typer.Option(min=1, help="Passes of each relaxation.")] = 1,
    match: Annotated[
        bool, typer.Option("--match/--no-match", help="Match rates; some 50 ms a crystal.")
    ] = True,
    details: Annotated[
        bool, typer.Option("--details", help="Tables by source and by element too.")
    ] = False,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for machines.")] = False,
) -> None:
    """Compare relaxed structures with their targets, and with the unrelaxed input.

    Errors as in Eq. 25-28 of the paper, match rates, and how far expected errors can be believed.
    The exit code is 1 if every crystal failed or was refused.
    """
    from deeprelax_ase.datasets.pair_file import file_labels
    from deeprelax_ase.evaluation.evaluate import evaluate
    from deeprelax_ase.evaluation.tables import as_json as to_json
    from deeprelax_ase.evaluation.tables import as_markdown

    options: dict[str, Any] = {"ensemble": ensemble, "always_move": always_move, "passes": passes}
    options |= {"match": match, "strict": strict}
    try:
        results = [
            evaluate(path, model, split, limit, **options, name=name)
            for path, name in zip(files, file_labels(files), strict=True)
        ]
    except (ValueError, OSError) as error:
        stop(words_of(error, "the pairs"))
    print(json.dumps(to_json(results)) if as_json else as_markdown(results, details=details))
    if all(result.failed.all() for result in results):
        raise typer.Exit(1)


def calibrate(
    weights: Annotated[Path, typer.Argument(help="Weights file; its calibration is replaced.")],
    files: Annotated[list[Path], typer.Argument(help="Parquet files of pairs.")],
    limit: Limit = None,
    ensemble: Ensemble = False,
    least_gain: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Move a crystal if the probability of a gain is at least this."
        ),
    ] = None,
) -> None:
    """Fit expected errors and intervals on the validation splits of files of pairs."""
    from deeprelax_ase.evaluation.fit_calibration import calibrate

    try:
        print(calibrate(weights, files, limit, ensemble=ensemble, least_gain=least_gain))
    except (ValueError, OSError) as error:
        stop(words_of(error, weights))


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
