"""Weights of PaEGNN in one block, in the order and form that the compiled network reads.

Matrices are transposed, constants and the weights of normalisations are multiplied into them, and
what is added to the raw outputs of the heads stands in their biases.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from deeprelax_ase.network.config import (
    LEAST_WEIGHT,
    LOG_SCALE_START,
    MAX_LOG_SCALE,
    MEAN_PAIRS_PER_ATOM,
    MIN_LOG_SCALE,
    MOVE_START,
    PAIR_START,
    RELATIVE_SPAN,
    STRAIN_START,
    NetworkConfig,
)
from deeprelax_ase.solver.status import LEAST_STRETCH, TINY
from deeprelax_ase.structures.crystal import LEAST_DISTANCE

Arrays = Mapping[str, np.ndarray]
"""Weights by their names in `PaEGNN.state_dict`."""
LIMITS = (MIN_LOG_SCALE, MAX_LOG_SCALE, LEAST_WEIGHT, LEAST_STRETCH, LEAST_DISTANCE, TINY)
_ROOT = math.sqrt(0.5)


def layout_of(config: NetworkConfig) -> tuple[Any, ...]:
    """What the block is read by."""
    return (
        config.num_features,
        config.num_tensors,
        config.num_layers,
        config.num_radial,
        config.num_relative,
        config.edge_features,
        config.envelope_exponent,
        config.cutoff,
        *_widths(config),
    )


def weights_block(config: NetworkConfig, arrays: Arrays) -> Float[np.ndarray, " numbers"]:
    """All weights one after the other.

    Args:
        config: Of a network with tensors and without offset encoding.
        arrays: Its weights.

    Raises:
        KeyError: They are those of another architecture.
    """
    parts = [np.asarray(part, dtype=np.float32).ravel() for part in _parts(config, arrays)]
    return np.concatenate(parts)


def _widths(config: NetworkConfig) -> tuple[float, float]:
    """What lengths and relative lengths are multiplied by, with the root of the half in `exp`."""
    relative = config.num_relative / (RELATIVE_SPAN[1] - RELATIVE_SPAN[0])
    return _ROOT * config.num_radial / config.cutoff, _ROOT * relative


def _parts(config: NetworkConfig, arrays: Arrays) -> Iterator[Any]:
    features, tensors = config.num_features, config.num_tensors
    width, relative_width = _widths(config)
    yield width * arrays["radial.centers"]
    yield relative_width * arrays["radial.relative_centers"]
    yield from _filters(config, arrays)
    for number in range(config.num_layers):
        name = f"messages.{number}"
        yield from _normalised(arrays, name)
        yield from _dense(arrays, f"{name}.source.2", 1 / math.sqrt(2 * MEAN_PAIRS_PER_ATOM))
        name = f"updates.{number}"
        yield from _dense(arrays, f"{name}.mix")
        scales = np.repeat([_ROOT, _ROOT / math.sqrt(features), 1.0], features)
        yield from _gated(arrays, f"{name}.gates", scales)
        name = f"tensor_updates.{number}"
        for part in ("mix", "down", "up"):
            yield from _dense(arrays, f"{name}.{part}")
        scales = np.repeat([_ROOT, 1.0], [features, features + 2 * tensors])
        yield from _gated(arrays, f"{name}.gates", scales)
    for part in ("ends", "vectors", "tensors", "hidden"):
        yield from _dense(arrays, f"edge_head.{part}")
    # Stretch, pull, scale and certainty of a pair; those of atoms and strains likewise.
    starts = (0.0, 0.0, LOG_SCALE_START, PAIR_START)
    yield from _dense(arrays, "edge_head.out", (1, 1 / MEAN_PAIRS_PER_ATOM, 1, 1), starts)
    yield from _dense(arrays, "displacement_head.mix")
    of_atoms = np.append(np.zeros(features), (LOG_SCALE_START, MOVE_START))
    yield from _gated(arrays, "displacement_head.gates", 1.0, of_atoms)
    yield from _gated(arrays, "strain_head.atoms", 1.0, (0.0, LOG_SCALE_START, STRAIN_START))
    yield 0.1 * arrays["strain_head.tensors.weight"]


def _filters(config: NetworkConfig, arrays: Arrays) -> Iterator[Any]:
    """Those of all layers, and the code of the edge head, as one linear layer."""
    names = [f"messages.{number}.filter" for number in range(config.num_layers)]
    weights = [arrays[f"{name}.weight"] for name in names]
    yield np.concatenate([*weights, arrays["edge_head.code.weight"]]).T
    biases = [arrays[f"{name}.bias"] for name in names]
    yield np.concatenate([*biases, np.zeros(config.edge_features)])


def _normalised(arrays: Arrays, name: str) -> Iterator[Any]:
    """The linear layer after a normalisation, whose factors and constants it takes over."""
    weight, bias = arrays[f"{name}.source.0.weight"].T, arrays[f"{name}.source.0.bias"]
    yield arrays[f"{name}.norm.weight"][:, None] * weight
    yield bias + arrays[f"{name}.norm.bias"] @ weight


def _dense(arrays: Arrays, name: str, scale: Any = 1.0, start: Any = 0.0) -> Iterator[Any]:
    """A linear layer, its outputs multiplied by a scale and added to a start."""
    yield arrays[f"{name}.weight"].T * scale
    if f"{name}.bias" in arrays:
        yield arrays[f"{name}.bias"] * scale + start


def _gated(arrays: Arrays, name: str, scale: Any = 1.0, start: Any = 0.0) -> Iterator[Any]:
    """The two layers around a SiLU."""
    yield from _dense(arrays, f"{name}.0")
    yield from _dense(arrays, f"{name}.2", scale, start)
