"""Networks that the ablation compares PaEGNN with: the paper's displacements, and tensors.

Both are trained by `benchmarks.baselines`.
"""

import math

import torch
from torch import Tensor, nn

from deeprelax_ase.config import LossConfig, NetworkConfig
from deeprelax_ase.data.dataset import Targets
from deeprelax_ase.edg.bed import fit_bounds, hinges
from deeprelax_ase.graph import CrystalGraph
from deeprelax_ase.model import PaEGNN
from deeprelax_ase.model.convolution import Edges, safe_norm
from deeprelax_ase.prediction import Prediction, certainty, log_scale
from deeprelax_ase.train.loss import compute_loss, likelihood
from deeprelax_ase.train.validation import through_the_solve

_MEAN_NEIGHBORS = 22.0


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


class TensorNetwork(PaEGNN):
    """PaEGNN with features of `lmax = 2`: `F x 0e + F x 1o + F x 2e`.

    Tensors are symmetric traceless matrices. They are made from the directions of edges, and of
    vectors with them, and give vectors back; each atom's go into its pairs and into the strain.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        features, layers = config.num_features, config.num_layers
        basis = self.radial.num_basis
        self.tensor_messages = nn.ModuleList(_TensorMessage(features, basis) for _ in range(layers))
        self.tensor_updates = nn.ModuleList(_TensorUpdate(features) for _ in range(layers))
        self.tensor_to_pairs = nn.Linear(features, config.edge_features, bias=False)
        self.tensor_to_strain = nn.Linear(features, 1, bias=False)

    def forward(self, graph: CrystalGraph) -> Prediction:
        """As PaEGNN, with tensors beside the vectors."""
        i, j = graph.edge_index
        directions = graph.edge_vectors / graph.edge_lengths[:, None]
        codes = self.radial(graph.edge_lengths, graph.numbers[i], graph.numbers[j])
        envelope = self.radial.envelope(graph.edge_lengths)
        scalars = self.elements(graph.numbers) + self.functionals(graph.functionals)[graph.batch]
        vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[1])
        tensors = scalars.new_zeros(len(scalars), 3, 3, scalars.shape[1])
        edges = Edges.of_pairs(graph.edge_index, directions, codes[None], envelope)
        for message, update, tensor_message, tensor_update in zip(
            self.messages, self.updates, self.tensor_messages, self.tensor_updates, strict=True
        ):
            new_scalars, new_vectors = message(scalars, vectors, [edges])
            more_vectors, new_tensors = tensor_message(scalars, vectors, tensors, edges)
            scalars = (scalars + new_scalars) / math.sqrt(2.0)
            vectors = vectors + new_vectors + more_vectors
            tensors = tensors + new_tensors
            scalars, vectors = update(scalars, vectors)
            scalars, vectors, tensors = tensor_update(scalars, vectors, tensors)

        head = self.edge_head
        ends, outward = head.ends(scalars), head.vectors(vectors)
        along = ((outward[i] - outward[j]) * directions[:, :, None]).sum(dim=1)
        both = self.tensor_to_pairs(tensors)
        both = both[i] + both[j]
        dyads = directions[:, :, None] * directions[:, None, :]
        mixed = ends[i] + ends[j] + head.code(codes) + along + (both * dyads[..., None]).sum((1, 2))
        silu = nn.functional.silu
        out = head.out(silu(head.hidden(silu(mixed))))
        moves = self.displacement_head(scalars, vectors)
        pulls = out[:, 1] * envelope / (_MEAN_NEIGHBORS / 2)
        strain = self.strain_head(graph, scalars, pulls, directions)
        atoms = self.tensor_to_strain(tensors)[..., 0].flatten(1) * 0.1
        projectors = graph.strain_projectors
        shear = projectors @ graph.mean(atoms).view(-1, 3, 3) @ projectors
        return Prediction(
            distances=graph.edge_lengths * out[:, 0].clamp(-1.0, 1.0).exp(),
            distance_log_scales=log_scale(out[:, 2]),
            distance_weights=certainty(out[:, 3], -3.0) * envelope,
            displacements=moves.values - graph.mean(moves.values)[graph.batch],
            displacement_log_scales=log_scale(moves.raw_scales),
            displacement_weights=certainty(moves.raw_weights, 0.5),
            strains=strain.values + shear,
            strain_log_scales=log_scale(strain.raw_scales),
            strain_weights=certainty(strain.raw_weights, 4.0) * graph.num_atoms,
        )

    def loss(self, graph: CrystalGraph, targets: Targets, config: LossConfig) -> Tensor:
        """The loss of PaEGNN."""
        return compute_loss(graph, self(graph), targets, config, self.config.solver_steps).total

    def relax(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Displacements and deformations by the joint solve."""
        return through_the_solve(self, self.config, "cpu")(graph)


