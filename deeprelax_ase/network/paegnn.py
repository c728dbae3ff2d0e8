"""PaEGNN: from a batch of crystal graphs to a `Prediction` (Sec. 4.3, 4.4)."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deeprelax_ase.network.config import (
    MEAN_PAIRS_PER_ATOM,
    MOVE_START,
    PAIR_START,
    STRAIN_START,
    NetworkConfig,
)
from deeprelax_ase.network.equivariant import Equivariant, Multiplicities
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.heads import DisplacementHead, EdgeHead, StrainHead
from deeprelax_ase.network.message_passing import Edges, Message, TensorUpdate, Update, portions
from deeprelax_ase.network.offset_encoding import OffsetEncoding
from deeprelax_ase.network.prediction import Prediction, certainty, log_scale
from deeprelax_ase.network.radial_basis import RadialBasis
from deeprelax_ase.structures.crystal import MAX_ATOMIC_NUMBER


class Features(NamedTuple):
    """What the layers hand to the heads.

    Attributes:
        scalars: `(atoms, F)`.
        vectors: `(atoms, 3, F)`.
        tensors: `(atoms, 5, T)`.
        directions: Unit vectors of the pairs, `(pairs, 3)`.
        codes: Basis functions of their lengths, `(pairs, basis)`.
        envelope: Their weights, `(pairs,)`.
    """

    scalars: Tensor
    vectors: Tensor
    tensors: Tensor
    directions: Tensor
    codes: Tensor
    envelope: Tensor


class PaEGNN(Equivariant):
    """Periodicity-aware equivariant graph network with heads for distances, moves and strain.

    Without the offset encoding it is exactly equivariant under rotation, reflection and
    permutation and does not depend on the choice of cell.
    """

    def __init__(self, config: NetworkConfig) -> None:
        features = config.num_features
        super().__init__(
            Multiplicities(features), Multiplicities(features, features, config.num_tensors)
        )
        self.config = config
        num_elements = MAX_ATOMIC_NUMBER + 1
        self.elements = nn.Embedding(num_elements, features)
        self.functionals = nn.Embedding(len(config.functionals), features)
        self.held = nn.Linear(2, features, bias=False)
        nn.init.zeros_(self.held.weight)
        self.radial = RadialBasis(
            config.num_radial,
            config.num_relative,
            config.cutoff,
            config.envelope_exponent,
            num_elements,
        )
        self.offsets = OffsetEncoding() if config.ucoe else None
        num_codes = self.radial.num_basis
        num_message_codes = num_codes + (self.offsets.num_channels if self.offsets else 0)
        self.messages = nn.ModuleList(
            Message(features, num_message_codes, 2 * MEAN_PAIRS_PER_ATOM, config.num_tensors)
            for _ in range(config.num_layers)
        )
        self.updates = nn.ModuleList(Update(features) for _ in range(config.num_layers))
        self.tensor_updates = nn.ModuleList(
            TensorUpdate(features, config.num_tensors) if config.num_tensors else nn.Identity()
            for _ in range(config.num_layers)
        )
        self.edge_head = EdgeHead(features, num_codes, config.edge_features, config.num_tensors)
        self.displacement_head = DisplacementHead(features)
        self.strain_head = StrainHead(features, config.num_tensors)

    def forward(self, graph: CrystalGraph) -> Prediction:
        """Predict relaxed distances, displacements and strains of every crystal of a batch."""
        return self.decode(graph, self.encode(graph))

    def arrays(self) -> dict[str, np.ndarray]:
        """Its weights by name, not copied where they lie on a processor."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def encode(self, graph: CrystalGraph) -> Features:
        """Features of the atoms after the last layer, and what is known of the pairs."""
        i, j = graph.edge_index
        numbers_i, numbers_j = graph.numbers.index_select(0, i), graph.numbers.index_select(0, j)
        directions = graph.edge_vectors / graph.edge_lengths.unsqueeze(1)
        codes = self.radial(graph.edge_lengths, numbers_i, numbers_j)
        envelope = self.radial.envelope(graph.edge_lengths)

        functionals = graph.functionals.index_select(0, graph.batch)
        scalars = self.elements(graph.numbers) + self.functionals(functionals)
        scalars = scalars + self.held(graph.told_holds)
        vectors = tensors = None
        edges = self._portions(graph, directions, codes, envelope)
        for message, update, tensor_update in zip(
            self.messages, self.updates, self.tensor_updates, strict=True
        ):
            new_scalars, new_vectors, new_tensors = message(scalars, vectors, tensors, edges)
            scalars = (scalars + new_scalars) / math.sqrt(2.0)
            vectors = new_vectors if vectors is None else vectors + new_vectors
            tensors = new_tensors if tensors is None else tensors + new_tensors
            scalars, vectors = update(scalars, vectors)
            if self.config.num_tensors:
                scalars, vectors, tensors = tensor_update(scalars, vectors, tensors)
        assert vectors is not None
        assert tensors is not None
        return Features(scalars, vectors, tensors, directions, codes, envelope)

    def decode(self, graph: CrystalGraph, features: Features) -> Prediction:
        """What the heads make of features."""
        scalars, vectors, tensors, directions, codes, envelope = features
        pairs = self.edge_head(graph, scalars, vectors, tensors, directions, codes)
        moves = self.displacement_head(scalars, vectors)
        pulls = pairs.values[:, 1] * envelope / MEAN_PAIRS_PER_ATOM
        strain = self.strain_head(graph, scalars, tensors, pulls, directions)
        return Prediction(
            distances=graph.edge_lengths * pairs.values[:, 0].clamp(-1.0, 1.0).exp(),
            distance_log_scales=log_scale(pairs.raw_scales),
            distance_weights=certainty(pairs.raw_weights, PAIR_START) * envelope,
            displacements=graph.settled(moves.values),
            displacement_log_scales=log_scale(moves.raw_scales),
            displacement_weights=certainty(moves.raw_weights, MOVE_START),
            strains=strain.values,
            strain_log_scales=log_scale(strain.raw_scales),
            strain_weights=certainty(strain.raw_weights, STRAIN_START) * graph.num_atoms,
        )

    def _portions(
        self, graph: CrystalGraph, directions: Tensor, codes: Tensor, envelope: Tensor
    ) -> list[Edges]:
        """The edges in portions; without offsets, the codes of both ways are the same."""
        ways = codes.unsqueeze(0)
        if self.offsets is not None:
            encoded = graph.encoded_offsets
            ways = torch.stack(
                [
                    torch.cat([codes, self.offsets(offsets)], dim=1)
                    for offsets in (encoded, -encoded)
                ]
            )
        return [
            Edges.of_pairs(
                graph.edge_index[:, part],
                directions[part],
                ways[:, part],
                envelope[part],
                has_tensors=self.config.num_tensors > 0,
            )
            for part in portions(len(codes), codes.device)
        ]
