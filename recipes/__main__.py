"""Make the shipped weights: from the files of pairs to a calibrated file, in one command.

    python -m recipes --data DATA --work WORK [--device cuda --workers 12]

Taught pairs are those in `recipes/data` (`recipes.teach` makes more). Stop it at any time: every
step writes a file, what is there is not made again, and the training goes on where it was saved.
WORK/default.safetensors is what comes of it, and WORK/hashes.json the SHA-256 of every file that
went in or came out.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import Field

from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.datasets.write_pairs import write_pairs
from deeprelax_ase.evaluation.fit_calibration import calibrate
from deeprelax_ase.files.atomic_write import replace_text, written_beside
from deeprelax_ase.files.fingerprint import sha256_of
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.config import FrozenModel
from deeprelax_ase.network.weights_registry import weights_path
from deeprelax_ase.training.config import checked_config, read_config
from deeprelax_ase.training.process import check_device
from deeprelax_ase.training.trainer import Trainer
from recipes.average import average
from recipes.distill import compositions_held_back, label, swaps_of
from recipes.scales import fit

_HERE = Path(__file__).parent
_TAUGHT = _HERE / "data"
_FILES = "[!.]*.parquet"
"""Not what a run that was killed has left of one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the files of pairs")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is made")
    parser.add_argument("--recipe", type=Path, default=_HERE / "default.yaml")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=1, help="processes that build graphs")
    options = parser.parse_args(arguments)
    try:
        recipe = Recipe.model_validate(yaml.safe_load(options.recipe.read_text()))
        where = {"device": options.device, "workers": options.workers}
        print(cook(recipe, options.data, options.work, **where))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        print("stopped: what is done is kept, the same command goes on", file=sys.stderr)
        sys.exit(130)


class Distilled(FrozenModel):
    """Inputs that nobody relaxed, with the mean of what several networks make of them."""

    inputs: str = Field(description="file whose crystals they are, with species exchanged")
    swaps: int = Field(ge=1, description="inputs a crystal")
    seed: int
    teachers: tuple[str, ...] = Field(
        min_length=1, description="names of weights, or paths from the folder of recipes"
    )


class Scales(FrozenModel):
    """Scales fitted last, on crystals that the network does not know."""

    files: tuple[str, ...] = Field(min_length=1)
    split: str = "val"
    limit: int = Field(default=1000, ge=1, description="crystals a file")
    steps: int = Field(default=200, ge=1)


class Calibrated(FrozenModel):
    """Expected errors, fitted on validation splits."""

    files: tuple[str, ...] = Field(min_length=1)
    limit: int = Field(default=400, ge=1, description="crystals a file")
    least_gain: float = Field(default=0.65, ge=0, le=1)


class Stage(FrozenModel):
    """One training."""

    starts_from: tuple[int | tuple[int, ...], ...] = Field(
        default=(),
        description="stages whose mean it starts from, as in `average`; the one before",
    )
    train: dict[str, Any] = Field(
        default_factory=dict, description="entries of a `TrainConfig` that are not those of all"
    )


class Recipe(FrozenModel):
    """How weights are made."""

    distill: dict[str, Distilled] = Field(default_factory=dict)
    train: dict[str, Any] = Field(description="entries of a `TrainConfig` that all stages share")
    stages: tuple[Stage, ...] = Field(min_length=1)
    average: tuple[int | tuple[int, ...], ...] = Field(
        default=(),
        description="stages whose weights are averaged, or several that count as one; the last. 0 "
        "is what the first starts from",
    )
    scales: Scales
    calibrate: Calibrated


def cook(recipe: Recipe, data: Path, work: Path, **where: Any) -> Path:
    """Follow a recipe; the weights that come of it.

    Args:
        recipe: What is made of what.
        data: Folder of the files of pairs.
        work: Folder of what is made; what is there is not made again.
        **where: Entries of the training run that say where it runs.

    Raises:
        ValueError: A file is missing or cannot be used.
    """
    torch.set_num_threads(1)
    _check_stages(recipe, where)
    pairs = _gather(data, work)
    _check_is_of(recipe, work)
    _distill(recipe.distill, pairs)
    name = str(recipe.train.get("name", "weights"))
    out = work / f"{name}.safetensors"
    if not out.exists():
        ends: dict[int, Path] = {}
        if "start_from" in recipe.train:
            ends[0] = _weights_file(str(recipe.train["start_from"]))
        for number, stage in enumerate(recipe.stages, start=1):
            entries = recipe.train | stage.train
            before = stage.starts_from or (number - 1,)
            if number > 1 or stage.starts_from:
                entries["start_from"] = str(_mean(work, ends, before))
            ends[number] = _train(entries, pairs, work / f"stage-{number}", where)
        beside = out.with_suffix(".unfinished")
        average(beside, [_mean(work, ends, recipe.average or (max(ends),))])
        fit(beside, beside, _named(pairs, recipe.scales.files), **_rest(recipe.scales))
        calibrate(beside, _named(pairs, recipe.calibrate.files), **_rest(recipe.calibrate))
        beside.replace(out)
    _write_hashes(work, sorted(pairs.glob(_FILES)), out)
    return out


