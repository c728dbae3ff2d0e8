"""What further signs of an error would add to the expected error, on kinds left out of the fit.

    python -m benchmarks.signs DATA/*.parquet --replicate weights/default-2.safetensors

Each is added to those of `crystal_signs`; one file is left out at a time. Shown: expected over
actual mean error in the worst kinds, its root mean square deviation from 1 as a logarithm, and the
rank correlation over all crystals. What they cost is said, as a share of a relaxation.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.pair_file import PairFile, open_pairs
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.relaxation.calibration import crystal_signs, fit_crystal
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.passes import run_passes
from deeprelax_ase.structures.crystal import MAX_ATOMIC_NUMBER, relaxed_lengths
from deeprelax_ase.structures.read_structure import held_structure, read_structure

_BATCH = 32
_REFERENCE = 400
"""Training crystals of each file that the Gaussians of features are of."""
_ENOUGH = 14
"""Crystals of a kind whose mean is shown."""
_PRIOR = 20
"""Atoms that the mean over all elements counts for in that of one."""
_COSTS = {
    "size of the move": "nothing",
    "number of atoms": "nothing",
    "rarest pair of elements": "nothing",
    "distance of the features": "little",
    "second pass": "once more",
    "replicate": "once more",
    "another functional": "once more",
}
_ANOTHER = "unknown"
Signs = dict[str, Float[np.ndarray, " crystals"]]


class Reference:
    """Training crystals: Gaussians of an element's features, and how often elements met."""

    def __init__(self, files: Sequence[PairFile], predictor: Predictor) -> None:
        found = [_features(predictor, [f[row] for row in _spread(f, _REFERENCE)]) for f in files]
        columns = zip(*found, strict=True)
        features, numbers = (np.concatenate([np.concatenate(x) for x in y]) for y in columns)
        middle = features.mean(axis=0)
        self.means = np.tile(middle, (MAX_ATOMIC_NUMBER + 1, 1))
        for number in np.unique(numbers):
            own = features[numbers == number]
            self.means[number] = (own.sum(axis=0) + _PRIOR * middle) / (len(own) + _PRIOR)
        spread = np.cov((features - self.means[numbers]).T)
        self.inverse = np.linalg.inv(spread + 1e-4 * np.trace(spread) * np.eye(len(spread)))
        self.met = np.zeros((MAX_ATOMIC_NUMBER + 1,) * 2)
        for file in files:
            for row in range(len(file)):
                one = np.unique(file[row].crystal.numbers)
                self.met[np.ix_(one, one)] += 1

    def distance(
        self, features: Float[np.ndarray, "atoms _"], numbers: Int[np.ndarray, " atoms"]
    ) -> float:
        """Mean Mahalanobis distance of the atoms of a crystal from those of training."""
        apart = features - self.means[numbers]
        return float(np.sqrt(np.einsum("ai,ij,aj->a", apart, self.inverse, apart)).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--replicate", default="default-2")
    parser.add_argument("--limit", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, second = (
        Predictor([replace(load_weights(name), calibration={})], torch.device("cpu"), "joint")
        for name in (options.model, options.replicate)
    )
    reference = Reference([open_pairs(path, "train") for path in options.files], first)
    kinds = []
    for path in options.files:
        file = open_pairs(path, "val")
        pairs = [file[row] for row in _spread(file, options.limit)]
        kinds.append(measure(pairs, first, second, reference))
    rows = [_row(name, names, kinds) for name, names in _choices(kinds[0][2])]
    header = ["", "costs", "expected / actual", "deviation", "Spearman"]
    print(markdown_table(header, rows))


def measure(
    pairs: Sequence[Pair], first: Predictor, second: Predictor, reference: Reference
) -> tuple[Float[np.ndarray, " crystals"], Float[np.ndarray, "crystals signs"], Signs]:
    """Mean error of the bonds of each crystal, its signs, and further ones by name."""
    errors, signs = [], []
    further: dict[str, list[float]] = {name: [] for name in _COSTS}
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        inputs = [
            read_structure(held_structure(pair.crystal), search=first.config.reach)
            for pair in batch
        ]
        functionals, gains = [pair.functional for pair in batch], [0.0] * len(batch)
        anothers = [_ANOTHER if name != _ANOTHER else "PBE" for name in functionals]
        runs, others, twice, elsewhere = (
            run_passes(inputs, names, one, passes, keep_symmetry=True, least_gains=gains)
            for one, names, passes in (
                (first, functionals, 1),
                (second, functionals, 1),
                (first, functionals, 2),
                (first, anothers, 1),
            )
        )
        known = zip(*_features(first, batch), strict=True)
        for pair, entry, run, other, again, there, atoms in zip(
            batch, inputs, runs, others, twice, elsewhere, known, strict=True
        ):
            one = run.prediction
            if not len(one.lengths):
                continue
            apart = entry.between_cells(one.edge_index, one.offsets)
            true = relaxed_lengths(
                pair.crystal, one.edge_index, apart, pair.displacements, pair.deformation
            )
            moved, by_other, by_two, by_there = (
                relaxed_lengths(entry.crystal, one.edge_index, one.offsets, *end.move)
                for end in (run, other, again, there)
            )
            scales = one.distance_scales, one.displacement_scales, one.strain_scale
            errors.append(np.abs(moved - true).mean())
            signs.append(crystal_signs(*scales, moved - one.distances))
            elements = np.unique(pair.crystal.numbers)
            values = {
                "size of the move": np.sqrt(np.mean((moved - one.lengths) ** 2)) + 1e-3,
                "number of atoms": len(pair.crystal),
                "rarest pair of elements": reference.met[np.ix_(elements, elements)].min() + 1,
                "distance of the features": reference.distance(*atoms),
                "second pass": np.abs(by_two - moved).mean() + 1e-3,
                "replicate": np.abs(by_other - moved).mean() + 1e-3,
                "another functional": np.abs(by_there - moved).mean() + 1e-3,
            }
            for name, value in values.items():
                further[name].append(float(np.log(value)))
    return np.array(errors), np.array(signs), {k: np.array(v) for k, v in further.items()}


def _choices(further: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    yield "as shipped", []
    for name in further:
        yield f"and {name}", [name]
    yield "and all of these", list(further)


def _row(
    name: str,
    names: Sequence[str],
    kinds: Sequence[tuple[np.ndarray, np.ndarray, Signs]],
) -> list[str]:
    """What the expected errors are worth with some further signs."""
    designs = [np.column_stack([signs, *(more[n] for n in names)]) for _, signs, more in kinds]
    errors = [own for own, _, _ in kinds]
    expected = []
    for left_out in range(len(kinds)):
        others = [k for k in range(len(kinds)) if k != left_out]
        *factors, constant = fit_crystal([errors[k] for k in others], [designs[k] for k in others])
        expected.append(np.exp(designs[left_out] @ np.array(factors) + constant))
    shown = [k for k in range(len(kinds)) if len(errors[k]) >= _ENOUGH]
    ratios = np.array([expected[k].mean() / errors[k].mean() for k in shown])
    ranks = spearmanr(np.concatenate(expected), np.concatenate(errors)).statistic
    return [
        name,
        _COSTS[names[0]] if len(names) == 1 else "",
        f"{ratios.min():.2f} to {ratios.max():.2f}",
        f"{np.sqrt(np.mean(np.log(ratios) ** 2)):.2f}",
        f"{ranks:.3f}",
    ]


def _features(
    predictor: Predictor, pairs: Sequence[Pair]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Last features and atomic numbers of the atoms of each crystal."""
    features, numbers = [], []
    for start in range(0, len(pairs), _BATCH):
        crystals = [pair.crystal for pair in pairs[start : start + _BATCH]]
        functionals = [pair.functional for pair in pairs[start : start + _BATCH]]
        graph = build_graph(crystals, functionals, predictor.config)
        with torch.inference_mode():
            scalars = predictor.batches.networks[0].encode(graph.to(torch.float32)).scalars.double()
        features += [part.numpy() for part in scalars.split(graph.num_atoms.tolist())]
        numbers += [crystal.numbers for crystal in crystals]
    return features, numbers


def _spread(file: PairFile, limit: int) -> list[int]:
    rows: list[int] = np.linspace(0, len(file) - 1, min(limit, len(file))).astype(int).tolist()
    return rows


if __name__ == "__main__":
    main()
