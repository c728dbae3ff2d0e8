"""What each way to make a structure of the same predictions is worth.

    python -m benchmarks.solves DATA NAME=WEIGHTS [NAME=WEIGHTS ...]

The heads' own displacements and strain, the paper's hinge, and the joint fit with one step, more,
and re-weighted, on the validation split; results by NAME are kept in results/solves.json.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ablation import MEASURES, SETS, cell
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.training.validation import score, through_the_solve

_RESULTS = Path(__file__).parent / "results" / "solves.json"
_LIMIT = 300
_WAYS = {
    "heads alone": ("joint", 0),
    "hinge (`bed`)": ("bed", 0),
    "joint, 1 step": ("joint", 1),
    "joint, 2 steps": ("joint", 2),
    "joint, 4 steps": ("joint", 4),
    "joint, to its end": ("joint", 20),
    "robust, to its end": ("robust", 20),
}


def main() -> None:
    """Score the weights in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+", help="NAME=WEIGHTS")
    arguments = parser.parse_args()
    results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    files = {name: PairFile(arguments.data / f"{name}.parquet", "val") for name in SETS}
    for entry in arguments.weights:
        label, _, path = entry.partition("=")
        weights = load_weights(path)
        config = weights.network.config
        results[label] = {}
        for way, (method, steps) in _WAYS.items():
            relax = through_the_solve(weights.network.eval(), config, "cpu", method, steps)
            scores = {name: score(relax, config, file, _LIMIT) for name, file in files.items()}
            results[label][way] = {
                name: {m: float(scores[name][m]) for m in MEASURES} for name in SETS
            }
            _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    """Improvements over the input in per cent, by weights and way."""
    rows = [
        [
            f"{label}: {way}",
            *(cell(scores[name]) for name in SETS),
        ]
        for label, ways in results.items()
        for way, scores in ways.items()
    ]
    return markdown_table(["", *(f"`{name}`" for name in SETS)], rows)


if __name__ == "__main__":
    main()
