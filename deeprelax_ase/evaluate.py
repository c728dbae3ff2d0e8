"""Accuracy of weights on files of pairs, through the same door a user takes, and calibration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from deeprelax_ase.checkpoint import Weights, load_weights, save_weights
from deeprelax_ase.config import FUNCTIONALS
from deeprelax_ase.data.augment import Pair
from deeprelax_ase.data.dataset import PairFile, collate
from deeprelax_ase.metrics import Errors, compute_errors, concatenate, improvement, input_errors
from deeprelax_ase.relax import Relaxer
from deeprelax_ase.result import Bonds, RelaxResult
from deeprelax_ase.structure import atoms_of
from deeprelax_ase.uncertainty import Calibration, fit_factor

_CHUNK = 64


@dataclass(frozen=True)
class Evaluation:
    """Errors on one file.

    Attributes:
        name: Of the file.
        errors: Of the relaxed structures.
        dummy: Of the inputs themselves.
        expected: Expected error of each crystal's bonds, Å.
        expected_displacement: Mean over its atoms of their expected error, Å.
        bond_errors: Of every predicted bond length, Å.
        bond_uncertainties: What was expected of them, Å.
        not_relaxed: How many crystals were refused or failed; they count as their inputs.
    """

    name: str
    errors: Errors
    dummy: Errors
    expected: Float[np.ndarray, " crystals"]
    expected_displacement: Float[np.ndarray, " crystals"]
    bond_errors: Float[np.ndarray, " bonds"]
    bond_uncertainties: Float[np.ndarray, " bonds"]
    not_relaxed: int

    def summary(self) -> dict[str, int | float]:
        """Means, and by how many per cent they are below those of the input."""
        means = {f.name: float(getattr(self.errors, f.name).mean()) for f in fields(Errors)}
        better = improvement(self.errors, self.dummy)
        return {
            "crystals": len(self.expected),
            "not_relaxed": self.not_relaxed,
            **{f"{name}_error": value for name, value in means.items()},
            **{f"{name}_better": value for name, value in better.items()},
            "expected_error": float(self.expected.mean()),
            "expected_displacement_error": float(self.expected_displacement.mean()),
            "predicted_bond_error": float(self.bond_errors.mean()),
        }


def evaluate(
    path: Path, weights: Weights, split: str = "val", limit: int | None = None
) -> Evaluation:
    """Relax the inputs of a file of pairs and compare with their targets.

    Args:
        path: Parquet file, see `data.dataset`. Each pair is relaxed to its own functional.
        weights: Of any network.
        split: `train`, `val` or `test`.
        limit: At most so many crystals, evenly spaced.

    Raises:
        ValueError: Not a file of pairs, or nothing of that split.
    """
    file = PairFile(path, split)
    if not file.is_pairs:
        msg = f"{path} holds relaxed crystals, not pairs: it has no column relaxed_cell"
        raise ValueError(msg)
    count = len(file) if limit is None else min(limit, len(file))
    rows = np.linspace(0, len(file) - 1, count).astype(int).tolist()
    parts = []
    for functional in FUNCTIONALS:
        pairs = [pair for row in rows if (pair := file[row]).functional == functional]
        relaxer = Relaxer(weights, functional, allow_unseen=True)
        parts += [_compare(relaxer, chunk) for chunk in _chunks(pairs)]
    return Evaluation(
        name=path.stem,
        errors=concatenate([part.errors for part in parts]),
        dummy=concatenate([part.dummy for part in parts]),
        expected=np.concatenate([part.expected for part in parts]),
        expected_displacement=np.concatenate([part.expected_displacement for part in parts]),
        bond_errors=np.concatenate([part.bond_errors for part in parts]),
        bond_uncertainties=np.concatenate([part.bond_uncertainties for part in parts]),
        not_relaxed=sum(part.not_relaxed for part in parts),
    )


def calibrate(path: Path, files: Sequence[Path], limit: int | None = None) -> Calibration:
    """Fit the factors of expected errors on validation data and store them with the weights.

    Args:
        path: Weights file; it is replaced by one that differs in its calibration alone.
        files: Files of pairs; each counts the same.
        limit: At most so many crystals of each.
    """
    weights = replace(load_weights(path), calibration={})
    evaluations = [evaluate(file, weights, limit=limit) for file in files]

    def factor(errors: str, scales: str) -> float:
        values = [
            (np.nanmean(_array(entry, errors)), np.nanmean(_array(entry, scales)))
            for entry in evaluations
        ]
        return fit_factor(*(np.array(column) for column in zip(*values, strict=True)))

    calibration = Calibration(
        displacement=factor("displacement", "expected_displacement"),
        distance=factor("bond_errors", "bond_uncertainties"),
    )
    save_weights(path, weights.network, weights.provenance, vars(calibration))
    return calibration


def markdown_table(evaluations: Sequence[Evaluation]) -> str:
    """Improvement over the input as a Markdown table, a row a file."""
    columns = ("crystals", "coordinates", "displacement", "bonds", "lattice", "volume")
    lines = [
        f"| better than the input by (%) | {' | '.join(columns)} | displacement error / Å |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for evaluation in evaluations:
        row = evaluation.summary()
        cells = [
            f"`{evaluation.name}`",
            f"{row['crystals']:.0f}",
            *(f"{row[f'{name}_better']:.1f}" for name in columns[1:]),
            f"{row['displacement_error']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _compare(relaxer: Relaxer, pairs: Sequence[Pair]) -> Evaluation:
    results = list(relaxer.relax_many(atoms_of(pair.crystal) for pair in pairs))
    graph, targets = collate(pairs, relaxer.network.config)
    moves = [_moves(result, pair) for result, pair in zip(results, pairs, strict=True)]
    displacements = torch.from_numpy(np.concatenate(moves))
    strains = torch.from_numpy(np.stack([result.strain for result in results]))
    bond_errors = [
        np.abs(result.bonds.lengths - _true_lengths(result.bonds, pair))
        for result, pair in zip(results, pairs, strict=True)
        if result.bonds is not None
    ]
    bond_uncertainties = [r.bonds.uncertainties for r in results if r.bonds is not None]
    return Evaluation(
        name="",
        errors=compute_errors(graph, displacements, torch.linalg.matrix_exp(strains), targets),
        dummy=input_errors(graph, targets),
        expected=np.array([result.expected_error for result in results]),
        expected_displacement=np.array(
            [r.site_errors.mean() if len(r.site_errors) else np.nan for r in results]
        ),
        bond_errors=np.concatenate(bond_errors),
        bond_uncertainties=np.concatenate(bond_uncertainties),
        not_relaxed=sum(result.status != "relaxed" for result in results),
    )


def _moves(result: RelaxResult, pair: Pair) -> Float[np.ndarray, "atoms 3"]:
    return result.displacement if result.bonds is not None else np.zeros_like(pair.displacements)


def _true_lengths(bonds: Bonds, pair: Pair) -> Float[np.ndarray, " bonds"]:
    """Relaxed length of predicted bonds in the target, Å."""
    i, j = bonds.edge_index
    places = pair.crystal.positions + pair.displacements
    vectors = places[j] + bonds.offsets @ pair.crystal.cell - places[i]
    return np.linalg.norm(vectors @ pair.deformation, axis=1)


def _array(evaluation: Evaluation, name: str) -> Float[np.ndarray, " values"]:
    """A field of an evaluation, or of its errors."""
    source = evaluation if hasattr(evaluation, name) else evaluation.errors
    return np.asarray(getattr(source, name))


def _chunks(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    for first in range(0, len(pairs), _CHUNK):
        yield pairs[first : first + _CHUNK]
