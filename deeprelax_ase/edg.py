"""Euclidean distance geometry: from predicted distances to a structure (Sec. 4.6).

The default is a joint weighted least-squares fit, by Gauss-Newton, of displacements and
deformation to the predicted distances, displacements and strain. The paper's hinge with its
100 Adam steps is kept as `method="bed"`. Nothing here knows a network; a network is trained
through `gauss_newton_step`, which is differentiable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeprelax_ase.graph import CrystalGraph
from deeprelax_ase.linear import NormalEquations, solve_normal_equations
from deeprelax_ase.prediction import Prediction

LEAST_DISTANCE = 0.5
"""Two atoms nearer than this (Å) are on top of each other."""
_LEAST_STRETCH = 0.2
_TIE = 1e-12
_BED_STEPS, _BED_RATE = 100, 0.1


class SolveStatus(IntEnum):
    """How a solve ended; all but the first keep the last sound iterate."""

    SOLVED = 0
    NOT_FINITE = 1
    COLLAPSED_CELL = 2
    ATOMS_OVERLAP = 3

    @property
    def sentence(self) -> str:
        """What a user is told."""
        return _SENTENCES[self]


_SENTENCES = {
    SolveStatus.SOLVED: "solved",
    SolveStatus.NOT_FINITE: "the predicted structure has values that are not finite",
    SolveStatus.COLLAPSED_CELL: "the predicted cell is squeezed to less than a fifth",
    SolveStatus.ATOMS_OVERLAP: f"predicted atoms come nearer than {LEAST_DISTANCE} Å",
}


@dataclass(frozen=True)
class Solution:
    """What a solve found, for each crystal of a batch.

    Attributes:
        displacements: Å, mean zero in each crystal.
        deformations: Symmetric; `relaxed_cell = cell @ deformation`.
        residuals: Root mean square of solved less predicted distance, Å, by certainty.
        steps: Steps that were taken.
        status: A `SolveStatus` each.
    """

    displacements: Float[Tensor, "atoms 3"]
    deformations: Float[Tensor, "crystals 3 3"]
    residuals: Float[Tensor, " crystals"]
    steps: Int[Tensor, " crystals"]
    status: Int[Tensor, " crystals"]


State = tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]
"""Displacements and deformations on the way."""


def solve(
    graph: CrystalGraph,
    prediction: Prediction,
    method: Literal["joint", "bed"] = "joint",
    max_steps: int = 20,
    tolerance: float = 1e-7,
) -> Solution:
    """Find the structures that fit the predicted distances, displacements and strains best.

    Args:
        graph: The unrelaxed crystals.
        prediction: What to fit.
        method: `joint` (Gauss-Newton) or `bed`, the paper's hinge.
        max_steps: Gauss-Newton steps; 0 gives the heads' own displacement and strain.
        tolerance: Stop when no atom moves further (Å) and no strain changes more in a step.

    Raises:
        ValueError: The method is neither of the two.
    """
    if method == "bed":
        return _solve_bounds(graph, prediction)
    if method != "joint":
        msg = f"unknown method {method!r}: choose 'joint' or 'bed'"
        raise ValueError(msg)
    graph, prediction = graph.to(torch.float64), prediction.to(torch.float64)
    unmoved = _unmoved(graph)
    state = start(prediction)
    status = check(graph, state)
    state = _choose(graph, status == SolveStatus.SOLVED, state, unmoved)
    active = status == SolveStatus.SOLVED
    steps = torch.zeros_like(graph.num_atoms)
    objective = _objective(graph, prediction, state)
    for _ in range(max_steps):
        new = gauss_newton_step(graph, prediction, state)
        new_status = check(graph, new)
        new_objective = _objective(graph, prediction, new)
        sound = active & (new_status == SolveStatus.SOLVED)
        status = torch.where(active, new_status, status)
        better = sound & (new_objective <= objective + _TIE)
        moved = _largest_change(graph, state, new)
        state = _choose(graph, better, new, state)
        objective = torch.where(better, new_objective, objective)
        steps = steps + better
        active = better & (moved > tolerance)
        if not bool(active.any()):
            break
    return Solution(*state, _residuals(graph, prediction, state), steps, status)


def start(prediction: Prediction) -> State:
    """The heads' own displacements and deformations."""
    return prediction.displacements, torch.linalg.matrix_exp(prediction.strains)


