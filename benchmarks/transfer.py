"""Starting from weights of 3D crystals when the data are sheets: is it worth it (Sec. 2.4)?

    python -m benchmarks.transfer DATA RUNS [--seed 0]

Trains a network on the 3D files alone, then with 5, 20 and 100 % of `substitution_2d`: from those
weights, with all of the network and with its heads alone, and from scratch; and one on
everything at once. A second call goes on where the first stopped. Each run keeps its learning
curve in RUNS/<name>/validation.csv; the table is of the last validation.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablation import MEASURES, variant_config
from deeprelax_ase.config import SourceConfig, TrainConfig
from deeprelax_ase.report import markdown_table
from deeprelax_ase.train.loop import Trainer

_SHARES = (0.05, 0.2, 1.0)
_PRETRAINING = ("hypothetical", "substitution", "functional", "relaxed")
_STEPS = 1500
_EVERY = 300
_WAYS = {
    "scratch": "from random weights",
    "transfer": "from those of 3D crystals",
    "heads": "the same, heads alone",
    "together": "everything at once",
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    base = variant_config({}, arguments.seed, arguments.data)
    base = base.model_copy(update={"steps": _STEPS, "validate_every": _EVERY})
    sheets = arguments.data / "substitution_2d.parquet"
    bulk = tuple(source for source in base.sources if source.path.stem in _PRETRAINING)
    for source in bulk:
        if not source.path.exists():
            msg = f"no {source.path}: DATA is the folder of the training files"
            raise SystemExit(msg)

    def run(name: str, **changes: Any) -> Path:
        folder = arguments.runs / f"{name}-{arguments.seed}"
        config: TrainConfig = base.model_copy(update=changes)
        trainer = Trainer(config, folder)
        if trainer.step < config.steps:
            trainer.run()
        return folder / "last.safetensors"

    pretrained = run("3d", sources=bulk, steps=2 * _STEPS)
    for share in _SHARES:
        own = SourceConfig(path=sheets, share=share)
        name = f"{100 * share:.0f}%"
        # As many steps whatever the share: what counts is the data.
        run(f"scratch-{name}", sources=(own,))
        run(f"transfer-{name}", sources=(own,), start_from=pretrained)
        run(f"heads-{name}", sources=(own,), start_from=pretrained, freeze_trunk=True)
        run(f"together-{name}", sources=(*bulk, own), steps=3 * _STEPS)
    results = {
        folder.name: final_scores(folder)
        for folder in sorted(arguments.runs.iterdir())
        if (folder / "validation.csv").exists()
    }
    path = Path(__file__).parent / "results" / "transfer.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, arguments.seed))


def table(results: Mapping[str, Mapping[str, Any]], seed: int = 0) -> str:
    """Improvements over the input in per cent, by share of the data and way of training."""
    rows = []
    for share in _SHARES:
        cells = [f"{100 * share:.0f} %"]
        for way in _WAYS:
            scores = results.get(f"{way}-{100 * share:.0f}%-{seed}", {})
            cells.append(" / ".join(f"{scores[m]:.1f}" for m in MEASURES) if scores else "")
        rows.append(cells)
    return markdown_table(["share of `substitution_2d`", *_WAYS.values()], rows)


def final_scores(folder: Path) -> dict[str, Any]:
    """Measures of the last validation on `substitution_2d`, and by step; none if there is none."""
    with (folder / "validation.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "substitution_2d"]
    if not rows:
        return {}
    curve = {row["step"]: [float(row[m]) for m in MEASURES] for row in rows}
    return {**{m: float(rows[-1][m]) for m in MEASURES}, "curve": curve}


if __name__ == "__main__":
    main()
