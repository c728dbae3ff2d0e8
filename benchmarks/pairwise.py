"""The paper's way to predict displacements, for the ablation; trained by `benchmarks.baselines`."""

import torch
from torch import Tensor, nn

from deeprelax_ase.datasets.pair_file import Targets
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.message_passing import safe_norm
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.prediction import Prediction, log_scale
from deeprelax_ase.solver.bed import fit_bounds, hinges
from deeprelax_ase.training.config import LossConfig
from deeprelax_ase.training.loss import compute_loss, likelihood


class PairwiseNetwork(PaEGNN):
    """Displacements as in the paper (Eq. 7): scalar distances from old to new places, and hinges.

    Of every pair inside the cell it predicts, besides the relaxed length, how far the new place
    of either atom is from the old one of the other, with a Laplace scale; the paper's solver
    makes a structure of them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.pair_head = nn.Sequential(
            nn.Linear(5 * config.num_features + self.radial.num_basis, config.num_features),
            nn.SiLU(),
            nn.Linear(config.num_features, 2),
        )

    def of_pairs(self, graph: CrystalGraph) -> tuple[Prediction, Tensor, Tensor, Tensor, Tensor]:
        """The prediction, and of pairs inside the cell: old atom, new atom, distance, log-scale."""
        features = self.encode(graph)
        prediction = self.decode(graph, features)
        scalars, vectors = features.scalars, features.vectors
        inside, old, new = hinges(graph)
        lengths, codes = graph.edge_lengths[inside], features.codes[inside]
        directions = features.directions[inside]
        directions = torch.cat([directions, -directions])
        along = [(vectors[end] * directions[:, :, None]).sum(dim=1) for end in (old, new)]
        norms = safe_norm(vectors)
        ends = [scalars[old], scalars[new], *along, norms[new], codes.repeat(2, 1)]
        out = self.pair_head(torch.cat(ends, dim=1))
        distances = lengths.repeat(2) * out[:, 0].clamp(-1.0, 1.0).exp()
        return prediction, old, new, distances, log_scale(out[:, 1])

    def loss(self, graph: CrystalGraph, targets: Targets, config: LossConfig) -> Tensor:
        """Likelihoods of lengths, of these distances and of the strain (Eq. 11-15)."""
        prediction, old, new, distances, scales = self.of_pairs(graph)
        terms = compute_loss(graph, prediction, targets, config, solver_steps=0)
        apart = graph.positions[new] - graph.positions[old] + targets.displacements[new]
        true = torch.sqrt((apart * apart).sum(dim=1) + 1e-10)
        moves = likelihood((distances - true).abs(), scales, config.beta)
        lattice = config.strain * terms.strain + config.volume * terms.volume
        return config.nll * (terms.distance + terms.head_strain) + moves.mean() + lattice

    def relax(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Displacements and deformations by the paper's solver."""
        prediction, old, new, distances, scales = self.of_pairs(graph.to(torch.float32))
        solution = fit_bounds(
            graph, prediction.to(torch.float64), old, new, distances.double(), scales.double()
        )
        return solution.displacements, solution.deformations
