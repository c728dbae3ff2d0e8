"""Make inputs of what the network predicts: so it learns to go on from there, pass after pass."""

from collections.abc import Sequence

import torch
from torch import nn

from deeprelax_ase import solver
from deeprelax_ase.datasets.augment import Pair, move_input
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.training.config import TrainConfig


def relaxed_inputs(
    network: nn.Module, graph: CrystalGraph, pairs: Sequence[Pair], config: TrainConfig
) -> tuple[Pair, ...]:
    """Move the inputs of pairs to where the network relaxes them; the targets stay.

    An input whose solve fails stays where it is.

    Args:
        network: Averaged weights, in single precision.
        graph: Of the inputs, in double precision.
        pairs: Inputs and targets.
        config: Of the run.
    """
    with torch.no_grad():
        prediction = network(graph.to(torch.float32, config.device)).to(torch.float64, "cpu")
    solution = solver.solve(graph, prediction, max_steps=config.network.solver_steps)
    displacements = solution.displacements.split(graph.num_atoms.tolist())
    return tuple(
        move_input(pair, moves.numpy(), deformation.numpy())
        if status == solver.SolveStatus.SOLVED
        else pair
        for pair, moves, deformation, status in zip(
            pairs, displacements, solution.deformations, solution.status.tolist(), strict=True
        )
    )
