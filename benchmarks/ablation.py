"""What each part of the network and its training is worth, at an equal, small budget.

    python -m benchmarks.ablation DATA RUNS [--seeds 0 1] [--variants control ucoe ...]

Trains every variant with every seed in a folder of its own under RUNS (a second call goes on where
the first stopped) and prints the table of improvements on the validation split.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.training.config import TrainConfig
from deeprelax_ase.training.trainer import Trainer

_BASE = Path(__file__).with_suffix(".json")
"""The first stage of the first generation, which started from random weights."""
_RESULTS = Path(__file__).parent / "results" / "ablation.json"
_BUDGET = {"steps": 4000, "edges_per_batch": 6000, "validate_every": 4000, "augmentation": None}
Results = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Improvements over the input, per cent, by variant, seed, set and measure."""
SETS = ("hypothetical", "substitution", "substitution_2d", "functional")
MEASURES = ("coordinates", "displacement", "bonds", "lattice", "volume")
_MOST_SEEDS = 10


@dataclass(frozen=True)
class Variant:
    """What a run changes of the base.

    Attributes:
        network: Entries of the network's configuration.
        loss: Entries of the loss's.
        share: Of the crystals, how many are trained on.
        is_told_functional: Whether the functional is an input.
        denoises_first: Whether half of the steps are spent on relaxed crystals first.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    is_told_functional: bool = True
    denoises_first: bool = False


VARIANTS: dict[str, Variant] = {
    "control": Variant(),
    "heads only": Variant({"solver_steps": 0}),
    "heads only, no likelihood": Variant({"solver_steps": 0}, {"nll": 0.0}),
    "heads only, UCOE": Variant({"solver_steps": 0, "ucoe": True}),
    "UCOE": Variant({"ucoe": True}),
    "2 solver steps": Variant({"solver_steps": 2}),
    "20 to 12 neighbours": Variant({"max_neighbors": 12}),
    "12 neighbours, lmax 2": Variant({"max_neighbors": 12, "num_tensors": 32}),
    "20 to 32 neighbours": Variant({"max_neighbors": 32}),
    "5 Å": Variant({"cutoff": 5.0}),
    "8 Å": Variant({"cutoff": 8.0}),
    "64 features": Variant({"num_features": 64}),
    "128 features": Variant({"num_features": 128}),
    "2 layers": Variant({"num_layers": 2}),
    "4 layers": Variant({"num_layers": 4}),
    "no likelihood": Variant(loss={"nll": 0.0}),
    "3 solver steps": Variant({"solver_steps": 3}),
    "4 solver steps": Variant({"solver_steps": 4}),
    "no functional": Variant(is_told_functional=False),
    "denoising first": Variant(denoises_first=True),
    "a third of the data": Variant(share=0.33),
    "a tenth of the data": Variant(share=0.1),
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    for variant in arguments.variants:
        for seed in arguments.seeds:
            train(variant, seed, arguments.data, run_folder(arguments.runs, variant, seed))
    # What was measured elsewhere stays.
    results = json.loads(_RESULTS.read_text())
    for variant, seeds in collect(arguments.runs).items():
        results[variant] = results.get(variant, {}) | seeds
    _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def train(variant: str, seed: int, data: Path, folder: Path) -> None:
    """Train a variant to its end, unless it is there."""
    chosen = VARIANTS[variant]
    config = variant_config(chosen, seed, data)
    if chosen.denoises_first:
        half = {"steps": config.steps // 2}
        relaxed = tuple(s for s in config.sources if s.path.stem.startswith("relaxed"))
        first = config.model_copy(update={"sources": relaxed, **half})
        finish(Trainer(first, folder / "first"))
        start = {"start_from": folder / "first" / "last.safetensors"}
        config = config.model_copy(update={**start, **half})
    trainer = Trainer(config, folder)
    if not chosen.is_told_functional:
        _forget_functional(trainer)
    finish(trainer)


def finish(trainer: Trainer) -> None:
    """Go on to the end of a run, if it is not there."""
    if trainer.step < trainer.config.steps:
        trainer.run()


def _forget_functional(trainer: Trainer) -> None:
    for network in (trainer.network, trainer.average.module):
        assert isinstance(network, PaEGNN)
        network.functionals.weight.requires_grad_(False).zero_()


def variant_config(variant: Variant, seed: int, data: Path) -> TrainConfig:
    """The shipped configuration with a small budget and the changes of a variant."""
    entries = json.loads(_BASE.read_text()) | _BUDGET | {"seed": seed}
    for section in ("network", "loss"):
        entries[section] = entries[section] | getattr(variant, section)
    for source in entries["sources"]:
        source |= {"path": str(data / source["path"]), "share": variant.share}
    return TrainConfig(**entries)


def run_folder(runs: Path, variant: str, seed: int) -> Path:
    """Where a run is kept."""
    return runs / f"{variant.replace(' ', '_')}-{seed}"


def collect(runs: Path) -> Results:
    """Scores of every finished run; those of `benchmarks.baselines` too."""
    found: Results = {}
    for variant in VARIANTS:
        for seed in range(_MOST_SEEDS):
            scores = _final_scores(run_folder(runs, variant, seed))
            if scores:
                found.setdefault(variant, {})[str(seed)] = scores
    for path in sorted(runs.glob("*.json")):
        scores = json.loads(path.read_text())
        variant, seed_name = path.stem.rsplit("-", 1)
        found.setdefault(variant, {})[seed_name] = {name: scores[name] for name in SETS}
    return found


def table(results: Results) -> str:
    """Improvements over the input in per cent, mean of the seeds that have finished."""
    lines = [f"| | seeds | {' | '.join(f'`{name}`' for name in SETS)} |"]
    lines.append("|---" * (len(SETS) + 2) + "|")
    for variant, seeds in results.items():
        cells = [
            cell({m: sum(s[name][m] for s in seeds.values()) / len(seeds) for m in MEASURES})
            for name in SETS
        ]
        lines.append(f"| {variant} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(scores: Mapping[str, float]) -> str:
    """What a table shows of the measures that are there."""
    return " / ".join(f"{scores[m]:.1f}" for m in MEASURES if m in scores)


def _final_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Measures of the last validation by set; empty if the run is not at its end."""
    path = folder / "validation.csv"
    if not path.exists():
        return {}
    steps = str(json.loads((folder / "config.json").read_text())["steps"])
    with path.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["step"] == steps]
    return {row["set"]: {m: float(row[m]) for m in MEASURES} for row in rows if row["set"] in SETS}


if __name__ == "__main__":
    main()