def gauss_newton_step(graph: CrystalGraph, prediction: Prediction, state: State) -> State:
    """One step of the joint fit, differentiable in the prediction and the state.

    Minimises, linearised at the state, the sum of `w_ij (|x_ij| - d_ij)^2` over the pairs, of
    `w_i |u_i - u^_i|^2` over the atoms and of `w_s |F - F^|^2` over the crystals, where
    `x_ij = (edge_vector + u_j - u_i) @ F`.
    """
    displacements, deformations = state
    i, j = graph.edge_index
    crystals = graph.edge_batch
    undeformed = (
        graph.edge_vectors + displacements.index_select(0, j) - displacements.index_select(0, i)
    )
    of_pair = deformations.index_select(0, crystals)
    lengths, directions = _length_and_direction(undeformed, of_pair)
    by_displacement = (of_pair @ directions[:, :, None])[:, :, 0]
    projectors = graph.strain_projectors.index_select(0, crystals)
    by_deformation = symmetric_product(
        (projectors @ undeformed[:, :, None])[:, :, 0],
        (projectors @ directions[:, :, None])[:, :, 0],
    )
    target = torch.linalg.matrix_exp(prediction.strains)
    change, components = solve_normal_equations(
        NormalEquations(
            pairs=graph.edge_index,
            crystals=crystals,
            num_atoms=graph.num_atoms,
            batch=graph.batch,
            by_displacement=by_displacement,
            by_deformation=by_deformation,
            weights=prediction.distance_weights,
            residuals=prediction.distances - lengths,
            atom_weights=prediction.displacement_weights,
            atom_residuals=prediction.displacements - displacements,
            crystal_weights=prediction.strain_weights,
            crystal_residuals=_components(target - deformations),
        )
    )
    moved = displacements + change
    moved = moved - graph.mean(moved).index_select(0, graph.batch)
    projectors = graph.strain_projectors
    return moved, deformations + projectors @ _symmetric(components) @ projectors


def check(graph: CrystalGraph, state: State) -> Int[Tensor, " crystals"]:
    """Status of each crystal's structure: finite, a cell of positive volume, no overlaps."""
    displacements, deformations = state
    finite_atoms = displacements.isfinite().all(dim=1).to(displacements.dtype)
    finite = (graph.mean(finite_atoms) > 1 - 1e-9) & deformations.isfinite().flatten(1).all(1)
    safe = torch.where(finite[:, None, None], deformations, torch.eye(3).to(deformations))
    collapsed = torch.linalg.eigvalsh(safe)[:, 0] < _LEAST_STRETCH
    lengths = _lengths(graph, state)
    near = (lengths < LEAST_DISTANCE) & (lengths < graph.edge_lengths)
    overlaps = torch.zeros_like(graph.num_atoms).index_add(0, graph.edge_batch, near.long()) > 0
    status = torch.zeros_like(graph.num_atoms)
    for code, failed in (
        (SolveStatus.ATOMS_OVERLAP, overlaps),
        (SolveStatus.COLLAPSED_CELL, collapsed),
        (SolveStatus.NOT_FINITE, ~finite),
    ):
        status = torch.where(failed, torch.full_like(status, code), status)
    return status


def symmetric_product(
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


def _length_and_direction(
    undeformed: Float[Tensor, "pairs 3"], deformations: Float[Tensor, "pairs 3 3"]
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "pairs 3"]]:
    vectors = (undeformed[:, None, :] @ deformations)[:, 0]
    lengths = torch.sqrt((vectors * vectors).sum(dim=1) + _TIE)
    return lengths, vectors / lengths[:, None]


def _lengths(graph: CrystalGraph, state: State) -> Float[Tensor, " pairs"]:
    displacements, deformations = state
    i, j = graph.edge_index
    moved = displacements.index_select(0, j) - displacements.index_select(0, i)
    of_pair = deformations.index_select(0, graph.edge_batch)
    return _length_and_direction(graph.edge_vectors + moved, of_pair)[0]


def _unmoved(graph: CrystalGraph) -> State:
    identity = torch.eye(3).to(graph.cells).expand(graph.num_crystals, 3, 3)
    return torch.zeros_like(graph.positions), identity


def _choose(graph: CrystalGraph, first: Bool[Tensor, " crystals"], a: State, b: State) -> State:
    """State a for the crystals marked, b for the others."""
    atoms = first.index_select(0, graph.batch)[:, None]
    return torch.where(atoms, a[0], b[0]), torch.where(first[:, None, None], a[1], b[1])


