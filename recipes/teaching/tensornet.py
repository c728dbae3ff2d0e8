"""TensorNet rewritten for speed: the same weights and numbers as matgl's, several times faster.

Three things make the difference. A tensor is kept as a scalar, a vector and six components of a
symmetric matrix instead of three full matrices. Neighbors are padded to one number an atom, so
that messages are summed instead of scattered. What depends on a distance alone (radial basis,
multilayer perceptron and cutoff) is one Chebyshev series, fitted once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recipes.teaching.graphs import PaddedGraph

_TERMS = 64
_POINTS = 4000
_LEAST_DISTANCE = 0.3
"""Å; the series is not fitted below."""
_SYMMETRIC = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_FULL = ((0, 3, 4), (3, 1, 5), (4, 5, 2))


class FastTensorNet(nn.Module):
    """Energies of atoms from species and padded edge vectors.

    Args:
        network: matgl's TensorNet, with its weights.

    Attributes:
        fit_error: Largest error of the Chebyshev series, in units of its largest value.
    """

    center_names: Tensor
    neighbor_names: Tensor
    series: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.units = network.units
        self.cutoff = float(network.cutoff)
        embedding = network.tensor_embedding
        with torch.no_grad():
            names = embedding.emb.weight
            left, right = embedding.emb2.weight.split(self.units, dim=1)
            self.register_buffer("center_names", names @ left.T + embedding.emb2.bias)
            self.register_buffer("neighbor_names", names @ right.T)
            self.register_buffer("series", self._fit_series())

    def _radial(self, distances: Tensor) -> Tensor:
        """Exact radial functions: of the embedding, then of each layer, `(points, functions)`."""
        network, units = self.network, self.units
        basis = network.bond_expansion(distances)
        cut = (0.5 * (torch.cos(np.pi * distances / self.cutoff) + 1))[:, None]
        embedding = network.tensor_embedding
        parts = [
            layer(basis) * cut for layer in (embedding.distance_proj1, embedding.distance_proj2)
        ]
        parts.append(embedding.distance_proj3(basis) * cut)
        for layer in network.layers:
            values = basis
            for linear in layer.linears_scalar:
                values = layer.act(linear(values))
            values = (values * cut).reshape(-1, units, 3)
            parts += [values[..., k] for k in range(3)]
        return torch.cat(parts, dim=1)

    def _fit_series(self) -> Tensor:
        nodes = np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS)
        middle = (self.cutoff + _LEAST_DISTANCE) / 2
        half = (self.cutoff - _LEAST_DISTANCE) / 2
        exact = self._radial(torch.tensor(middle + half * nodes, dtype=torch.float32)).double()
        terms = torch.tensor(np.polynomial.chebyshev.chebvander(nodes, _TERMS - 1))
        weights = torch.full((_TERMS, 1), 2 / _POINTS, dtype=torch.float64)
        weights[0] /= 2
        series = weights * (terms.T @ exact)
        self.fit_error = float((terms @ series - exact).abs().max() / exact.abs().max())
        return series.float()

    def _evaluate_series(self, distances: Tensor) -> Tensor:
        middle = (self.cutoff + _LEAST_DISTANCE) / 2
        half = (self.cutoff - _LEAST_DISTANCE) / 2
        angle = torch.acos(((distances - middle) / half).clamp(-1 + 1e-6, 1 - 1e-6))
        orders = torch.arange(_TERMS, device=distances.device, dtype=distances.dtype)
        return torch.cos(angle[:, None] * orders) @ self.series

    def forward(self, species: Tensor, graph: PaddedGraph) -> Tensor:
        """Energies of the atoms, in the network's units.

        Args:
            species: `(atoms)`.
            graph: Of all structures.
        """
        network = self.network
        distances = graph.vectors.norm(dim=1)
        radial = graph.spread(self._evaluate_series(distances)).split(self.units, dim=-1)
        unit = graph.spread(graph.vectors / distances[:, None])
        unit = torch.where(graph.reverse[..., None], -unit, unit)
        # matgl gathers at the far end of edges; every edge is there in both directions, so the
        # same sum stands at the centre with vectors reversed and names exchanged.
        pairs = self.neighbor_names[species][:, None] + self.center_names[species[graph.neighbors]]
        tensors = self._embed([part * pairs for part in radial[:3]], -unit)
        for number, layer in enumerate(network.layers):
            start = 3 + 3 * number
            tensors = _interact(layer, tensors, radial[start : start + 3], graph.neighbors)
        norms = torch.cat(_norms(tensors), dim=-1)
        features = network.linear(network.out_norm(norms))
        return network.final_layer.gated(features).reshape(-1)

    def _embed(self, weights: Sequence[Tensor], unit: Tensor) -> Tensor:
        """Sum weighted unit tensors of edges: `(atoms, 10, units)`."""
        axes = unit.unbind(-1)
        outer = [axes[i] * axes[j] for i, j in _SYMMETRIC]
        third = (outer[0] + outer[1] + outer[2]) / 3
        harmonics = torch.stack([part - third for part in outer[:3]] + outer[3:], dim=-1)
        tensors = torch.cat(
            [
                weights[0].sum(1)[:, None],
                unit.transpose(1, 2) @ weights[1],
                harmonics.transpose(1, 2) @ weights[2],
            ],
            dim=1,
        )
        embedding = self.network.tensor_embedding
        norm = embedding.init_norm(_squared_norm(tensors))
        tensors = _mix(embedding.linears_tensor, tensors)
        for linear in embedding.linears_scalar:
            norm = embedding.act(linear(norm))
        factors = norm.reshape(len(norm), self.units, 3)
        return tensors * _spread(factors.permute(0, 2, 1))


def _interact(layer: Any, tensors: Tensor, radial: Sequence[Tensor], neighbors: Tensor) -> Tensor:
    """Run one of matgl's interaction blocks."""
    tensors = tensors / (_squared_norm(tensors)[:, None] + 1)
    own = _mix(layer.linears_tensor[:3], tensors)
    far = own.index_select(0, neighbors.flatten()).unflatten(0, neighbors.shape)
    message = torch.cat(
        [
            (factor[:, :, None] * part).sum(1)
            for factor, part in zip(radial, far.split((1, 3, 6), dim=2), strict=True)
        ],
        dim=1,
    )
    left, right = _matrices(message), _matrices(own)
    product = _sum(_multiply(left, right), _multiply(right, left))
    change = _components(product)
    change = change / (_squared_norm(change)[:, None] + 1)
    change = _mix(layer.linears_tensor[3:], change)
    matrices = _matrices(change)
    # The square of a general matrix has all three parts again.
    return tensors + change + _components(_multiply(matrices, matrices))


