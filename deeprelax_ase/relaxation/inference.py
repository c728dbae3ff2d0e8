"""One network, or the replicates of an ensemble, with the solver: crystals in, structures out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deeprelax_ase import solver
from deeprelax_ase.network.checkpoint import Weights, elements_seen, load_weights
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph, build_graph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.network.weights_registry import replicate_paths
from deeprelax_ase.relaxation.calibration import Calibration, combine
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.result import WeightsName
from deeprelax_ase.relaxation.single_crystal import SingleCrystal
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric


class Predictor:
    """Networks of one configuration on one device.

    Args:
        replicates: One, or several that were trained independently.
        device: Where they run.
        method: How distances become a structure, see `solver.solve`.

    Raises:
        ValueError: The replicates are not of the same configuration.
    """

    def __init__(self, replicates: Sequence[Weights], device: torch.device, method: str) -> None:
        first = replicates[0]
        for other in replicates[1:]:
            if other.network.config != first.network.config:
                msg = f"{other.name!r} is no replicate of {first.name!r}: it is another network"
                raise ValueError(msg)
        self.networks = [weights.network.to(device) for weights in replicates]
        self._single = [
            SingleCrystal(network)
            for network in self.networks
            if device.type == "cpu" and method == "joint"
        ]
        self.weights = WeightsName(first.name, first.sha256)
        self.device = device
        self.method = method
        calibration = first.calibration
        if len(replicates) > 1:
            calibration = calibration.get("ensemble", calibration)
        self.calibration = Calibration.from_metadata(calibration)
        # Elements, and those seen with each functional; empty where nobody noted them.
        self.seen = frozenset(first.provenance.get("elements", ()))
        self.seen_with = elements_seen(first.provenance)

    @property
    def config(self) -> NetworkConfig:
        """Configuration of its networks."""
        return self.networks[0].config

    def predict(
        self, crystals: Sequence[Crystal], functionals: Sequence[str]
    ) -> list[CrystalPrediction]:
        """Predict the relaxed structures of a batch, each with its functional."""
        if self._single and len(crystals) == 1:
            parts = [one(crystals[0], functionals[0]) for one in self._single]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                return [_mean(known)]
        graph = build_graph(crystals, functionals, self.config)
        replicates = [list(self._predict_batch(network, graph)) for network in self.networks]
        return [_mean(parts) for parts in zip(*replicates, strict=True)]

    def run_network(self, network: torch.nn.Module, graph: CrystalGraph) -> Prediction:
        """What one network says of a batch, in double precision, where the solve is made."""
        with torch.inference_mode():
            prediction: Prediction = network(graph.to(torch.float32, self.device))
            # Apple's GPUs know no double precision.
            place = self.device if self.device.type == "cuda" else "cpu"
            return prediction.to(torch.float64, place)

    def _predict_batch(
        self, network: torch.nn.Module, graph: CrystalGraph
    ) -> Iterator[CrystalPrediction]:
        """What one of the networks makes of a batch."""
        prediction = self.run_network(network, graph)
        own = graph.to(torch.float64, prediction.distances.device)
        solution = solver.solve(own, prediction, self.method, max_steps=self.config.solver_steps)
        return _split(graph, prediction.to(torch.float64, "cpu"), solution.cpu())


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
    failed = [part.status for part in parts if part.status != solver.SolveStatus.SOLVED]
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


def _split(
    graph: CrystalGraph, prediction: Prediction, solution: solver.Solution
) -> Iterator[CrystalPrediction]:
    """Parts of a batch in order; `build_graph` lists the pairs of a crystal together."""
    num_atoms = graph.num_atoms.numpy()
    num_pairs = np.bincount(graph.edge_batch.numpy(), minlength=len(num_atoms))
    last_atoms, last_pairs = np.cumsum(num_atoms), np.cumsum(num_pairs)
    displacements, deformations = solution.displacements.numpy(), solution.deformations.numpy()
    statuses = solution.status.tolist()
    displacement_scales = prediction.displacement_log_scales.exp().numpy()
    strain_scales = prediction.strain_log_scales.exp().tolist()
    edge_index, offsets = graph.edge_index.numpy(), graph.offsets.numpy()
    lengths, distances = graph.edge_lengths.numpy(), prediction.distances.numpy()
    distance_scales = prediction.distance_log_scales.exp().numpy()
    for crystal, (last_atom, last_pair) in enumerate(zip(last_atoms, last_pairs, strict=True)):
        atoms = slice(last_atom - num_atoms[crystal], last_atom)
        pairs = slice(last_pair - num_pairs[crystal], last_pair)
        yield CrystalPrediction(
            displacements=displacements[atoms],
            deformation=deformations[crystal],
            status=solver.SolveStatus(statuses[crystal]),
            displacement_scales=displacement_scales[atoms],
            strain_scale=strain_scales[crystal],
            edge_index=edge_index[:, pairs] - atoms.start,
            offsets=offsets[pairs],
            lengths=lengths[pairs],
            distances=distances[pairs],
            distance_scales=distance_scales[pairs],
        )
