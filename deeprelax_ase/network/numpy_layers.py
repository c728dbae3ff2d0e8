"""Layers of PaEGNN for one small crystal, in numpy.

What a small crystal costs is not arithmetic but calls: torch spends some three microseconds on each
of several hundred, numpy less than one. So the layers of `message_passing.py` stand here a second
time: components come before atoms, sums over edges are products of matrices, and constants are
multiplied into the weights. The tests hold both to the same results.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from deeprelax_ase.network.config import MEAN_PAIRS_PER_ATOM, RELATIVE_SPAN, NetworkConfig
from deeprelax_ase.network.tensor_basis import BASIS

_ROOT = math.sqrt(0.5)
_DENSE = 8000
"""Entries of the matrices of sums up to which dense ones are faster."""
_EPSILON = 1e-5
"""Of `torch.nn.LayerNorm`."""
Arrays = Mapping[str, np.ndarray]
"""Weights by their names in `PaEGNN.state_dict`."""
MATRICES = BASIS.astype(np.float32)
"""Flat symmetric traceless matrices of the five components of a tensor."""
_COMPONENTS = np.ascontiguousarray(MATRICES.T)


class Edges:
    """Pairs along both directions: first all towards one end, then all towards the other.

    Sums over the edges that lead to an atom are products with matrices, which hold the harmonics of
    the edges where these stand before what is summed: dense ones while they are small.

    Args:
        first: Atom that each pair leads to, and comes from in the other direction.
        second: The other atom of each.
        harmonics: Of each order, (components, edges), for both directions of all pairs.
        num_atoms: Of the crystal.
    """

    def __init__(
        self,
        first: Int[np.ndarray, " pairs"],
        second: Int[np.ndarray, " pairs"],
        harmonics: Sequence[np.ndarray],
        num_atoms: int,
    ) -> None:
        self.sources = np.concatenate([second, first])
        targets = np.concatenate([first, second])
        make = _dense_sums if num_atoms * len(targets) < _DENSE else _sparse_sums
        ones = np.ones((1, len(targets)), dtype=np.float32)
        self._sums, *self._by_order = (
            make(values, targets, num_atoms) for values in (ones, *harmonics)
        )
        self._num_atoms = num_atoms

    def sum(self, sent: Float[np.ndarray, "edges some"]) -> Float[np.ndarray, "atoms some"]:
        """Sums over the edges that lead to each atom."""
        total: np.ndarray = self._sums @ sent
        return total

    def sum_all(
        self, sent: Float[np.ndarray, "components edges some"]
    ) -> Float[np.ndarray, "components atoms some"]:
        """The same of every component."""
        if isinstance(self._sums, np.ndarray):
            return np.matmul(self._sums, sent)
        return np.stack([self._sums @ one for one in sent])

    def sum_along(
        self, order: int, sent: Float[np.ndarray, "edges some"]
    ) -> Float[np.ndarray, "components atoms some"]:
        """Sums of what is sent times each component of the harmonics of an order."""
        total: np.ndarray = self._by_order[order] @ sent
        return total.reshape(-1, self._num_atoms, sent.shape[1])


def _dense_sums(
    values: Float[np.ndarray, "components edges"], targets: Int[np.ndarray, " edges"], count: int
) -> Float[np.ndarray, "rows edges"]:
    matrix = np.zeros((len(values), count, len(targets)), dtype=np.float32)
    matrix[:, targets, np.arange(len(targets))] = values
    return matrix.reshape(-1, len(targets))


def _sparse_sums(
    values: Float[np.ndarray, "components edges"], targets: Int[np.ndarray, " edges"], count: int
) -> Any:
    order = targets.argsort(kind="stable")
    ends = np.cumsum(np.bincount(targets, minlength=count))
    starts = len(targets) * np.arange(len(values))[:, None]
    pointers = np.append(0, (starts + ends).ravel())
    columns = np.tile(order, len(values))
    shape = (len(values) * count, len(targets))
    return csr_array((values[:, order].ravel(), columns, pointers), shape=shape)


class Radial:
    """As `RadialBasis`, and its envelope."""

    def __init__(self, arrays: Arrays, config: NetworkConfig) -> None:
        self.radii = arrays["radial.radii"]
        self.cutoff, self.exponent = config.cutoff, config.envelope_exponent
        width = config.num_radial / config.cutoff
        relative = config.num_relative / (RELATIVE_SPAN[1] - RELATIVE_SPAN[0])
        # The root of the half in the exponent.
        self.width, self.relative_width = np.float32(_ROOT * width), np.float32(_ROOT * relative)
        self.centers = self.width * arrays["radial.centers"]
        self.relative = self.relative_width * arrays["radial.relative_centers"]

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

    def __init__(self, arrays: Arrays, name: str, config: NetworkConfig) -> None:
        self.parts = _parts([config.num_features] * 3 + [config.num_tensors] * 2)
        first = dense(arrays, f"{name}.source.0")
        assert first.bias is not None
        scales, shifts = arrays[f"{name}.norm.weight"], arrays[f"{name}.norm.bias"]
        self.source = (
            Dense(scales[:, None] * first.weight, first.bias + shifts @ first.weight),
            dense(arrays, f"{name}.source.2", 1.0 / math.sqrt(2 * MEAN_PAIRS_PER_ATOM)),
        )
        self.filter = dense(arrays, f"{name}.filter")

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
        normal /= np.sqrt(spread + np.float32(_EPSILON))[:, None]
        filters = self.filter(codes)
        filters *= envelope[:, None]
        sent = through(self.source, normal).take(edges.sources, axis=0)
        ways = sent.reshape(2, *filters.shape)
        ways *= filters
        along, outward, scalar, same, stretch = (sent[:, part] for part in self.parts)
        new_vectors, new_tensors = edges.sum_along(0, outward), edges.sum_along(1, stretch)
        if vectors is not None:
            received = vectors.take(edges.sources, axis=1)
            received *= along
            new_vectors += edges.sum_all(received) + vectors
        if tensors is not None:
            received = tensors.take(edges.sources, axis=1)
            received *= same
            new_tensors += edges.sum_all(received) + tensors
        return (scalars + edges.sum(scalar)) * np.float32(_ROOT), new_vectors, new_tensors


class Update:
    """As `Update`."""

    def __init__(self, arrays: Arrays, name: str, config: NetworkConfig) -> None:
        self.width = config.num_features
        self.parts = _parts([self.width] * 3)
        self.mix = dense(arrays, f"{name}.mix")
        scales = np.repeat([_ROOT, _ROOT / math.sqrt(self.width), 1.0], self.width)
        self.gates = gated(arrays, f"{name}.gates", scales)

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

    def __init__(self, arrays: Arrays, name: str, config: NetworkConfig) -> None:
        self.width = config.num_tensors
        self.mix, self.down, self.up = (
            dense(arrays, f"{name}.{part}") for part in ("mix", "down", "up")
        )
        widths = [config.num_features] * 2 + [self.width] * 2
        self.parts = _parts(widths)
        self.gates = gated(arrays, f"{name}.gates", np.repeat([_ROOT, 1.0, 1.0, 1.0], widths))

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


def dense(arrays: Arrays, name: str, scale: Any = 1.0) -> Dense:
    """The linear layer of a name, with its outputs multiplied by a scale."""
    weight = np.ascontiguousarray((arrays[f"{name}.weight"].T * scale).astype(np.float32))
    bias = arrays.get(f"{name}.bias")
    return Dense(weight, None if bias is None else (bias * scale).astype(np.float32))


def gated(arrays: Arrays, name: str, scale: Any = 1.0) -> tuple[Dense, Dense]:
    """The two layers around a SiLU; the outputs of the second are multiplied by a scale."""
    return dense(arrays, f"{name}.0"), dense(arrays, f"{name}.2", scale)


def _parts(widths: Sequence[int]) -> list[slice]:
    """Slices of these widths, one after the other."""
    ends = np.cumsum([0, *widths]).tolist()
    return [slice(*pair) for pair in pairwise(ends)]


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
