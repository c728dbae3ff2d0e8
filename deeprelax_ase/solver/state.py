"""Structures on the way of a solve, how they are judged, and what a solve returns."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.solver.status import LEAST_STRETCH, TINY, SolveStatus
from deeprelax_ase.structures.crystal import LEAST_DISTANCE


@dataclass(frozen=True)
class Solution:
    """What a solve found, for each crystal of a batch.

    Attributes:
        displacements: Å; mean zero in each crystal, or zero where atoms are fixed.
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

    def cpu(self) -> "Solution":
        """The solution on the processor."""
        return Solution(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})


State = tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]
"""Displacements and deformations on the way."""


def start(prediction: Prediction) -> State:
    """The heads' own displacements and deformations."""
    return prediction.displacements, _exp(prediction.strains)


def _exp(strains: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 3 3"]:
    """Exponential of symmetric matrices.

    By eigenvectors where no gradient is wanted, which is faster; with equal eigenvalues their
    gradient does not exist.
    """
    if strains.requires_grad:
        return torch.linalg.matrix_exp(strains)
    safe = torch.where(strains.isfinite(), strains, 0.0)
    values, axes = torch.linalg.eigh(safe)
    result = (axes * values.exp().unsqueeze(1)) @ axes.mT
    return torch.where(strains.isfinite(), result, strains)


def check(
    graph: CrystalGraph, state: State, lengths: Float[Tensor, " pairs"]
) -> Int[Tensor, " crystals"]:
    """Status of each crystal's structure: finite, a cell of positive volume, no overlaps.

    Args:
        graph: The unrelaxed crystals.
        state: The structures.
        lengths: Of their pairs, Å.
    """
    displacements, deformations = state
    status = torch.zeros_like(graph.num_atoms)
    near = (lengths < LEAST_DISTANCE) & (lengths < graph.edge_lengths)
    overlaps = sum_over(graph.edge_batch, near.long(), graph.num_crystals) > 0
    # A sum is finite if all of its parts are.
    moved = sum_over(graph.batch, displacements.sum(dim=1), graph.num_crystals)
    finite = moved.isfinite() & deformations.sum(dim=(1, 2)).isfinite()
    # The factor exists if no stretch is below the least.
    least = LEAST_STRETCH * torch.eye(3, dtype=deformations.dtype, device=deformations.device)
    collapsed = torch.linalg.cholesky_ex(deformations - least)[1] != 0
    for code, failed in (
        (SolveStatus.ATOMS_OVERLAP, overlaps),
        (SolveStatus.COLLAPSED_CELL, collapsed),
        (SolveStatus.NOT_FINITE, ~finite),
    ):
        status = torch.where(failed, int(code), status)
    return status


def length_and_direction(
    undeformed: Float[Tensor, "pairs 3"], deformations: Float[Tensor, "pairs 3 3"]
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "pairs 3"]]:
    """Lengths (Å) and unit vectors of deformed vectors."""
    vectors = (undeformed.unsqueeze(1) @ deformations).squeeze(1)
    lengths = torch.sqrt((vectors * vectors).sum(dim=1) + TINY)
    return lengths, vectors / lengths.unsqueeze(1)


def pair_lengths(graph: CrystalGraph, state: State) -> Float[Tensor, " pairs"]:
    """Length of every pair of the graph in a state, Å."""
    displacements, deformations = state
    i, j = graph.edge_index
    moved = displacements.index_select(0, j) - displacements.index_select(0, i)
    of_pair = deformations.index_select(0, graph.edge_batch)
    return length_and_direction(graph.edge_vectors + moved, of_pair)[0]


def unmoved(graph: CrystalGraph) -> State:
    """The state of the input itself."""
    identity = torch.eye(3).to(graph.cells).expand(graph.num_crystals, 3, 3)
    return torch.zeros_like(graph.positions), identity


def choose(graph: CrystalGraph, first: Bool[Tensor, " crystals"], a: State, b: State) -> State:
    """State a for the crystals marked, b for the others."""
    atoms = first.index_select(0, graph.batch).unsqueeze(1)
    return torch.where(atoms, a[0], b[0]), torch.where(first.view(-1, 1, 1), a[1], b[1])


def largest_change(graph: CrystalGraph, a: State, b: State) -> Float[Tensor, " crystals"]:
    """Largest change of a displacement (Å) or of the deformation between two states."""
    by_atom = (a[0] - b[0]).abs().amax(dim=1)
    largest = by_atom.new_zeros(graph.num_crystals)
    largest = largest.scatter_reduce(0, graph.batch, by_atom, "amax")
    return torch.maximum(largest, (a[1] - b[1]).abs().flatten(1).amax(dim=1))


def sum_over(crystals: Tensor, values: Tensor, num_crystals: int) -> Tensor:
    """Sum of values by the crystal they belong to."""
    return values.new_zeros(num_crystals).index_add(0, crystals, values)


def residuals_of(
    graph: CrystalGraph, prediction: Prediction, lengths: Float[Tensor, " pairs"]
) -> Float[Tensor, " crystals"]:
    """Root mean square of solved less predicted distances, weighted by certainty, Å."""
    weights = prediction.distance_weights
    misfit = weights * (lengths - prediction.distances) ** 2
    total = sum_over(graph.edge_batch, misfit, graph.num_crystals)
    weight = sum_over(graph.edge_batch, weights, graph.num_crystals)
    return torch.sqrt(total / weight.clamp_min(TINY))
