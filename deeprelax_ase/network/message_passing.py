"""One layer of PaEGNN: message (Eq. 4, 5) and update (Eq. 6, 7).

Vectors are kept as `(atoms, 3, F)`, so that mixing channels is one matrix product. In e3nn's
words the features are `F x 0e + F x 1o + T x 2e`, the message is a `TensorProduct` with the
`lmax = 2` spherical harmonics of the edge and the mixing is an `o3.Linear`; the tests prove both
equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deeprelax_ase.network.equivariant import Equivariant, Multiplicities
from deeprelax_ase.network.rank2_tensors import Tensors, components_of, matrices_of, quadrupoles

Scalars = Float[Tensor, "atoms features"]
Vectors = Float[Tensor, "atoms 3 features"]

_PAIRS_AT_ONCE = 256
"""What a layer makes of so many pairs stays in a core's cache of 1 MB at 96 features."""


@dataclass(frozen=True)
class Edges:
    """Pairs of atoms, along both of their directions.

    Attributes:
        targets: Atom each edge leads to: first one end of all pairs, then the other.
        sources: Atom each edge comes from.
        directions: From target to source.
        codes: Radial (and offset) codes of the pairs, for both ways (2) or the same for either (1).
        envelope: Weight of each pair, which falls to zero at the cutoff.
        quadrupoles: Second-order harmonics of the directions; None without tensors.
    """

    targets: Int[Tensor, " edges"]
    sources: Int[Tensor, " edges"]
    directions: Float[Tensor, "edges 3"]
    codes: Float[Tensor, "ways pairs basis"]
    envelope: Float[Tensor, " pairs"]
    quadrupoles: Float[Tensor, "edges 5"] | None

    @classmethod
    def of_pairs(
        cls,
        pairs: Int[Tensor, "2 pairs"],
        directions: Float[Tensor, "pairs 3"],
        codes: Float[Tensor, "ways pairs basis"],
        envelope: Float[Tensor, " pairs"],
        *,
        has_tensors: bool = False,
    ) -> "Edges":
        """Both directions of pairs; `directions` go from the first atom of a pair to the second."""
        first, second = pairs
        both = torch.cat([directions, -directions])
        return cls(
            targets=torch.cat([first, second]),
            sources=torch.cat([second, first]),
            directions=both,
            codes=codes,
            envelope=envelope,
            quadrupoles=quadrupoles(both) if has_tensors else None,
        )


def portions(num_pairs: int, device: torch.device) -> list[slice]:
    """Slices of the pairs that are computed one after the other, at least one.

    Inference on a processor is bound by its memory unless the edges come in portions that its cache
    holds. Under autograd, which keeps everything anyway, and on other devices, all come at
    once.
    """
    if device.type != "cpu" or torch.is_grad_enabled():
        return [slice(None)]
    at_once = _PAIRS_AT_ONCE * torch.get_num_threads()
    return [slice(start, start + at_once) for start in range(0, max(num_pairs, 1), at_once)]


class Message(Equivariant):
    """Sum of what the neighbours send, along both directions of every pair.

    Args:
        num_features: F.
        num_basis: Width of the edge's radial (and offset) code.
        mean_neighbors: Typical number of neighbours; sums are scaled by its square root.
        num_tensors: T.
    """

    def __init__(
        self, num_features: int, num_basis: int, mean_neighbors: float, num_tensors: int = 0
    ) -> None:
        super().__init__(Multiplicities(num_features, num_features, num_tensors))
        self.widths = [num_features] * 3 + [num_tensors] * 2
        self.num_tensors = num_tensors
        self.norm = nn.LayerNorm(num_features)
        self.source = nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.SiLU(),
            nn.Linear(num_features, sum(self.widths)),
        )
        self.filter = nn.Linear(num_basis, sum(self.widths))
        self.scale = 1.0 / math.sqrt(mean_neighbors)

    def forward(
        self,
        scalars: Scalars,
        vectors: Vectors | None,
        tensors: Tensors | None,
        portions: Sequence[Edges],
    ) -> tuple[Scalars, Vectors, Tensors]:
        """Changes of scalars, vectors and tensors.

        Args:
            scalars: Of the atoms.
            vectors: Of the atoms; None where all are zero.
            tensors: Of the atoms; None where all are zero.
            portions: All edges, one portion after the other.
        """
        source = self.source(self.norm(scalars)) * self.scale
        new_scalars = torch.zeros_like(scalars)
        new_vectors = scalars.new_zeros(scalars.shape[0], 3, scalars.shape[1])
        new_tensors = scalars.new_zeros(scalars.shape[0], 5, self.num_tensors)
        for edges in portions:
            # (ways, pairs, 3F + 2T). In place, as all of this is bound by memory.
            filters = self.filter(edges.codes)
            filters *= edges.envelope.unsqueeze(1)
            sent = source.index_select(0, edges.sources)
            sent.view(2, -1, sent.shape[1]).mul_(filters)
            along, outward, scalar, same, stretch = sent.split(self.widths, dim=1)
            new_scalars.index_add_(0, edges.targets, scalar)
            moved = _carried(vectors, edges.sources, along, outward, edges.directions)
            new_vectors.index_add_(0, edges.targets, moved)
            if edges.quadrupoles is not None:
                turned = _carried(tensors, edges.sources, same, stretch, edges.quadrupoles)
                new_tensors.index_add_(0, edges.targets, turned)
        return new_scalars, new_vectors, new_tensors


