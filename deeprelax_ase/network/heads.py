"""Heads of PaEGNN (Sec. 4.4): relaxed distances, displacements and strain.

Each gives a value, the log of its Laplace scale and its certainty in the solve. All are
equivariant and none depends on which cell of the crystal was given.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.message_passing import Scalars, Vectors, portions, safe_norm
from deeprelax_ase.network.rank2_tensors import Tensors, matrices_of, quadrupoles


class Estimate(NamedTuple):
    """Raw output of a head: values, and what its scale and certainty are made of."""

    values: Tensor
    raw_scales: Tensor
    raw_weights: Tensor


class EdgeHead(nn.Module):
    """Stretch and stress of every pair, the same from both of its ends.

    `values` holds the log of relaxed over given length and the pair's pull on the lattice.
    """

    def __init__(self, num_features: int, num_basis: int, width: int, num_tensors: int = 0) -> None:
        super().__init__()
        self.ends = nn.Linear(num_features, width)
        self.code = nn.Linear(num_basis, width, bias=False)
        self.vectors = nn.Linear(num_features, width, bias=False)
        self.tensors = nn.Linear(num_tensors, width, bias=False) if num_tensors else None
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 4)
        with torch.no_grad():
            self.out.weight *= 0.1
            self.out.bias.zero_()

    def forward(
        self,
        graph: CrystalGraph,
        scalars: Scalars,
        vectors: Vectors,
        tensors: Tensors,
        directions: Float[Tensor, "pairs 3"],
        codes: Float[Tensor, "pairs basis"],
    ) -> Estimate:
        """Estimates of shape `(pairs, 2)`, `(pairs,)` and `(pairs,)`."""
        ends, pulls = self.ends(scalars), self.vectors(vectors)
        outs = [
            self._of_pairs(
                ends, pulls, tensors, graph.edge_index[:, part], directions[part], codes[part]
            )
            for part in portions(len(codes), codes.device)
        ]
        out = torch.cat(outs)
        return Estimate(out[:, :2], out[:, 2], out[:, 3])

    def _of_pairs(
        self,
        ends: Float[Tensor, "atoms width"],
        pulls: Float[Tensor, "atoms 3 width"],
        tensors: Tensors,
        pairs: Int[Tensor, "2 some"],
        directions: Float[Tensor, "some 3"],
        codes: Float[Tensor, "some basis"],
    ) -> Float[Tensor, "some 4"]:
        i, j = pairs
        # Each end's vectors along its own outward direction: symmetric when the ends swap.
        difference = pulls.index_select(0, i) - pulls.index_select(0, j)
        outward = (difference * directions.unsqueeze(2)).sum(dim=1)
        mixed = ends.index_select(0, i) + ends.index_select(0, j) + self.code(codes) + outward
        if self.tensors is not None:
            both = tensors.index_select(0, i) + tensors.index_select(0, j)
            along = (both * quadrupoles(directions).unsqueeze(2)).sum(dim=1)
            mixed = mixed + self.tensors(along)
        activation = nn.functional.silu
        out: Tensor = self.out(activation(self.hidden(activation(mixed))))
        return out


class DisplacementHead(nn.Module):
    """One vector an atom, by a gated mixing of its vector features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.mix = nn.Linear(num_features, 2 * num_features, bias=False)
        self.gates = nn.Sequential(
            nn.Linear(2 * num_features, num_features),
            nn.SiLU(),
            nn.Linear(num_features, num_features + 2),
        )
        self.num_features = num_features

    def forward(self, scalars: Scalars, vectors: Vectors) -> Estimate:
        """Estimates of shape `(atoms, 3)`, `(atoms,)` and `(atoms,)`."""
        first, second = self.mix(vectors).chunk(2, dim=-1)
        gates = self.gates(torch.cat([scalars, safe_norm(second)], dim=1))
        values = (first * gates[:, : self.num_features].unsqueeze(1)).mean(dim=-1)
        return Estimate(values, gates[:, -2], gates[:, -1])


class StrainHead(nn.Module):
    """Isotropic part from the atoms, the rest from their tensors and the pairs' pulls."""

    def __init__(self, num_features: int, num_tensors: int = 0) -> None:
        super().__init__()
        self.tensors = nn.Linear(num_tensors, 1, bias=False) if num_tensors else None
        self.atoms = nn.Sequential(
            nn.Linear(num_features, num_features), nn.SiLU(), nn.Linear(num_features, 3)
        )
        last = self.atoms[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight *= 0.1
            last.bias.zero_()

    def forward(
        self,
        graph: CrystalGraph,
        scalars: Scalars,
        tensors: Tensors,
        pulls: Float[Tensor, " pairs"],
        directions: Float[Tensor, "pairs 3"],
    ) -> Estimate:
        """Estimates of shape `(crystals, 3, 3)`, `(crystals,)` and `(crystals,)`."""
        isotropic, raw_scales, raw_weights = graph.mean(self.atoms(scalars)).unbind(dim=1)
        dyads = (directions.unsqueeze(2) * directions.unsqueeze(1)).flatten(1)
        total = dyads.new_zeros(graph.num_crystals, 9)
        total = total.index_add(0, graph.edge_batch, dyads * pulls.unsqueeze(1))
        deviatoric = (total / graph.num_atoms.unsqueeze(1)).view(-1, 3, 3)
        identity = torch.eye(3, dtype=dyads.dtype, device=dyads.device)
        strains = deviatoric + isotropic.view(-1, 1, 1) * identity
        if self.tensors is not None:
            mean = graph.mean(0.1 * self.tensors(tensors).flatten(1))
            strains = strains + matrices_of(mean.unsqueeze(2)).squeeze(3)
        free = graph.strain_projectors @ strains.flatten(1).unsqueeze(2)
        return Estimate(free.view(-1, 3, 3), raw_scales, raw_weights)
