"""Is it worth it to start from weights of 3D crystals when the data are of another kind (Sec. 2.4)?

    python -m benchmarks.transfer DATA RUNS [--study sheets] [--seed 0]

Trains a network on the 3D files alone, then with 5, 20 and 100 % of the data of the study: from
those weights, with all of the network and with its heads alone, and from scratch; and one on
everything at once. The studies are `sheets` (`substitution_2d`) and `hydrides`: the Sr-Nb-H
crystals of `defects_and_hydrides`, split by formula, with the defects in MgO and CdTe for none of
the networks to see (Sec. 2.6). A second call goes on where the first stopped. Each run keeps its
learning curve in RUNS/<name>/validation.csv; the table is of the last validation.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.ablation import MEASURES, Variant, cell, finish, variant_config
from deeprelax_ase.datasets.config import SourceConfig
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.training.config import TrainConfig
from deeprelax_ase.training.trainer import Trainer
from deeprelax_ase.training.validation import Moves, score, through_the_solve

_SHARES = (1.0, 0.2, 0.05)
_PRETRAINING = ("hypothetical", "substitution", "functional", "relaxed")
_PRETRAINING_STEPS = 3000
_WAYS = {
    "scratch": "from random weights",
    "transfer": "from those of 3D crystals",
    "heads": "the same, heads alone",
    "together": "everything at once",
}
_RESULTS = Path(__file__).parent / "results" / "transfer.json"
_VALIDATION_SHARE = 0.2
_ATOMS = ("coordinates", "displacement", "bonds")
"""What is measured where the cell is held."""


@dataclass(frozen=True)
class Study:
    """Data of another kind, and for how long networks are trained on them.

    Attributes:
        label: What a table calls the data.
        steps: On the data alone, however many there are.
        passes: Of the data in an epoch of everything at once.
        held_out: Files that no network has seen, to be scored at the end.
    """

    label: str
    steps: int
    passes: float
    held_out: tuple[str, ...]


STUDIES = {
    "sheets": Study("substitution_2d", steps=1500, passes=1.0, held_out=()),
    "hydrides": Study("hydrides", steps=600, passes=20.0, held_out=("MgO", "CdTe")),
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--study", choices=list(STUDIES), default="sheets")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    base = variant_config(Variant(), arguments.seed, arguments.data)
    bulk = tuple(source for source in base.sources if source.path.stem in _PRETRAINING)
    for source in bulk:
        if not source.path.exists():
            msg = f"no {source.path}: DATA is the folder of the training files"
            raise SystemExit(msg)
    folder = arguments.runs / arguments.study
    folder.mkdir(parents=True, exist_ok=True)
    files = {"substitution_2d": arguments.data / "substitution_2d.parquet"}
    if study.held_out:
        files = split_hydrides(arguments.data / "defects_and_hydrides.parquet", folder)

    def run(path: Path, steps: int, **changes: Any) -> Path:
        config: TrainConfig = base.model_copy(
            update={"steps": steps, "validate_every": max(1, steps // 5), **changes}
        )
        finish(Trainer(config, path))
        return path / "last.safetensors"

    pretrained = run(
        arguments.runs / f"3d-{arguments.seed}", sources=bulk, steps=_PRETRAINING_STEPS
    )
    results = json.loads(_RESULTS.read_text())
    for share in _SHARES:
        alone = (SourceConfig(path=files[study.label], share=share),)
        both = (*bulk, alone[0].model_copy(update={"passes": study.passes}))
        ways: dict[str, dict[str, Any]] = {
            "scratch": {"sources": alone},
            "transfer": {"sources": alone, "start_from": pretrained},
            "heads": {"sources": alone, "start_from": pretrained, "freeze_trunk": True},
            "together": {"sources": both},
        }
        for way, changes in ways.items():
            name = f"{way}-{100 * share:.0f}%-{arguments.seed}"
            # As many steps whatever the share: what counts is the data.
            steps = study.steps + (_PRETRAINING_STEPS if way == "together" else 0)
            weights = run(folder / name, steps, **changes)
            held_out = {label: _score_defects(weights, files[label]) for label in study.held_out}
            scores = final_scores(folder / name, study.label)
            results.setdefault(arguments.study, {})[name] = scores | held_out
            _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if study.held_out:
        results[arguments.study][f"3d-{arguments.seed}"] = {
            label: _score_defects(pretrained, files[label]) for label in study.held_out
        }
        _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results[arguments.study], arguments.study, arguments.seed))


def split_hydrides(source: Path, folder: Path) -> dict[str, Path]:
    """Sr-Nb-H crystals split by formula, and the defects in MgO and in CdTe, as files.

    The formulas of the file's own test split are left out.
    """
    rows = [row for row in pq.read_table(source).to_pylist() if row["split"] != "test"]
    hydrides = [row for row in rows if "Sr-Nb-H" in row["source"]]
    formulas = sorted({_formula(row) for row in hydrides})
    chosen = np.random.default_rng(0).permutation(len(formulas))
    validation = {formulas[k] for k in chosen[: round(_VALIDATION_SHARE * len(formulas))]}
    parts: dict[str, list[dict[str, Any]]] = {
        "hydrides": [
            {**row, "split": "val" if _formula(row) in validation else "train"} for row in hydrides
        ]
    }
    for label in STUDIES["hydrides"].held_out:
        parts[label] = [{**row, "split": "val"} for row in rows if label in row["source"]]
    schema = pq.read_schema(source)
    files = {label: folder / f"{label}.parquet" for label in parts}
    for label, part in parts.items():
        pq.write_table(pa.Table.from_pylist(part, schema), files[label])
    return files


def _formula(row: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Elements and their numbers of atoms in lowest terms."""
    elements, counts = np.unique(row["numbers"], return_counts=True)
    lowest = counts // np.gcd.reduce(counts)
    return tuple(zip(elements.tolist(), lowest.tolist(), strict=True))


def table(results: Mapping[str, Mapping[str, Any]], study: str, seed: int = 0) -> str:
    """Improvements over the input in per cent, by share of the data and way of training."""
    rows = []
    for share in sorted(_SHARES):
        of_share = [results.get(f"{way}-{100 * share:.0f}%-{seed}", {}) for way in _WAYS]
        rows.append([f"{100 * share:.0f} %", *map(cell, of_share)])
        for label in STUDIES[study].held_out:
            cells = [cell(scores.get(label, {})) for scores in of_share]
            rows.append([f"{label} with that", *cells])
    return markdown_table([f"share of `{STUDIES[study].label}`", *_WAYS.values()], rows)


def _score_defects(path: Path, file: Path) -> dict[str, float]:
    """Improvements of weights on all cells of a file, which keep their shape as in DFT."""
    network = load_weights(path).network.eval()
    free = through_the_solve(network, network.config, "cpu")

    def relax(graph: CrystalGraph) -> Moves:
        return free(replace(graph, strain_projectors=torch.zeros_like(graph.strain_projectors)))

    scores = score(relax, network.config, PairFile(file, "val"), limit=10_000)
    return {name: float(scores[name]) for name in _ATOMS}


def final_scores(folder: Path, label: str) -> dict[str, Any]:
    """Measures of the last validation on a file, and by step; none if there is none."""
    with (folder / "validation.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == label]
    if not rows:
        return {}
    curve = {row["step"]: list(_measures(row).values()) for row in rows}
    return {**_measures(rows[-1]), "curve": curve}


def _measures(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(scores[name]) for name in MEASURES}


if __name__ == "__main__":
    main()