def _carried(
    features: Float[Tensor, "atoms components some"] | None,
    sources: Int[Tensor, " edges"],
    gates: Float[Tensor, "edges some"],
    new: Float[Tensor, "edges some"],
    harmonics: Float[Tensor, "edges components"],
) -> Float[Tensor, "edges components some"]:
    """The sources' own vectors or tensors behind gates, and new ones along the edges."""
    if features is None:
        return new.unsqueeze(1) * harmonics.unsqueeze(2)
    carried = features.index_select(0, sources)
    carried *= gates.unsqueeze(1)
    return carried.addcmul_(new.unsqueeze(1), harmonics.unsqueeze(2))


class Update(Equivariant):
    """Exchange between the scalars and the vectors of one atom."""

    def __init__(self, num_features: int) -> None:
        super().__init__(Multiplicities(num_features, num_features))
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
        return new_scalars, torch.addcmul(vectors, vector.unsqueeze(1), first)


class TensorUpdate(Equivariant):
    """Exchange between the scalars, the vectors and the tensors of one atom.

    Tensors turn vectors, vectors make tensors of their dyads, and the scalars learn how tensors lie
    to each other and to the vectors: angles between the neighbours that sums of directions lose.
    """

    def __init__(self, num_features: int, num_tensors: int) -> None:
        super().__init__(Multiplicities(num_features, num_features, num_tensors))
        self.mix = nn.Linear(num_tensors, 2 * num_tensors, bias=False)
        self.down = nn.Linear(num_features, 2 * num_tensors, bias=False)
        self.up = nn.Linear(num_tensors, num_features, bias=False)
        self.widths = [num_features, num_features, num_tensors, num_tensors]
        self.gates = nn.Sequential(
            nn.Linear(num_features + 3 * num_tensors, num_features),
            nn.SiLU(),
            nn.Linear(num_features, sum(self.widths)),
        )

    def forward(
        self, scalars: Scalars, vectors: Vectors, tensors: Tensors
    ) -> tuple[Scalars, Vectors, Tensors]:
        """New scalars, vectors and tensors, the residual included."""
        first, second = self.mix(tensors).chunk(2, dim=-1)
        one, other = self.down(vectors).chunk(2, dim=-1)
        dyads = components_of(one.unsqueeze(2) * other.unsqueeze(1))
        turned = (matrices_of(first) * one.unsqueeze(1)).sum(dim=2)
        signs = [
            scalars,
            safe_norm(second),
            (first * second).sum(dim=1),
            (first * dyads).sum(dim=1),
        ]
        gates = self.gates(torch.cat(signs, dim=1)).split(self.widths, dim=1)
        constant, vector, tensor, dyad = gates
        return (
            scalars + constant / math.sqrt(2.0),
            torch.addcmul(vectors, vector.unsqueeze(1), self.up(turned)),
            tensors + tensor.unsqueeze(1) * first + dyad.unsqueeze(1) * dyads,
        )


def safe_norm(features: Float[Tensor, "atoms components some"]) -> Float[Tensor, "atoms some"]:
    """Length of each vector or tensor, with a finite gradient at zero."""
    return torch.sqrt((features * features).sum(dim=1) + 1e-8)
