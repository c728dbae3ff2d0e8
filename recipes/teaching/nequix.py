"""Nequix rewritten for speed: the same weights and numbers, several times faster.

Radial weights and harmonics are computed once a pair of atoms, not once a direction. The product of
tensors and the sum over neighbors are one compiled loop on the CPU, and one batched matrix product
a path on a GPU or where there is no compiler.
"""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from recipes.teaching.graphs import PaddedGraph


class FastNequix(nn.Module):
    """Energies of atoms from species and a padded graph.

    Args:
        network: nequix's torch network, with its weights.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.cutoff = float(network.cutoff)
        self.products = nn.ModuleList(
            [_Product(layer.tp, layer.sort, network.lmax) for layer in network.layers]
        )

    def forward(self, species: Tensor, graph: PaddedGraph) -> Tensor:
        """Energies of the atoms, eV.

        Args:
            species: `(atoms)`.
            graph: Of all structures.
        """
        from nequix.torch_impl.model import bessel_basis, polynomial_cutoff

        network = self.network
        distances = graph.vectors.norm(dim=1)
        basis = bessel_basis(distances, network.radial_basis_size, self.cutoff)
        cut = polynomial_cutoff(distances, self.cutoff, network.radial_polynomial_p)
        basis = basis * cut[:, None]
        harmonics = o3.spherical_harmonics(
            list(range(network.lmax + 1)),
            graph.vectors,
            normalize=True,
            normalization="component",
        )
        features = nn.functional.one_hot(species, network.n_species).to(harmonics.dtype)
        for layer, product in zip(network.layers, self.products, strict=True):
            messages = layer.linear_1(features)
            summed = product(messages, layer.radial_mlp(basis), harmonics, graph)
            summed = summed / layer.avg_n_neighbors**0.5
            features = layer.linear_2(summed) + layer.skip(features)
            if layer.layer_norm is not None:
                features = layer.layer_norm(features)
            features = layer.gate(features)
        energies = network.readout(features) * network.scale + network.shift
        return energies[:, 0] + network.atom_energies[species]


class _Product(nn.Module):
    """Tensor product with harmonics, weighted and summed over neighbors.

    Channels stand last in here; e3nn has them first, and two permutations lead there and back.
    """

    couplings: Tensor
    inward: Tensor
    outward: Tensor

    def __init__(self, product: Any, sort: Any, lmax: int) -> None:
        super().__init__()
        inputs, outputs = product.irreps_in1, product.irreps_out
        columns, paths = [], []
        weights = matrices = 0
        for path in product.instructions:
            first, third = inputs[path.i_in1].ir.l, outputs[path.i_out].ir.l
            second = product.irreps_in2[path.i_in2].ir.l
            coupling = path.path_weight * o3.wigner_3j(first, second, third)
            block = torch.zeros((lmax + 1) ** 2, (2 * first + 1) * (2 * third + 1))
            block[second**2 : (second + 1) ** 2] = coupling.permute(1, 0, 2).flatten(1)
            columns.append(block)
            mul = inputs[path.i_in1].mul
            paths.append(
                [
                    inputs.slices()[path.i_in1].start,
                    mul,
                    2 * first + 1,
                    2 * third + 1,
                    weights,
                    matrices,
                    outputs.slices()[path.i_out].start,
                    (-1) ** second,
                ]
            )
            weights += mul
            matrices += block.shape[1]
        self.register_buffer("couplings", torch.cat(columns, dim=1).float())
        self.paths = torch.tensor(paths)  # read on the CPU, wherever the rest is
        self.register_buffer("inward", _channels_last(inputs))
        outward = torch.argsort(_channels_last(outputs))
        order = torch.arange(outputs.dim)
        order = torch.cat([order[part] for part in sort.slices_sorted])
        self.register_buffer("outward", outward[order])
        self.size = outputs.dim

    def forward(
        self, messages: Tensor, weights: Tensor, harmonics: Tensor, graph: PaddedGraph
    ) -> Tensor:
        """Sums over neighbors, sorted as nequix sorts them, `(atoms, components)`.

        Args:
            messages: Of atoms, `(atoms, components)`.
            weights: Of pairs, `(pairs, weights)`.
            harmonics: Of pairs, `(pairs, harmonics)`.
            graph: Says which pairs meet at an atom.
        """
        features = messages.index_select(1, self.inward)
        matrices = harmonics @ self.couplings
        compiled = _compiled() if features.device.type == "cpu" else None
        if compiled is not None:
            where = _Where(compiled, graph, self.paths, self.size)
            summed = _Coupling.apply(  # type: ignore[no-untyped-call]
                features, weights.contiguous(), matrices.contiguous(), where
            )
        else:
            summed = self._batched(features, weights, matrices, graph)
        return summed.index_select(1, self.outward)

    def _batched(
        self, features: Tensor, weights: Tensor, matrices: Tensor, graph: PaddedGraph
    ) -> Tensor:
        """The same by batched matrix products."""
        far = features.index_select(0, graph.neighbors.flatten())
        far = far.unflatten(0, graph.neighbors.shape)
        weights, matrices = graph.spread(weights), graph.spread(matrices)
        parts: dict[int, Tensor] = {}
        for start, mul, before, after, weight, matrix, target, parity in self.paths.tolist():
            own = far[..., start : start + before * mul].unflatten(-1, (before, mul))
            weighted = (own * weights[:, :, None, weight : weight + mul]).flatten(1, 2)
            block = matrices[..., matrix : matrix + before * after]
            block = torch.where(graph.reverse[..., None], parity * block, block)
            block = block.reshape(len(block), -1, after)
            parts[target] = (block.transpose(1, 2) @ weighted).flatten(1)
        return torch.cat([parts[target] for target in sorted(parts)], dim=1)


class _Coupling(torch.autograd.Function):
    """The compiled loop and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weights: Tensor, matrices: Tensor, where: Any
    ) -> Tensor:
        """Sum over neighbors."""
        ctx.where = where
        ctx.save_for_backward(features, weights, matrices)
        summed = features.new_zeros(len(features), where.size)
        where.call("couple", features, weights, matrices, summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients by features, weights and matrices."""
        given = ctx.saved_tensors
        found = [torch.zeros_like(values) for values in given]
        ctx.where.call("couple_backward", *given, gradient.contiguous(), *found)
        return (*found, None)


@dataclass(frozen=True)
class _Where:
    """What the compiled loop runs over: a graph, and the paths of a product."""

    library: ctypes.CDLL
    graph: PaddedGraph
    paths: Tensor
    size: int

    def call(self, name: str, *arrays: Tensor) -> None:
        """Call a function of the library with features, weights, matrices and what it writes to."""
        graph = self.graph
        numbers = [*graph.neighbors.shape, len(arrays[1])]
        tables = [graph.neighbors, graph.pairs, graph.reverse]
        sizes = [len(self.paths), *(values.shape[1] for values in arrays[:3]), self.size]
        getattr(self.library, name)(
            (ctypes.c_int64 * 6)(*numbers, *(values.data_ptr() for values in tables)),
            (ctypes.c_int64 * 6)(*sizes, self.paths.data_ptr()),
            *(ctypes.c_void_p(values.data_ptr()) for values in arrays),
        )


@cache
def _compiled() -> ctypes.CDLL | None:
    """The compiled loop, or None where there is no compiler."""
    source = Path(__file__).with_name("coupling.cpp")
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "coupling.so"
        compiled = library.with_suffix(".o")
        flags = ["-std=c++17", "-O3", "-march=native", "-ffast-math", "-fPIC", "-c"]
        # Linked with -ffast-math, it would set small numbers to zero in the whole process.
        commands = (
            ["c++", *flags, "-o", str(compiled), str(source)],
            ["c++", "-shared", "-o", str(library), str(compiled)],
        )
        try:
            for command in commands:
                subprocess.run(command, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no compiled loop for Nequix, it runs some times slower: {error}", flush=True)
            return None
        return ctypes.CDLL(str(library))


def _channels_last(irreps: Any) -> Tensor:
    """Where in e3nn's order each component stands, channels last."""
    blocks = [
        torch.arange(part.start, part.stop).view(block.mul, block.ir.dim).T.flatten()
        for part, block in zip(irreps.slices(), irreps, strict=True)
    ]
    return torch.cat(blocks)
