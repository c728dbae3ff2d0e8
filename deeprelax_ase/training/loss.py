"""The loss: Laplace likelihoods of the heads (Eq. 11-15), and the error of the solved structure."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase import solver
from deeprelax_ase.datasets.pair_file import Targets
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.training.config import LossConfig


@dataclass(frozen=True)
class Loss:
    """Terms of the loss, each a mean over the crystals of a batch.

    Attributes:
        distance: Negative log-likelihood of the relaxed distances.
        head_displacement: Negative log-likelihood of the displacements.
        head_strain: Negative log-likelihood of the strain.
        displacement: Error of the solved displacements, Å.
        strain: Error of the solved deformation, Frobenius norm.
        volume: Error of the log of the solved volume.
        total: Their weighted sum.
    """

    distance: Tensor
    head_displacement: Tensor
    head_strain: Tensor
    displacement: Tensor
    strain: Tensor
    volume: Tensor
    total: Tensor


def compute_loss(
    graph: CrystalGraph,
    prediction: Prediction,
    targets: Targets,
    config: LossConfig,
    solver_steps: int,
) -> Loss:
    """Loss of a batch, with the solve as the network's last layer."""
    state = heads = solver.start(prediction)
    for _ in range(solver_steps):
        state = solver.gauss_newton_step(graph, prediction, heads, state)
    displacements, deformations = state
    solved_volume = torch.linalg.det(deformations).clamp_min(1e-2).log()
    true_volume = torch.linalg.det(targets.deformations).log()

    distance_errors = (prediction.distances - targets.distances).abs()
    likelihoods = likelihood(distance_errors, prediction.distance_log_scales, config.beta)
    terms = {
        "distance": _mean_over_pairs(graph, likelihoods),
        "head_displacement": _mean_over_free(
            graph,
            likelihood(
                _norm(prediction.displacements - targets.displacements),
                prediction.displacement_log_scales,
                config.beta,
            ),
        ),
        "head_strain": likelihood(
            _norm((prediction.strains - targets.strains).flatten(1)),
            prediction.strain_log_scales,
            config.beta,
        ).mean(),
        "displacement": _mean_over_free(graph, _norm(displacements - targets.displacements)),
        "strain": _norm((deformations - targets.deformations).flatten(1)).mean(),
        "volume": (solved_volume - true_volume).abs().mean(),
    }
    weights = {
        "distance": config.nll,
        "head_displacement": config.nll,
        "head_strain": config.nll,
        "displacement": config.displacement,
        "strain": config.strain,
        "volume": config.volume,
    }
    counted = [weights[name] * term for name, term in terms.items() if weights[name]]
    return Loss(**terms, total=torch.stack(counted).sum())


def _mean_over_pairs(graph: CrystalGraph, values: Float[Tensor, " pairs"]) -> Tensor:
    """Mean over the crystals of the mean over the pairs of each."""
    pairs = values.new_zeros(graph.num_crystals).index_add(
        0, graph.edge_batch, torch.ones_like(values)
    )
    total = values.new_zeros(graph.num_crystals).index_add(0, graph.edge_batch, values)
    return (total / pairs.clamp_min(1)).mean()


def _mean_over_free(graph: CrystalGraph, values: Float[Tensor, " atoms"]) -> Tensor:
    """Mean over the crystals of the mean over the atoms of each that are not fixed."""
    free = graph.free
    counts, totals = values.new_zeros(2, graph.num_crystals)
    counts = counts.index_add(0, graph.batch, free)
    totals = totals.index_add(0, graph.batch, values * free)
    return (totals / counts.clamp_min(1.0)).mean()


def _norm(vectors: Float[Tensor, "items n"]) -> Float[Tensor, " items"]:
    return torch.sqrt((vectors * vectors).sum(dim=1) + 1e-10)


def likelihood(
    errors: Float[Tensor, " items"], log_scales: Float[Tensor, " items"], beta: float
) -> Float[Tensor, " items"]:
    """Laplace negative log-likelihood, weighted by scale^beta (Seitzer et al., ICLR 2022).

    With beta = 0 it is Eq. 11; with beta = 1 the gradient by the prediction is that of the
    absolute error, so that hard crystals count as much as easy ones.
    """
    scales = log_scales.exp()
    return (errors / scales + log_scales) * scales.detach() ** beta
