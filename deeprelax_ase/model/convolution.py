"""One layer of PaEGNN: message (Eq. 4, 5) and update (Eq. 6, 7).

Vectors are kept as `(atoms, 3, F)`, so that mixing channels is one matrix product. In e3nn's
words the features are `F x 0e + F x 1o`, the message is a `TensorProduct` with the `lmax = 1`
spherical harmonics of the edge and the mixing is an `o3.Linear`; the tests prove both equal.
"""

import math

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn

Scalars = Float[Tensor, "atoms features"]
Vectors = Float[Tensor, "atoms 3 features"]


class Message(nn.Module):
    """Sum of what the neighbours send, along both directions of every pair.

    Args:
        num_features: F.
        num_basis: Width of the edge's radial (and offset) code.
        mean_neighbors: Typical number of neighbours; sums are scaled by its square root.
    """

    def __init__(self, num_features: int, num_basis: int, mean_neighbors: float) -> None:
        super().__init__()
        self.irreps_in = o3.Irreps(f"{num_features}x0e + {num_features}x1o")
        self.irreps_out = self.irreps_in
        self.norm = nn.LayerNorm(num_features)
        self.source = nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.SiLU(),
            nn.Linear(num_features, 3 * num_features),
        )
        self.filter = nn.Linear(num_basis, 3 * num_features)
        self.scale = 1.0 / math.sqrt(mean_neighbors)

    def filters(
        self, edge_codes: Float[Tensor, "edges basis"], envelope: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges filters"]:
        """`W e_ij` under the envelope."""
        filters: Tensor = self.filter(edge_codes)
        return filters * envelope[:, None]

    def forward(
        self,
        scalars: Scalars,
        vectors: Vectors | None,
        targets: Int[Tensor, " edges"],
        sources: Int[Tensor, " edges"],
        directions: Float[Tensor, "edges 3"],
        filters: Float[Tensor, "ways pairs filters"],
    ) -> tuple[Scalars, Vectors]:
        """Changes of scalars and vectors.

        Args:
            scalars: Of the atoms.
            vectors: Of the atoms; None where all are zero.
            targets: Atom each edge leads to: first one end of all pairs, then the other.
            sources: Atom each edge comes from.
            directions: From target to source.
            filters: Of the pairs, for both ways (2) or the same for either (1).
        """
        sent = self.source(self.norm(scalars)).index_select(0, sources)
        sent = (sent.view(2, -1, sent.shape[1]) * filters).view(sent.shape)
        along, outward, scalar = sent.chunk(3, dim=1)
        moved = outward[:, None, :] * directions[:, :, None]
        if vectors is not None:
            moved = torch.addcmul(moved, along[:, None, :], vectors.index_select(0, sources))
        new_scalars = torch.zeros_like(scalars).index_add(0, targets, scalar)
        new_vectors = moved.new_zeros(len(scalars), *moved.shape[1:]).index_add(0, targets, moved)
        return new_scalars * self.scale, new_vectors * self.scale


class Update(nn.Module):
    """Exchange between the scalars and the vectors of one atom."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.irreps_in = o3.Irreps(f"{num_features}x0e + {num_features}x1o")
        self.irreps_out = self.irreps_in
        self.mix = nn.Linear(num_features, 2 * num_features, bias=False)
        self.gates = nn.Sequential(
            nn.Linear(2 * num_features, num_features),
            nn.SiLU(),
            nn.Linear(num_features, 3 * num_features),
        )
        self.scale = 1.0 / math.sqrt(num_features)

    def forward(self, scalars: Scalars, vectors: Vectors) -> tuple[Scalars, Vectors]:
        """New scalars and vectors (Eq. 6, 7), the residual included."""
        first, second = self.mix(vectors).chunk(2, dim=-1)
        inner = (first * second).sum(dim=1) * self.scale
        gates = self.gates(torch.cat([scalars, safe_norm(second)], dim=1))
        constant, product, vector = gates.chunk(3, dim=1)
        new_scalars = scalars + (constant + product * inner) / math.sqrt(2.0)
        return new_scalars, torch.addcmul(vectors, vector[:, None, :], first)


def safe_norm(vectors: Vectors) -> Scalars:
    """Length of each vector, with a finite gradient at zero."""
    return torch.sqrt((vectors * vectors).sum(dim=1) + 1e-8)