def _largest_change(graph: CrystalGraph, a: State, b: State) -> Float[Tensor, " crystals"]:
    by_atom = (a[0] - b[0]).abs().amax(dim=1)
    largest = by_atom.new_zeros(graph.num_crystals)
    largest = largest.scatter_reduce(0, graph.batch, by_atom, "amax")
    return torch.maximum(largest, (a[1] - b[1]).abs().flatten(1).amax(dim=1))


def _sum_over(crystals: Tensor, values: Tensor, num_crystals: int) -> Tensor:
    return values.new_zeros(num_crystals).index_add(0, crystals, values)


def _objective(
    graph: CrystalGraph, prediction: Prediction, state: State
) -> Float[Tensor, " crystals"]:
    displacements, deformations = state
    misfit = prediction.distance_weights * (_lengths(graph, state) - prediction.distances) ** 2
    moves = ((displacements - prediction.displacements) ** 2).sum(dim=1)
    target = torch.linalg.matrix_exp(prediction.strains)
    strain = ((deformations - target) ** 2).flatten(1).sum(dim=1)
    return (
        _sum_over(graph.edge_batch, misfit, graph.num_crystals)
        + _sum_over(graph.batch, prediction.displacement_weights * moves, graph.num_crystals)
        + prediction.strain_weights * strain
    )


def _residuals(
    graph: CrystalGraph, prediction: Prediction, state: State
) -> Float[Tensor, " crystals"]:
    weights = prediction.distance_weights
    misfit = weights * (_lengths(graph, state) - prediction.distances) ** 2
    total = _sum_over(graph.edge_batch, misfit, graph.num_crystals)
    weight = _sum_over(graph.edge_batch, weights, graph.num_crystals)
    return torch.sqrt(total / weight.clamp_min(_TIE))


def _solve_bounds(graph: CrystalGraph, prediction: Prediction) -> Solution:
    """The paper's solver: hinges outside [d - b, d + b], 100 Adam steps from the input.

    Its second set of hinges, on the distance from an atom's old place to another's new one, is
    kept in the affine frame, where it does not depend on the origin.
    """
    deformations = torch.linalg.matrix_exp(prediction.strains)
    i, j = graph.edge_index
    inside = (graph.offsets == 0).all(dim=1) & (i != j)
    old = torch.cat([i[inside], j[inside]])
    new = torch.cat([j[inside], i[inside]])
    apart = graph.positions.index_select(0, new) - graph.positions.index_select(0, old)
    targets = torch.linalg.vector_norm(apart + prediction.displacements[new], dim=1)
    scales = prediction.displacement_log_scales.exp()[new]
    of_old = graph.batch.index_select(0, old)

    def loss(displacements: Tensor) -> Tensor:
        lengths = _lengths(graph, (displacements, deformations))
        moved = torch.sqrt(((apart + displacements[new]) ** 2).sum(dim=1) + _TIE)
        bonds = _hinge(lengths, prediction.distances, prediction.distance_log_scales.exp())
        moves = _hinge(moved, targets, scales)
        return _mean_each(graph, graph.edge_batch, bonds) + _mean_each(graph, of_old, moves)

    displacements = _adam(loss, torch.zeros_like(graph.positions))
    displacements = displacements - graph.mean(displacements).index_select(0, graph.batch)
    state = (displacements, deformations)
    status = check(graph, state)
    state = _choose(graph, status == SolveStatus.SOLVED, state, _unmoved(graph))
    steps = torch.full_like(graph.num_atoms, _BED_STEPS)
    return Solution(*state, _residuals(graph, prediction, state), steps, status)


def _hinge(values: Tensor, targets: Tensor, scales: Tensor) -> Tensor:
    return ((values - targets).abs() - scales).relu()


def _mean_each(graph: CrystalGraph, crystals: Tensor, values: Tensor) -> Tensor:
    """Sum over the crystals of the mean of each: no crystal's gradient feels the others."""
    count = _sum_over(crystals, torch.ones_like(values), graph.num_crystals)
    return (values / count.clamp_min(1).index_select(0, crystals)).sum()


def _adam(loss: Callable[[Tensor], Tensor], initial: Tensor) -> Tensor:
    values = initial.clone().requires_grad_()
    optimizer = torch.optim.Adam([values], lr=_BED_RATE)
    with torch.enable_grad():
        for _ in range(_BED_STEPS):
            optimizer.zero_grad()
            total = loss(values)
            if total.requires_grad:
                total.backward()
            optimizer.step()
    return values.detach()