def _check_stages(recipe: Recipe, where: dict[str, Any]) -> None:
    """Refuse, before anything is made, what no training would begin with."""
    for number, stage in enumerate(recipe.stages, start=1):
        entries = {**recipe.train, **stage.train, **where}
        config = checked_config(entries, f"stage {number} of the recipe")
        check_device(config.device)


def _check_is_of(recipe: Recipe, work: Path) -> None:
    """Refuse a folder in which another recipe was begun; note which one this is."""
    noted, text = work / "recipe.json", recipe.model_dump_json(indent=1) + "\n"
    if noted.exists() and noted.read_text() != text:
        msg = f"{work} is of another recipe ({noted}): name another --work, or take it away"
        raise ValueError(msg)
    replace_text(noted, text)


def _mean(work: Path, ends: Mapping[int, Path], parts: Sequence[int | Sequence[int]]) -> Path:
    """File of the mean of the weights of stages, or of means; that of a single one is its own."""
    files = []
    for part in parts:
        if not isinstance(part, int):
            files.append(_mean(work, ends, part))
        elif part in ends:
            files.append(ends[part].absolute())
        else:
            known = ", ".join(map(str, ends))
            msg = f"stage {part} is none of those that were made before: {known}"
            raise ValueError(msg)
    if len(files) == 1:
        return files[0]
    names = [str(p) if isinstance(p, int) else "and".join(map(str, p)) for p in parts]
    out = work / f"mean-of-{'-'.join(names)}.safetensors"
    average(out, files)
    return out.absolute()


def _train(entries: dict[str, Any], pairs: Path, folder: Path, where: dict[str, Any]) -> Path:
    """Train a stage, or go on with it; its last weights."""
    if "start_from" in entries:
        start = _weights_file(str(entries["start_from"]))
        entries = entries | {"start_from": str(start.absolute())}
    written = folder.with_suffix(".yaml")
    replace_text(written, yaml.safe_dump(entries, sort_keys=False))
    config = read_config(written, pairs, **where)
    trainer = Trainer(config, folder)
    if not trainer.is_finished:
        trainer.run()
    return folder / "last.safetensors"


def _named(pairs: Path, names: Sequence[str]) -> list[Path]:
    return [pairs / f"{name}.parquet" for name in names]


def _rest(entry: Scales | Calibrated) -> dict[str, Any]:
    return entry.model_dump(exclude={"files"})


def _gather(data: Path, work: Path) -> Path:
    """All files of pairs in one folder."""
    if not any(data.glob(_FILES)):
        msg = f"{data} holds no parquet file: --data is the folder of the files of pairs"
        raise ValueError(msg)
    pairs = work / "pairs"
    pairs.mkdir(parents=True, exist_ok=True)
    for path in [*sorted(data.glob(_FILES)), *sorted(_TAUGHT.glob(_FILES))]:
        target = pairs / path.name
        if not target.exists():
            with written_beside(target) as beside:
                shutil.copy(path, beside)
        elif sha256_of(path) != sha256_of(target):
            msg = f"{path} has changed since {target} was made of it: name another --work"
            raise ValueError(msg)
    return pairs


def _distill(entries: Mapping[str, Distilled], pairs: Path) -> None:
    """Make those files that are not there yet."""
    files = {pairs / f"{name}.parquet": entry for name, entry in entries.items()}
    missing = {out: entry for out, entry in files.items() if not out.exists()}
    if not missing:
        return
    held_back = compositions_held_back(sorted(pairs.glob(_FILES)))
    for out, entry in missing.items():
        rng = np.random.default_rng(entry.seed)
        file = PairFile(pairs / f"{entry.inputs}.parquet", "train")
        inputs = list(swaps_of(file, entry.swaps, 0.5, held_back, rng))
        networks = [load_weights(_weights_file(name)).network for name in entry.teachers]
        print(write_pairs(out, label(inputs, networks)), "pairs in", out, flush=True)


def _weights_file(name: str) -> Path:
    """File of weights by a path from the folder of recipes, or as `weights_path` finds it."""
    own = _HERE / name
    return own if own.is_file() else weights_path(name)


def _write_hashes(work: Path, inputs: Sequence[Path], out: Path) -> None:
    """Say what went in and what came out."""

    def entries() -> Iterator[tuple[str, str]]:
        for path in [*inputs, *sorted(work.glob("stage-*/last.safetensors")), out]:
            yield str(path.relative_to(work)), sha256_of(path)

    replace_text(work / "hashes.json", json.dumps(dict(entries()), indent=2) + "\n")


if __name__ == "__main__":
    main()