def _mix(linears: Any, tensors: Tensor) -> Tensor:
    """Apply a linear layer each to scalar, vector and symmetric part."""
    parts = tensors.split((1, 3, 6), dim=1)
    return torch.cat([linear(part) for linear, part in zip(linears, parts, strict=True)], dim=1)


def _spread(factors: Tensor) -> Tensor:
    """Factors of the three parts, for each component: `(atoms, 3, units)` to `(.., 10, ..)`."""
    return torch.repeat_interleave(
        factors, torch.tensor([1, 3, 6], device=factors.device), dim=1, output_size=10
    )


def _norms(tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scalar, vector, diagonal, corners = tensors.square().split((1, 3, 3, 3), dim=1)
    return 3 * scalar.sum(1), 2 * vector.sum(1), diagonal.sum(1) + 2 * corners.sum(1)


def _squared_norm(tensors: Tensor) -> Tensor:
    scalar, vector, symmetric = _norms(tensors)
    return scalar + vector + symmetric


Matrix = list[list[Tensor]]
"""Nine components, each `(atoms, units)`: slices of one tensor would cost more, backwards."""


def _matrices(tensors: Tensor) -> Matrix:
    """Full matrices of scalar, vector and symmetric part."""
    scalar, x, y, z, *symmetric = tensors.unbind(1)
    rest = ((scalar, -z, y), (z, scalar, -x), (-y, x, scalar))
    return [[symmetric[_FULL[i][j]] + rest[i][j] for j in range(3)] for i in range(3)]


def _components(matrix: Matrix) -> Tensor:
    """Scalar, vector and symmetric traceless part of full matrices."""
    third = (matrix[0][0] + matrix[1][1] + matrix[2][2]) / 3
    vector = [
        (matrix[2][1] - matrix[1][2]) / 2,
        (matrix[0][2] - matrix[2][0]) / 2,
        (matrix[1][0] - matrix[0][1]) / 2,
    ]
    symmetric = [(matrix[i][j] + matrix[j][i]) / 2 for i, j in _SYMMETRIC]
    symmetric[:3] = [diagonal - third for diagonal in symmetric[:3]]
    return torch.stack([third, *vector, *symmetric], dim=1)


def _multiply(left: Matrix, right: Matrix) -> Matrix:
    """Matrix products, channel by channel."""
    return [
        [
            sum((left[i][k] * right[k][j] for k in (1, 2)), left[i][0] * right[0][j])
            for j in range(3)
        ]
        for i in range(3)
    ]


def _sum(left: Matrix, right: Matrix) -> Matrix:
    return [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
