"""Layers of PaEGNN for one small crystal, in numpy.

What a small crystal costs is not arithmetic but calls: torch spends some three microseconds on each
of several hundred, numpy less than one. So the layers of `message_passing.py` stand here a second
time: components come before atoms, edges are sorted by the atom that they lead to, and constants
are multiplied into the weights. The tests hold both to the same results.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from deeprelax_ase.network.radial_basis import RadialBasis
from deeprelax_ase.network.rank2_tensors import BASIS

_ROOT = math.sqrt(0.5)
MATRICES = BASIS.numpy().astype(np.float32)
"""Flat symmetric traceless matrices of the five components of a tensor."""
_COMPONENTS = np.ascontiguousarray(MATRICES.T)


class Edges(NamedTuple):
    """Pairs along both directions, sorted by the atom that each leads to."""

    sources: Int[np.ndarray, " edges"]
    pairs: Int[np.ndarray, " edges"]
    starts: Int[np.ndarray, " atoms"]
    directions: Float[np.ndarray, "3 edges 1"]
    quadrupoles: Float[np.ndarray, "5 edges 1"]

    def sum(self, sent: Float[np.ndarray, "*components edges some"]) -> np.ndarray:
        """Sums over the edges that lead to each atom."""
        total: np.ndarray = np.add.reduceat(sent, self.starts, axis=-2)
        return total


class Radial:
    """As `RadialBasis`, and its envelope."""

    def __init__(self, radial: RadialBasis) -> None:
        self.radii = array_of(radial.radii)
        self.cutoff, self.exponent = radial.cutoff, radial.envelope_exponent
        width, relative = radial.inverse_width, radial.relative_inverse_width
        # The root of the half in the exponent.
        self.width, self.relative_width = np.float32(_ROOT * width), np.float32(_ROOT * relative)
        self.centers = self.width * array_of(radial.centers)
        self.relative = self.relative_width * array_of(radial.relative_centers)

    def __call__(
        self,
        lengths: Float[np.ndarray, " pairs"],
        numbers_i: Int[np.ndarray, " pairs"],
        numbers_j: Int[np.ndarray, " pairs"],
    ) -> tuple[Float[np.ndarray, "pairs basis"], Float[np.ndarray, " pairs"]]:
        """Basis functions of each pair, and their envelope."""
        touching = self.radii[numbers_i] + self.radii[numbers_j]
        absolute = (lengths * self.width)[:, None] - self.centers
        relative = (lengths / touching * self.relative_width)[:, None] - self.relative
        arguments = np.concatenate([absolute, relative], axis=1)
        np.multiply(arguments, arguments, out=arguments)
        np.minimum(arguments, 30.0, out=arguments)
        np.negative(arguments, out=arguments)
        p, scaled = self.exponent, lengths / np.float32(self.cutoff)
        power = scaled**p
        envelope = 1 - power * (
            (p + 1) * (p + 2) / 2 - scaled * (p * (p + 2) - scaled * (p * (p + 1) / 2))
        )
        return np.exp(arguments), np.where(scaled < 1, envelope, 0).astype(np.float32)


class Message:
    """As `Message`, with the residual of the scalars."""

    def __init__(self, message: Any) -> None:
        self.parts = _parts(message.widths)
        norm, source = message.norm, message.source
        first, second = source[0], source[2]
        weight = array_of(first.weight)
        self.epsilon = norm.eps
        self.source = (
            Dense(
                np.ascontiguousarray((weight * array_of(norm.weight)).T),
                array_of(first.bias) + weight @ array_of(norm.bias),
            ),
            dense(second, message.scale),
        )
        self.filter = dense(message.filter)

    def __call__(
        self,
        scalars: np.ndarray,
        vectors: np.ndarray | None,
        tensors: np.ndarray | None,
        edges: Edges,
        codes: Float[np.ndarray, "pairs basis"],
        envelope: Float[np.ndarray, " pairs"],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scalars after the residual, vectors and tensors, with what the neighbours send."""
        width = np.float32(scalars.shape[1])
        normal = scalars - np.add.reduce(scalars, axis=1, keepdims=True) / width
        spread = np.einsum("nf,nf->n", normal, normal) / width
        normal /= np.sqrt(spread + np.float32(self.epsilon))[:, None]
        filters = self.filter(codes)
        filters *= envelope[:, None]
        sent = through(self.source, normal).take(edges.sources, axis=0)
        sent *= filters.take(edges.pairs, axis=0)
        along, outward, scalar, same, stretch = (sent[:, part] for part in self.parts)
        moved = outward * edges.directions
        if vectors is not None:
            received = vectors.take(edges.sources, axis=1)
            received *= along
            moved += received
        turned = stretch * edges.quadrupoles
        if tensors is not None:
            received = tensors.take(edges.sources, axis=1)
            received *= same
            turned += received
        new_vectors, new_tensors = edges.sum(moved), edges.sum(turned)
        return (
            (scalars + edges.sum(scalar)) * np.float32(_ROOT),
            new_vectors if vectors is None else vectors + new_vectors,
            new_tensors if tensors is None else tensors + new_tensors,
        )


