"""The forward pass of PaEGNN for one small crystal, in numpy; see `numpy_layers.py`."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deeprelax_ase.network.config import (
    LEAST_WEIGHT,
    MAX_LOG_SCALE,
    MEAN_PAIRS_PER_ATOM,
    MIN_LOG_SCALE,
    NetworkConfig,
)
from deeprelax_ase.network.numpy_layers import (
    MATRICES,
    Arrays,
    Edges,
    Message,
    Radial,
    TensorUpdate,
    Update,
    dense,
    gated,
    norm,
    quadrupoles,
    silu,
    through,
)
from deeprelax_ase.structures.crystal import Crystal


class OneCrystal(NamedTuple):
    """A crystal and the pairs of its graph, in double precision.

    Attributes:
        crystal: With its species, and which atoms are fixed.
        freedom: `Crystal.strain_freedom`.
        first: Atom i of each pair.
        second: Atom j.
        vectors: From i to j, Å.
        lengths: Å.
    """

    crystal: Crystal
    freedom: Float[np.ndarray, "9 9"]
    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    vectors: Float[np.ndarray, "pairs 3"]
    lengths: Float[np.ndarray, " pairs"]


class Output(NamedTuple):
    """What the network says of one crystal, as in `network.prediction`; in double precision."""

    distances: Float[np.ndarray, " pairs"]
    distance_log_scales: Float[np.ndarray, " pairs"]
    distance_weights: Float[np.ndarray, " pairs"]
    displacements: Float[np.ndarray, "atoms 3"]
    displacement_log_scales: Float[np.ndarray, " atoms"]
    displacement_weights: Float[np.ndarray, " atoms"]
    strain: Float[np.ndarray, "3 3"]
    strain_log_scale: float
    strain_weight: float


class NumpyPaEGNN:
    """What a `PaEGNN` with tensors and without offset encoding computes.

    Args:
        config: Of the network.
        arrays: Its weights.

    Raises:
        KeyError: They are those of another architecture.
    """

    def __init__(self, config: NetworkConfig, arrays: Arrays) -> None:
        self._names = config.functionals
        self._elements = arrays["elements.weight"]
        self._functionals = arrays["functionals.weight"]
        self._held = dense(arrays, "held")
        self._radial = Radial(arrays, config)
        self._layers = [
            (
                Message(arrays, f"messages.{number}", config),
                Update(arrays, f"updates.{number}", config),
                TensorUpdate(arrays, f"tensor_updates.{number}", config),
            )
            for number in range(config.num_layers)
        ]
        self._heads = _Heads(arrays)

    def __call__(self, one_crystal: OneCrystal, functional: str) -> Output | None:
        """What the network says; None where an atom has no neighbours."""
        crystal, first, second = one_crystal.crystal, one_crystal.first, one_crystal.second
        numbers = crystal.numbers
        single = one_crystal.lengths.astype(np.float32)
        directions = one_crystal.vectors.astype(np.float32) / single[:, None]
        codes, envelope = self._radial(single, numbers[first], numbers[second])
        if np.bincount(np.append(first, second), minlength=len(numbers)).min() == 0:
            return None
        lying = quadrupoles(directions)
        outward = np.concatenate([directions, -directions]).T
        edges = Edges(first, second, (outward, np.tile(lying, 2)), len(numbers))
        held = crystal.told_holds().astype(np.float32)
        token = self._functionals[self._names.index(functional)]
        scalars = self._elements[numbers] + token
        if held.any():
            scalars = scalars + self._held(held)
        vectors = tensors = None
        for message, update, tensor_update in self._layers:
            told = edges, codes, envelope
            scalars, vectors, tensors = message(scalars, vectors, tensors, *told)
            scalars, vectors = update(scalars, vectors)
            scalars, vectors, tensors = tensor_update(scalars, vectors, tensors)
        features = scalars, vectors, tensors
        return self._heads(one_crystal, features, single, directions, lying, codes, envelope)


class _Heads:
    """As the heads, and what `PaEGNN.decode` makes of them."""

    def __init__(self, arrays: Arrays) -> None:
        self.ends, self.code, self.vectors, self.tensors, self.hidden, self.out = (
            dense(arrays, f"edge_head.{part}")
            for part in ("ends", "code", "vectors", "tensors", "hidden", "out")
        )
        self.mix = dense(arrays, "displacement_head.mix")
        self.gates = gated(arrays, "displacement_head.gates")
        self.atoms = gated(arrays, "strain_head.atoms")
        self.strain = 0.1 * arrays["strain_head.tensors.weight"][0]

    def __call__(
        self,
        one_crystal: OneCrystal,
        features: tuple[Any, Any, Any],
        lengths: Float[np.ndarray, " pairs"],
        directions: Float[np.ndarray, "pairs 3"],
        lying: Float[np.ndarray, "5 pairs"],
        codes: Float[np.ndarray, "pairs basis"],
        envelope: Float[np.ndarray, " pairs"],
    ) -> Output:
        scalars, vectors, tensors = features
        first, second = one_crystal.first, one_crystal.second
        ends, pulls = self.ends(scalars), self.vectors(vectors)
        mixed = ends[first] + ends[second]
        mixed += self.code(codes)
        apart = pulls.take(first, axis=1)
        apart -= pulls.take(second, axis=1)
        mixed += np.einsum("apw,pa->pw", apart, directions)
        both = tensors.take(first, axis=1)
        both += tensors.take(second, axis=1)
        mixed += self.tensors(np.einsum("apt,ap->pt", both, lying))
        stretch, pull, scale, weight = self.out(silu(self.hidden(silu(mixed)))).T

        half = self.mix(vectors)
        width = scalars.shape[1]
        one, other = half[..., :width], half[..., width:]
        gates = through(self.gates, np.concatenate([scalars, norm(other)], axis=1))
        moves = np.einsum("anf,nf->na", one, gates[:, :width]) / np.float32(width)

        mean = np.full(len(scalars), 1 / len(scalars), dtype=np.float32)
        isotropic, strain_scale, strain_weight = (mean @ through(self.atoms, scalars))[:, None]
        pull = pull * envelope / np.float32(MEAN_PAIRS_PER_ATOM * len(scalars))
        strain = (directions * pull[:, None]).T @ directions
        strain += (MATRICES @ (mean @ tensors @ self.strain)).reshape(3, 3)
        strain += isotropic * np.eye(3, dtype=np.float32)
        free = one_crystal.freedom.astype(np.float32) @ strain.ravel()
        return Output(
            distances=(lengths * np.exp(stretch.clip(-1.0, 1.0))).astype(float),
            distance_log_scales=_log_scale(scale),
            distance_weights=(_certainty(weight, -3.0) * envelope).astype(float),
            displacements=one_crystal.crystal.settled(moves.astype(float)),
            displacement_log_scales=_log_scale(gates[:, -2]),
            displacement_weights=_certainty(gates[:, -1], 0.5).astype(float),
            strain=free.reshape(3, 3).astype(float),
            strain_log_scale=float(_log_scale(strain_scale)[0]),
            strain_weight=float(_certainty(strain_weight, 4.0)[0]) * len(scalars),
        )


def _log_scale(raw: np.ndarray) -> np.ndarray:
    return (raw - 2.0).clip(MIN_LOG_SCALE, MAX_LOG_SCALE).astype(float)


def _certainty(raw: np.ndarray, start: float) -> np.ndarray:
    return np.logaddexp(0.0, raw + np.float32(start)) + np.float32(LEAST_WEIGHT)
