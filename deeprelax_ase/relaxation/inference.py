"""One network, or the replicates of an ensemble, with the solver: crystals in, structures out."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deeprelax_ase.network.checkpoint import Weights, elements_seen, load_weights
from deeprelax_ase.network.weights_registry import replicate_paths
from deeprelax_ase.relaxation.calibration import Calibration, combine
from deeprelax_ase.relaxation.devices import may_have_gpu
from deeprelax_ase.relaxation.one_thread import one_thread
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.result import WeightsName
from deeprelax_ase.relaxation.small_crystals import CompiledNetwork, SmallCrystals
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric

ON_PROCESSOR = ("auto", "cpu")
"""Devices with which a single small crystal stays on the processor, which is fastest for it."""
WORTH_THREADS = 500
"""Crystals of fewer atoms are small: no faster with several threads, and many times slower where
other processes are at work."""


class Predictor:
    """Networks of one configuration with the solver.

    On a processor, small crystals go through them in C, and torch is not even loaded for them; all
    else in batches of torch.

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
        is_possible = str(device) in ON_PROCESSOR and method == "joint"
        self._compiled = [
            CompiledNetwork(weights.config, weights.arrays)
            for weights in replicates
            if is_possible and CompiledNetwork.can_run(weights.config)
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

    @cached_property
    def _is_on_processor(self) -> bool:
        is_gpu_wanted = str(self._device) != "cpu"
        return not (is_gpu_wanted and may_have_gpu()) or self.device.type == "cpu"

    def predict(
        self, crystals: Sequence[Crystal], functionals: Sequence[str]
    ) -> list[CrystalPrediction]:
        """Predict the relaxed structures of a batch, each with its functional."""
        found: dict[int, CrystalPrediction] = {}
        if self._compiled and (len(crystals) == 1 or self._is_on_processor):
            small = [k for k, crystal in enumerate(crystals) if len(crystal) < WORTH_THREADS]
            with one_thread() if len(small) < len(crystals) else nullcontext():
                found = self._predict_small(small, crystals, functionals)
        left = [k for k in range(len(crystals)) if k not in found]
        if left:
            theirs = [crystals[k] for k in left], [functionals[k] for k in left]
            for k, parts in zip(left, self.batches.predict(*theirs), strict=True):
                found[k] = _mean(parts)
        return [found[k] for k in range(len(crystals))]

    def _predict_small(
        self, small: Sequence[int], crystals: Sequence[Crystal], functionals: Sequence[str]
    ) -> dict[int, CrystalPrediction]:
        """Those of small crystals, by their places; some may be left to the general way."""
        if not small:
            return {}
        known = SmallCrystals.of([crystals[k] for k in small], self.config)
        theirs = [functionals[k] for k in small]
        replicates = [network(known, theirs) for network in self._compiled]
        found = {}
        for k, *parts in zip(small, *replicates, strict=True):
            sound = [part for part in parts if part is not None]
            if len(sound) == len(parts):
                found[k] = _mean(sound)
        return found


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