class Update:
    """As `Update`."""

    def __init__(self, update: Any) -> None:
        self.width = update.mix.in_features
        self.parts = _parts([self.width] * 3)
        self.mix = dense(update.mix)
        scales = np.repeat([_ROOT, _ROOT * update.scale, 1.0], self.width)
        self.gates = gated(update.gates, scales)

    def __call__(self, scalars: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """New scalars and vectors (Eq. 6, 7), the residual included."""
        mixed = self.mix(vectors)
        first, second = mixed[..., : self.width], mixed[..., self.width :]
        inner = np.einsum("anf,anf->nf", first, second)
        gates = through(self.gates, np.concatenate([scalars, norm(second)], axis=1))
        constant, product, vector = (gates[:, part] for part in self.parts)
        inner *= product
        inner += constant
        return scalars + inner, vectors + vector * first


class TensorUpdate:
    """As `TensorUpdate`."""

    def __init__(self, update: Any) -> None:
        self.width = update.mix.in_features
        self.mix, self.down, self.up = dense(update.mix), dense(update.down), dense(update.up)
        self.parts = _parts(update.widths)
        scales = np.repeat([_ROOT, 1.0, 1.0, 1.0], update.widths)
        self.gates = gated(update.gates, scales)

    def __call__(
        self, scalars: np.ndarray, vectors: np.ndarray, tensors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New scalars, vectors and tensors, the residual included."""
        mixed, both = self.mix(tensors), self.down(vectors)
        first, second = mixed[..., : self.width], mixed[..., self.width :]
        one, other = both[..., : self.width], both[..., self.width :]
        dyads = (_COMPONENTS @ (one[:, None] * other).reshape(9, -1)).reshape(first.shape)
        matrices = (MATRICES @ first.reshape(5, -1)).reshape(3, *one.shape)
        turned = np.einsum("abnt,bnt->ant", matrices, one)
        signs = [
            scalars,
            norm(second),
            np.einsum("ant,ant->nt", first, second),
            np.einsum("ant,ant->nt", first, dyads),
        ]
        gates = through(self.gates, np.concatenate(signs, axis=1))
        constant, vector, tensor, dyad = (gates[:, part] for part in self.parts)
        return (
            scalars + constant,
            vectors + vector * self.up(turned),
            tensors + tensor * first + dyad * dyads,
        )


class Dense(NamedTuple):
    """A linear layer: `x @ weight + bias`."""

    weight: np.ndarray
    bias: np.ndarray | None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """`x @ weight + bias`."""
        product: np.ndarray = x @ self.weight
        if self.bias is not None:
            product += self.bias
        return product


def dense(layer: Any, scale: Any = 1.0) -> Dense:
    """The layer, with its outputs multiplied by a scale."""
    weight = np.ascontiguousarray((array_of(layer.weight).T * scale).astype(np.float32))
    bias = None if layer.bias is None else (array_of(layer.bias) * scale).astype(np.float32)
    return Dense(weight, bias)


def gated(layers: nn.Sequential, scale: Any = 1.0) -> tuple[Dense, Dense]:
    """The two layers around a SiLU; the outputs of the second are multiplied by a scale."""
    first, _, second = layers
    return dense(first), dense(second, scale)


def _parts(widths: Sequence[int]) -> list[slice]:
    """Slices of these widths, one after the other."""
    ends = np.cumsum([0, *widths]).tolist()
    return [slice(*pair) for pair in pairwise(ends)]


def array_of(tensor: Any) -> np.ndarray:
    """Weights of a network on a processor, not copied."""
    array: np.ndarray = tensor.detach().numpy()
    return array


def through(layers: tuple[Dense, Dense], x: np.ndarray) -> np.ndarray:
    """Two layers with a SiLU between."""
    return layers[1](silu(layers[0](x)))


def silu(x: np.ndarray) -> np.ndarray:
    """`x / (1 + exp(-x))`."""
    below = np.exp(-x)
    below += 1.0
    activated: np.ndarray = x / below
    return activated


def norm(features: Float[np.ndarray, "components atoms some"]) -> np.ndarray:
    """Length of each vector or tensor, as `safe_norm`."""
    return np.sqrt(np.einsum("anf,anf->nf", features, features) + np.float32(1e-8))


def quadrupoles(directions: Float[np.ndarray, "pairs 3"]) -> Float[np.ndarray, "5 pairs"]:
    """As `rank2_tensors.quadrupoles`, components first."""
    dyads = (directions[:, :, None] * directions[:, None, :]).reshape(-1, 9)
    return np.ascontiguousarray((dyads @ MATRICES).T)
