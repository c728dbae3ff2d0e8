"""The joint fit: weighted least squares over displacements and deformation by Gauss-Newton."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.solver.dense import solve_normal_equations
from deeprelax_ase.solver.normal_equations import NormalEquations
from deeprelax_ase.solver.state import (
    Solution,
    State,
    check,
    choose,
    largest_change,
    length_and_direction,
    pair_lengths,
    residuals_of,
    start,
    sum_over,
    unmoved,
)
from deeprelax_ase.solver.status import TINY, SolveStatus
from deeprelax_ase.structures.held import COMPONENTS


@dataclass(frozen=True)
class Iterate:
    """A state on the way and what is known of it: lengths of the pairs, status, objective."""

    state: State
    lengths: Float[Tensor, " pairs"]
    status: Int[Tensor, " crystals"]
    objective: Float[Tensor, " crystals"]


def solve_joint(
    graph: CrystalGraph,
    prediction: Prediction,
    max_steps: int,
    tolerance: float,
) -> Solution:
    """Iterate to convergence; a crystal stops at its last sound and better iterate.

    It starts at the structure of the heads, or at the input where atoms of that one overlap.

    Args:
        graph: The unrelaxed crystals.
        prediction: What to fit.
        max_steps: At most so many steps.
        tolerance: Å, and change of strain.
    """
    graph, prediction = graph.to(torch.float64), prediction.to(torch.float64)
    heads = start(prediction)

    def iterate(state: State) -> Iterate:
        return _judge(graph, prediction, heads, state)

    best = iterate(heads)
    status = best.status
    active, overlaps = status == SolveStatus.SOLVED, status == SolveStatus.ATOMS_OVERLAP
    if not bool(active.all()):
        best = iterate(choose(graph, active, heads, unmoved(graph)))
        active = active | overlaps
    steps = torch.zeros_like(graph.num_atoms)
    for step in range(max_steps):
        state = best.state
        new = iterate(gauss_newton_step(graph, prediction, heads, state))
        status = torch.where(active, new.status, status)
        sound = active & (new.status == SolveStatus.SOLVED)
        better = sound & _is_better(new, best)
        best = _choose(graph, better, new, best)
        steps = steps + better
        if step + 1 < max_steps:
            active = better & (largest_change(graph, state, new.state) > tolerance)
            if not bool(active.any()):
                break
    status = torch.where(overlaps & (steps == 0), int(SolveStatus.ATOMS_OVERLAP), status)
    residuals = residuals_of(graph, prediction, best.lengths)
    return Solution(*best.state, residuals, steps, status)


def _judge(graph: CrystalGraph, prediction: Prediction, heads: State, state: State) -> Iterate:
    lengths = pair_lengths(graph, state)
    status = check(graph, state, lengths)
    objective = _objective(graph, prediction, heads, state, lengths)
    return Iterate(state, lengths, status, objective)


def _is_better(new: Iterate, best: Iterate) -> Bool[Tensor, " crystals"]:
    return new.objective <= best.objective + TINY


def _choose(
    graph: CrystalGraph, first: Bool[Tensor, " crystals"], a: Iterate, b: Iterate
) -> Iterate:
    """Iterate a for the crystals marked, b for the others."""
    if bool(first.all()):
        return a
    of_pair = first.index_select(0, graph.edge_batch)
    return Iterate(
        state=choose(graph, first, a.state, b.state),
        lengths=torch.where(of_pair, a.lengths, b.lengths),
        status=torch.where(first, a.status, b.status),
        objective=torch.where(first, a.objective, b.objective),
    )


def gauss_newton_step(
    graph: CrystalGraph, prediction: Prediction, heads: State, state: State
) -> State:
    """One step of the joint fit, differentiable in the prediction and the state.

    Minimises, linearised at the state, the sum of `w_ij (|x_ij| - d_ij)^2` over the pairs, of
    `w_i |u_i - u^_i|^2` over the atoms and of `w_s |F - F^|^2` over the crystals, where
    `x_ij = (edge_vector + u_j - u_i) @ F`.

    Args:
        graph: The unrelaxed crystals.
        prediction: Distances and certainties.
        heads: `start(prediction)`, the displacements and deformations to stay near.
        state: Where the step begins.
    """
    displacements, deformations = state
    i, j = graph.edge_index
    crystals = graph.edge_batch
    undeformed = (
        graph.edge_vectors + displacements.index_select(0, j) - displacements.index_select(0, i)
    )
    of_pair = deformations.index_select(0, crystals)
    lengths, directions = length_and_direction(undeformed, of_pair)
    by_displacement = (of_pair @ directions.unsqueeze(2)).squeeze(2)
    by_deformation = _symmetric_product(undeformed, directions)
    to_components = torch.from_numpy(COMPONENTS).to(graph.cells)
    change, components = solve_normal_equations(
        NormalEquations(
            pairs=graph.edge_index,
            crystals=crystals,
            sizes=graph.sizes,
            batch=graph.batch,
            free=graph.free,
            by_displacement=by_displacement,
            by_deformation=by_deformation,
            weights=prediction.distance_weights,
            residuals=prediction.distances - lengths,
            atom_weights=prediction.displacement_weights,
            atom_residuals=heads[0] - displacements,
            crystal_weights=prediction.strain_weights,
            crystal_residuals=_components(heads[1] - deformations),
            strain_projectors=to_components @ graph.strain_projectors @ to_components.mT,
        )
    )
    moved = graph.settled(displacements + change)
    strains = graph.strain_projectors @ _symmetric(components).view(-1, 9, 1)
    return moved, deformations + strains.view(-1, 3, 3)


def _objective(
    graph: CrystalGraph,
    prediction: Prediction,
    heads: State,
    state: State,
    lengths: Float[Tensor, " pairs"],
) -> Float[Tensor, " crystals"]:
    moves = torch.linalg.vector_norm(state[0] - heads[0], dim=1)
    by_pair = prediction.distance_weights * (lengths - prediction.distances).abs() ** 2
    by_atom = prediction.displacement_weights * moves**2
    strain = ((state[1] - heads[1]) ** 2).sum(dim=(1, 2))
    return (
        sum_over(graph.edge_batch, by_pair, graph.num_crystals)
        + sum_over(graph.batch, by_atom, graph.num_crystals)
        + prediction.strain_weights * strain
    )


def _symmetric_product(
    a: Float[Tensor, "items 3"], b: Float[Tensor, "items 3"]
) -> Float[Tensor, "items 6"]:
    """Components of the symmetrised dyad of a and b in the orthonormal basis of `_components`."""
    half = 2.0**-0.5
    diagonal = a * b
    shear = (a[:, (1, 0, 0)] * b[:, (2, 2, 1)] + a[:, (2, 2, 1)] * b[:, (1, 0, 0)]) * half
    return torch.cat([diagonal, shear], dim=1)


def _components(matrices: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 6"]:
    """Symmetric matrices as xx, yy, zz, and sqrt(2) times yz, xz, xy: Frobenius norm kept."""
    shear = matrices[:, (1, 0, 0), (2, 2, 1)] * 2.0**0.5
    return torch.cat([matrices.diagonal(dim1=1, dim2=2), shear], dim=1)


def _symmetric(components: Float[Tensor, "crystals 6"]) -> Float[Tensor, "crystals 3 3"]:
    """Inverse of `_components`."""
    xx, yy, zz = components[:, :3].unbind(dim=1)
    yz, xz, xy = (components[:, 3:] * 2.0**-0.5).unbind(dim=1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).view(-1, 3, 3)