class _TensorMessage(nn.Module):
    """What the neighbours' vectors and tensors give to an atom's."""

    def __init__(self, features: int, basis: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.source = nn.Sequential(
            nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 4 * features)
        )
        self.filter = nn.Linear(basis, 4 * features)
        self.scale = _MEAN_NEIGHBORS**-0.5

    def forward(
        self, scalars: Tensor, vectors: Tensor, tensors: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Changes of vectors and tensors."""
        filters = (self.filter(edges.codes[0]) * edges.envelope[:, None]).repeat(2, 1)
        sent = (self.source(self.norm(scalars)) * self.scale)[edges.sources] * filters
        keep, make, lift, lower = sent.chunk(4, dim=1)
        u = edges.directions
        dyads = _traceless(u[:, :, None] * u[:, None, :])
        theirs, moving = tensors[edges.sources], vectors[edges.sources]
        lifted = _traceless_product(moving, u)
        moved = (
            keep[:, None, None] * theirs
            + make[:, None, None] * dyads[..., None]
            + lift[:, None, None] * lifted
        )
        pushed = lower[:, None] * (theirs * u[:, None, :, None]).sum(dim=2)
        return (
            torch.zeros_like(vectors).index_add(0, edges.targets, pushed),
            torch.zeros_like(tensors).index_add(0, edges.targets, moved),
        )


class _TensorUpdate(nn.Module):
    """Exchange between the scalars, the vectors and the tensors of one atom."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.gates = nn.Sequential(
            nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, 4 * features)
        )

    def forward(
        self, scalars: Tensor, vectors: Tensor, tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New scalars, vectors and tensors, the residual included."""
        first, second = self.mix(tensors).chunk(2, dim=-1)
        inner = (first * second).sum(dim=(1, 2)) / math.sqrt(scalars.shape[1])
        norms = torch.sqrt((second * second).sum(dim=(1, 2)) + 1e-8)
        gates = self.gates(torch.cat([scalars, norms], dim=1))
        constant, product, vector, tensor = gates.chunk(4, dim=1)
        turned = (first * vectors[:, None]).sum(dim=2)
        return (
            scalars + (constant + product * inner) / math.sqrt(2.0),
            vectors + vector[:, None] * turned,
            tensors + tensor[:, None, None] * first,
        )


def _traceless(matrices: Tensor) -> Tensor:
    """Symmetric matrices `(n, 3, 3)` without their trace."""
    trace = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
    return matrices - trace[:, None, None] / 3 * torch.eye(3).to(matrices)


def _traceless_product(vectors: Tensor, directions: Tensor) -> Tensor:
    """Symmetric traceless part of vectors `(n, 3, F)` times directions `(n, 3)`."""
    product = vectors[:, :, None] * directions[:, None, :, None]
    inner = (vectors * directions[:, :, None]).sum(dim=1)
    identity = torch.eye(3).to(vectors)[None, :, :, None]
    return (product + product.transpose(1, 2)) / 2 - inner[:, None, None] / 3 * identity
