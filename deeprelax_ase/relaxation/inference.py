"""One network, or the replicates of an ensemble, with the solver: crystals in, structures out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deeprelax_ase.network.checkpoint import Weights, elements_seen, load_weights
from deeprelax_ase.network.weights_registry import replicate_paths
from deeprelax_ase.relaxation.calibration import Calibration, combine
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.result import WeightsName
from deeprelax_ase.relaxation.single_crystal import SingleCrystal
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric

ON_PROCESSOR = ("auto", "cpu")
"""Devices with which a single small crystal stays on the processor, which is fastest for it."""


class Predictor:
    """Networks of one configuration with the solver.

    A single small crystal goes through them in numpy, without torch; all else in batches.

    Args:
        replicates: One, or several that were trained independently.
        device: Where batches are computed, see `batches.device_of`.
        method: How distances become a structure, see `solver.solve`.

    Raises:
        ValueError: The replicates are not of the same configuration.
    """

    def __init__(self, replicates: Sequence[Weights], device: Any, method: str) -> None:
        first = replicates[0]
        for other in replicates[1:]:
            if other.config != first.config:
                msg = f"{other.name!r} is no replicate of {first.name!r}: it is another network"
                raise ValueError(msg)
        self.config = first.config
        self.weights = WeightsName(first.name, first.sha256)
        self.method = method
        self._replicates = replicates
        self._device = device
        self._single = [
            SingleCrystal(weights.config, weights.arrays)
            for weights in replicates
            if str(device) in ON_PROCESSOR and method == "joint"
        ]
        calibration = first.calibration
        if len(replicates) > 1:
            calibration = calibration.get("ensemble", calibration)
        self.calibration = Calibration.from_metadata(calibration)
        # Elements, and those seen with each functional; empty where nobody noted them.
        self.seen = frozenset(first.provenance.get("elements", ()))
        self.seen_with = elements_seen(first.provenance)

    @cached_property
    def device(self) -> Any:
        """The `torch.device` of the batches."""
        from deeprelax_ase.relaxation.batches import device_of

        return device_of(self._device)

    @cached_property
    def batches(self) -> Any:
        """The `Batches`, made when the first one comes."""
        from deeprelax_ase.relaxation.batches import Batches

        networks = [weights.network for weights in self._replicates]
        return Batches(networks, self.device, self.method)

    def predict(
        self, crystals: Sequence[Crystal], functionals: Sequence[str]
    ) -> list[CrystalPrediction]:
        """Predict the relaxed structures of a batch, each with its functional."""
        if self._single and len(crystals) == 1:
            parts = [one(crystals[0], functionals[0]) for one in self._single]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                return [_mean(known)]
        return [_mean(parts) for parts in self.batches.predict(crystals, functionals)]


def load_replicates(name: str | Path) -> list[Weights]:
    """Weights of a name or a path, with those of its replicates beside it.

    Raises:
        ValueError: There are no replicates.
    """
    paths = replicate_paths(name)
    if len(paths) == 1:
        msg = (
            f"{str(name)!r} has no replicates: an ensemble needs {paths[0].stem}-2.safetensors "
            "and so on beside it"
        )
        raise ValueError(msg)
    first = load_weights(name)
    return [first, *(load_weights(path) for path in paths[1:])]


def _mean(parts: Sequence[CrystalPrediction]) -> CrystalPrediction:
    """What replicates predict of one crystal together."""
    first = parts[0]
    if len(parts) == 1:
        return first
    failed = [part.status for part in parts if part.status != SolveStatus.SOLVED]
    distances, distance_scales = combine(
        [part.distances for part in parts], [part.distance_scales for part in parts]
    )
    displacements, displacement_scales = combine(
        [part.displacements for part in parts], [part.displacement_scales for part in parts]
    )
    strains = [log_symmetric(part.deformation)[None] for part in parts]
    strain, strain_scale = combine(strains, [np.array([part.strain_scale]) for part in parts])
    return replace(
        first,
        displacements=displacements,
        deformation=exp_symmetric(strain[0]),
        status=failed[0] if failed else first.status,
        displacement_scales=displacement_scales,
        strain_scale=float(strain_scale[0]),
        distances=distances,
        distance_scales=distance_scales,
    )
