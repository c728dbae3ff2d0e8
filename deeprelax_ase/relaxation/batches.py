"""Batches of crystals through the networks and the solver, on any device that torch knows."""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from deeprelax_ase import solver
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph, build_graph
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.relaxation.prediction import CrystalPrediction, split
from deeprelax_ase.structures.crystal import Crystal

if hasattr(os, "register_at_fork"):
    # A forked process has none of its parent's OpenMP threads, and waits for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Batches:
    """Networks of one configuration on one device.

    Args:
        networks: They are moved there.
        device: Where they run.
        method: How distances become a structure, see `solver.solve`.
    """

    def __init__(self, networks: Sequence[PaEGNN], device: torch.device, method: str) -> None:
        self.networks = [network.to(device) for network in networks]
        self.device = device
        self.method = method
        _keep_freed_memory()

    @property
    def config(self) -> NetworkConfig:
        """Configuration of the networks."""
        return self.networks[0].config

    def predict(
        self, crystals: Sequence[Crystal], functionals: Sequence[str]
    ) -> list[tuple[CrystalPrediction, ...]]:
        """What each of the networks makes of each crystal, with its functional."""
        # Whatever device the process has set for others.
        is_usual = torch.empty(0).device.type == "cpu"
        with nullcontext() if is_usual else torch.device("cpu"):
            graph = build_graph(crystals, functionals, self.config)
            replicates = [list(self._predict(network, graph)) for network in self.networks]
            return list(zip(*replicates, strict=True))

    def run_network(self, network: torch.nn.Module, graph: CrystalGraph) -> Prediction:
        """What one network says of a batch, in double precision, where the solve is made."""
        with torch.inference_mode():
            prediction: Prediction = network(graph.to(torch.float32, self.device))
            # Apple's GPUs know no double precision.
            place = self.device if self.device.type == "cuda" else "cpu"
            return prediction.to(torch.float64, place)

    def _predict(
        self, network: torch.nn.Module, graph: CrystalGraph
    ) -> Iterator[CrystalPrediction]:
        prediction = self.run_network(network, graph)
        own = graph.to(torch.float64, prediction.distances.device)
        solution = solver.solve(own, prediction, self.method, max_steps=self.config.solver_steps)
        return _split(graph, prediction.to(torch.float64, "cpu"), solution.cpu())


def device_of(name: Any) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: There is none, or torch does not see it.
    """
    choices = "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        msg = f"unknown device {name!r}: choose {choices}"
        raise ValueError(msg) from error
    if device.type not in ("cpu", "cuda", "mps"):
        msg = f"unknown device {name!r}: choose {choices}"
        raise ValueError(msg)
    if device.type == "mps" and not torch.backends.mps.is_available():
        msg = "no device 'mps': this torch sees no Apple GPU; choose 'auto' or 'cpu'"
        raise ValueError(msg)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        msg = f"no device {name!r}: torch sees {count} CUDA devices; choose 'auto' or 'cpu'"
        raise ValueError(msg)
    return device


def _keep_freed_memory() -> None:
    """Let the C library keep what it frees: else it asks the kernel for every layer anew.

    Having once freed a block of 31 MiB, glibc no longer returns smaller ones (M_MMAP_THRESHOLD in
    mallopt(3)). Without it a batch takes half as long again.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _split(
    graph: CrystalGraph, prediction: Prediction, solution: solver.Solution
) -> Iterator[CrystalPrediction]:
    """Parts of a batch in order; `build_graph` lists the pairs of a crystal together."""
    num_atoms = graph.num_atoms.numpy()
    return split(
        num_atoms,
        np.bincount(graph.edge_batch.numpy(), minlength=len(num_atoms)),
        solution.status.tolist(),
        displacements=solution.displacements.numpy(),
        deformations=solution.deformations.numpy(),
        displacement_scales=prediction.displacement_log_scales.exp().numpy(),
        strain_scales=prediction.strain_log_scales.exp().tolist(),
        edge_index=graph.edge_index.numpy(),
        offsets=graph.offsets.numpy(),
        lengths=graph.edge_lengths.numpy(),
        distances=prediction.distances.numpy(),
        distance_scales=prediction.distance_log_scales.exp().numpy(),
    )
