"""How much better than the input a network in training is."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase import solver
from deeprelax_ase.datasets.pair_file import EmptySplitError, PairFile, collate, file_labels
from deeprelax_ase.evaluation.metrics import (
    MEASURED,
    compute_errors,
    concatenate,
    improvement,
    input_errors,
)
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph

Scores = dict[str, int | float]

_CHUNK = 32


def open_validation(paths: Sequence[Path], *, strict: bool) -> dict[str, PairFile]:
    """Validation splits of those files that hold pairs and have one."""
    files = {}
    for path, label in zip(paths, file_labels(paths), strict=True):
        try:
            file = PairFile(path, "val", strict=strict)
        except EmptySplitError:
            continue  # a file to train on alone
        if file.is_pairs:
            files[label] = file
    if not files:
        warnings.warn(
            "no file of pairs has a val split: best.safetensors will be the last weights",
            stacklevel=2,
        )
    return files


Moves = tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]
"""Displacements and deformations of a batch."""


def through_the_solve(
    network: torch.nn.Module,
    config: NetworkConfig,
    device: str,
    method: str = "joint",
    max_steps: int | None = None,
) -> Callable[[CrystalGraph], Moves]:
    """A network and the solve after it, as what `score` asks for.

    Args:
        network: A `PaEGNN`, compiled perhaps.
        config: Of the network.
        device: Where the network is.
        method: Of `solver.solve`.
        max_steps: Of `solver.solve`; as many as the network was trained with if None.
    """
    steps = config.solver_steps if max_steps is None else max_steps

    def relax(graph: CrystalGraph) -> Moves:
        prediction = network(graph.to(torch.float32, device)).to(torch.float64, "cpu")
        solution = solver.solve(graph, prediction, method, max_steps=steps)
        return solution.displacements, solution.deformations

    return relax


@torch.no_grad()
def score(
    relax: Callable[[CrystalGraph], Moves], config: NetworkConfig, file: PairFile, limit: int
) -> Scores:
    """Improvement over the input in per cent, on evenly spaced crystals of a split.

    Args:
        relax: From a batch to its moves, in double precision.
        config: Of the graphs that `relax` is given.
        file: The split.
        limit: At most so many crystals.
    """
    count = min(len(file), limit)
    rows = torch.linspace(0, len(file) - 1, count).long().tolist()
    rows.sort(key=lambda row: file.num_atoms[row])
    errors, dummies = [], []
    for first in range(0, len(rows), _CHUNK):
        pairs = [file[row] for row in rows[first : first + _CHUNK]]
        given, _ = collate(pairs, config)
        graph, targets = collate(pairs, MEASURED)
        errors.append(compute_errors(graph, *relax(given), targets))
        dummies.append(input_errors(graph, targets))
    result = concatenate(errors)
    own = {"crystals": count, "mean_displacement": float(result.displacement.mean())}
    return own | improvement(result, concatenate(dummies))


def overall(scores: Mapping[str, Scores]) -> float:
    """One number of several files, by their numbers of crystals: a dozen do not decide.

    What nothing changes in a file, such as a cell that was kept, does not count there.
    """
    total = 0.0
    for name in ("displacement", "lattice", "volume"):
        known = [s for s in scores.values() if math.isfinite(s[name])]
        crystals = sum(s["crystals"] for s in known)
        total += sum(s["crystals"] * s[name] for s in known) / max(crystals, 1)
    return total
