"""What each part of the network and its training is worth, at an equal, small budget.

    python -m benchmarks.ablation DATA RUNS [--seeds 0 1] [--variants control ucoe ...]

Trains every variant with every seed in a folder of its own under RUNS (a second call goes on where
the first stopped) and prints the table of improvements on the validation split.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from deeprelax_ase.config import TrainConfig
from deeprelax_ase.train.loop import Trainer

_BASE = Path(__file__).parents[1] / "weights" / "default.json"
_BUDGET = {"steps": 4000, "edges_per_batch": 6000, "validate_every": 4000, "augmentation": None}
SETS = ("hypothetical", "substitution", "substitution_2d", "functional")
_MEASURES = ("coordinates", "displacement", "bonds", "lattice", "volume")
VARIANTS: dict[str, dict[str, Any]] = {
    "control": {},
    "heads only": {"network": {"solver_steps": 0}},
    "UCOE": {"network": {"ucoe": True}},
    "2 solver steps": {"network": {"solver_steps": 2}},
    "20 to 12 neighbours": {"network": {"max_neighbors": 12}},
    "20 to 32 neighbours": {"network": {"max_neighbors": 32}},
    "5 Å": {"network": {"cutoff": 5.0}},
    "8 Å": {"network": {"cutoff": 8.0}},
    "64 features": {"network": {"num_features": 64}},
    "128 features": {"network": {"num_features": 128}},
    "2 layers": {"network": {"num_layers": 2}},
    "4 layers": {"network": {"num_layers": 4}},
    "no likelihood": {"loss": {"nll": 0.0}},
    "3 solver steps": {"network": {"solver_steps": 3}},
    "4 solver steps": {"network": {"solver_steps": 4}},
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
            config = variant_config(VARIANTS[variant], seed, arguments.data)
            trainer = Trainer(config, run_folder(arguments.runs, variant, seed))
            if trainer.step < config.steps:
                trainer.run()
    print(table(arguments.runs))


def variant_config(changes: dict[str, Any], seed: int, data: Path) -> TrainConfig:
    """The shipped configuration with a small budget and some changes."""
    entries = json.loads(_BASE.read_text()) | _BUDGET | {"seed": seed}
    for section, values in changes.items():
        entries[section] = entries[section] | values
    for source in entries["sources"]:
        source["path"] = str(data / source["path"])
    return TrainConfig(**entries)


def run_folder(runs: Path, variant: str, seed: int) -> Path:
    """Where a run is kept."""
    return runs / f"{variant.replace(' ', '_')}-{seed}"


def table(runs: Path) -> str:
    """Improvements over the input in per cent, mean of the seeds that have finished."""
    lines = [f"| | seeds | {' | '.join(SETS)} |", "|---" * (len(SETS) + 2) + "|"]
    for variant in VARIANTS:
        results = [
            scores
            for folder in sorted(runs.glob(run_folder(runs, variant, 0).name[:-1] + "[0-9]"))
            if (scores := final_scores(folder))
        ]
        if results:
            cells = [
                " / ".join(
                    f"{sum(float(r[name][m]) for r in results) / len(results):.1f}"
                    for m in _MEASURES
                )
                for name in SETS
            ]
            lines.append(f"| {variant} | {len(results)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def final_scores(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the last validation by set; empty if the run is not at its end."""
    path = folder / "validation.csv"
    if not path.exists():
        return {}
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return {row["set"]: row for row in rows if int(row["step"]) == _BUDGET["steps"]}


if __name__ == "__main__":
    main()
