"""The paper's solver (Sec. 4.6): hinges outside [d - b, d + b] and 100 Adam steps."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.solver.state import (
    Solution,
    check,
    choose,
    pair_lengths,
    residuals_of,
    sum_over,
    unmoved,
)
from deeprelax_ase.solver.status import TINY, SolveStatus

_STEPS, _RATE = 100, 0.1


def solve_bounds(graph: CrystalGraph, prediction: Prediction) -> Solution:
    """The paper's solver: hinges outside [d - b, d + b], 100 Adam steps from the input.

    Its second set of hinges, on the distance from an atom's old place to another's new one, is
    kept in the affine frame, where it does not depend on the origin.
    """
    _, old, new = hinges(graph)
    apart = graph.positions.index_select(0, new) - graph.positions.index_select(0, old)
    targets = torch.linalg.vector_norm(apart + prediction.displacements[new], dim=1)
    scales = prediction.displacement_log_scales.exp()[new]
    return fit_bounds(graph, prediction, old, new, targets, scales)


def hinges(
    graph: CrystalGraph,
) -> tuple[Bool[Tensor, " pairs"], Int[Tensor, " hinges"], Int[Tensor, " hinges"]]:
    """Which pairs are of two atoms in one cell, and both ways from an old atom to a new one."""
    i, j = graph.edge_index
    inside = (graph.offsets == 0).all(dim=1) & (i != j)
    return inside, torch.cat([i[inside], j[inside]]), torch.cat([j[inside], i[inside]])


def fit_bounds(
    graph: CrystalGraph,
    prediction: Prediction,
    old: Int[Tensor, " hinges"],
    new: Int[Tensor, " hinges"],
    targets: Float[Tensor, " hinges"],
    scales: Float[Tensor, " hinges"],
) -> Solution:
    """The paper's solver with the second set of hinges given.

    Args:
        graph: The unrelaxed crystals.
        prediction: Relaxed lengths of the pairs, their scales, and the strains.
        old: Atoms whose given place a hinge starts from.
        new: Atoms whose relaxed place it leads to.
        targets: How far apart these are, Å.
        scales: Laplace scales of that, Å.
    """
    deformations = torch.linalg.matrix_exp(prediction.strains)
    apart = graph.positions.index_select(0, new) - graph.positions.index_select(0, old)
    of_old = graph.batch.index_select(0, old)

    def loss(displacements: Tensor) -> Tensor:
        lengths = pair_lengths(graph, (displacements, deformations))
        moved = torch.sqrt(((apart + displacements[new]) ** 2).sum(dim=1) + TINY)
        bonds = _hinge(lengths, prediction.distances, prediction.distance_log_scales.exp())
        moves = _hinge(moved, targets, scales)
        return _mean_each(graph, graph.edge_batch, bonds) + _mean_each(graph, of_old, moves)

    displacements = _adam(loss, torch.zeros_like(graph.positions))
    displacements = graph.settled(displacements)
    state = (displacements, deformations)
    status = check(graph, state, pair_lengths(graph, state))
    state = choose(graph, status == SolveStatus.SOLVED, state, unmoved(graph))
    steps = torch.full_like(graph.num_atoms, _STEPS)
    residuals = residuals_of(graph, prediction, pair_lengths(graph, state))
    return Solution(*state, residuals, steps, status)


def _hinge(values: Tensor, targets: Tensor, scales: Tensor) -> Tensor:
    return ((values - targets).abs() - scales).relu()


def _mean_each(graph: CrystalGraph, crystals: Tensor, values: Tensor) -> Tensor:
    """Sum over the crystals of the mean of each: no crystal's gradient feels the others."""
    count = sum_over(crystals, torch.ones_like(values), graph.num_crystals)
    return (values / count.clamp_min(1).index_select(0, crystals)).sum()


def _adam(loss: Callable[[Tensor], Tensor], initial: Tensor) -> Tensor:
    values = initial.clone().requires_grad_()
    optimizer = torch.optim.Adam([values], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            optimizer.zero_grad()
            total = loss(values)
            if total.requires_grad:
                total.backward()
            optimizer.step()
    return values.detach()
