"""Fit a network's scales on crystals that it does not know.

Scales that were learned on training crystals, which the network knows by heart, say little of other
crystals once it was trained for long. They are fitted to the validation splits that calibration is
fitted on too. Only what the last layers of the heads make the scales of is fitted: what is
predicted stays exactly as it is. Calibrate anew after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from deeprelax_ase.datasets.pair_file import Targets, collate, open_pairs
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.paegnn import Features, PaEGNN
from deeprelax_ase.training.config import LossConfig
from deeprelax_ase.training.loss import compute_loss

_BATCH = 64
_LIKELIHOOD = LossConfig(nll=1.0, beta=0.0, displacement=0.0, strain=0.0, volume=0.0)

Known = tuple[CrystalGraph, Features, Targets]


def fit(
    out: Path, weights: Path, files: Sequence[Path], split: str, limit: int, steps: int
) -> None:
    """Write weights with other scales.

    Args:
        out: File to write.
        weights: File of those whose scales to fit.
        files: Of pairs that they were not trained on.
        split: Of the files.
        limit: At most so many pairs of each file.
        steps: Batches of 64 crystals.

    Raises:
        ValueError: A file cannot be used.
    """
    known = load_weights(weights)
    batches = [batch for path in files for batch in encoded(known.network, path, split, limit)]
    before, after = fit_scales(known.network, batches, steps)
    fitted = [*known.provenance.get("scales_of", []), *(f"{p.name} ({split})" for p in files)]
    save_weights(out, known.network, {**known.provenance, "scales_of": fitted})
    print(f"{out}: likelihood {before:.3f} -> {after:.3f}", flush=True)


@torch.no_grad()
def encoded(network: PaEGNN, path: Path, split: str, limit: int) -> Iterator[Known]:
    """Batches of a file's crystals, with what the layers before the heads make of them."""
    file = open_pairs(path, split)
    chosen = np.random.default_rng(0).permutation(len(file))[:limit].tolist()
    for first in range(0, len(chosen), _BATCH):
        graph, targets = collate(
            [file[row] for row in chosen[first : first + _BATCH]], network.config
        )
        graph = graph.to(torch.float32)
        yield graph, network.encode(graph), targets.to(torch.float32)


def fit_scales(
    network: PaEGNN, batches: Sequence[Known], steps: int, learning_rate: float = 0.01
) -> tuple[float, float]:
    """Fit the scales in place; the likelihood before and after."""
    network.requires_grad_(requires_grad=False)
    parameters = [p for layer in _last_layers(network) for p in layer.parameters()]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    decay = LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    order = np.random.default_rng(0)
    before = _mean_likelihood(network, batches)
    for _ in range(steps):
        optimizer.zero_grad()
        _likelihood(network, batches[int(order.integers(len(batches)))]).backward()
        optimizer.step()
        decay.step()
    return before, _mean_likelihood(network, batches)


def _last_layers(network: PaEGNN) -> list[nn.Module]:
    heads = (network.edge_head, network.displacement_head, network.strain_head)
    return [list(head.modules())[-1] for head in heads]


def _likelihood(network: PaEGNN, batch: Known) -> Tensor:
    """Negative log-likelihood of the three heads, with a gradient by the scales alone."""
    graph, features, targets = batch
    prediction = network.decode(graph, features)
    fixed = replace(
        prediction,
        distances=prediction.distances.detach(),
        displacements=prediction.displacements.detach(),
        strains=prediction.strains.detach(),
    )
    return compute_loss(graph, fixed, targets, _LIKELIHOOD, solver_steps=0).total


@torch.no_grad()
def _mean_likelihood(network: PaEGNN, batches: Sequence[Known]) -> float:
    return float(np.mean([float(_likelihood(network, batch)) for batch in batches]))
