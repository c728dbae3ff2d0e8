"""One small crystal through network and solve in numpy; see `network/numpy_layers.py`."""

import math

import numpy as np

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.neighbors import chosen_pairs
from deeprelax_ase.network.numpy_forward import NumpyPaEGNN, OneCrystal
from deeprelax_ase.network.numpy_layers import Arrays
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.solver.numpy_step import one_step
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import Crystal

_MOST_PAIRS = 800
"""Beyond them torch, in portions that a core's cache holds, is as fast."""


class SingleCrystal:
    """Network and one step of the joint solve for single crystals.

    Args:
        config: Of the network.
        arrays: Its weights; they are copied.
    """

    def __init__(self, config: NetworkConfig, arrays: Arrays) -> None:
        self._config = config
        is_known = config.num_tensors > 0 and not config.ucoe
        is_possible = is_known and config.solver_steps == 1
        self._network = NumpyPaEGNN(config, arrays) if is_possible else None

    def __call__(self, crystal: Crystal, functional: str) -> CrystalPrediction | None:
        """What becomes of a crystal.

        Returns:
            None for what is left to the general way: large crystals, atoms without neighbours, and
            whatever does not go smoothly.
        """
        # Pairs at least, where atoms have the neighbours they ask for: then none are chosen twice.
        least_pairs = len(crystal) * self._config.max_neighbors / 2
        if self._network is None or least_pairs > _MOST_PAIRS:
            return None
        pairs, vectors, _, keep = chosen_pairs([crystal], self._config)
        if not 0 < len(keep) <= _MOST_PAIRS:
            return None
        first, second, offsets, lengths, _ = pairs.of(keep)
        freedom = crystal.strain_freedom()
        known = OneCrystal(crystal, freedom, first, second, vectors[keep], lengths)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            output = self._network(known, functional)
            end = None if output is None else one_step(known, output)
        if output is None or end is None:
            return None
        return CrystalPrediction(
            *end,
            status=SolveStatus.SOLVED,
            displacement_scales=np.exp(output.displacement_log_scales),
            strain_scale=math.exp(output.strain_log_scale),
            edge_index=np.stack([first, second]),
            offsets=offsets,
            lengths=lengths,
            distances=output.distances,
            distance_scales=np.exp(output.distance_log_scales),
        )
