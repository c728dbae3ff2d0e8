"""How far a predicted structure is from the relaxed one (Eq. 25-28), crystal by crystal."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase.datasets.pair_file import Targets
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph

MEASURED = NetworkConfig(cutoff=6.0, max_neighbors=20)
"""Of graphs whose pairs are the bonds of Eq. 26, so that networks of all graphs compare."""
NO_ERROR = 1e-6
"""An input with a mean error below this (Å, Å^3) has none to be better than."""


@dataclass(frozen=True)
class Errors:
    """Errors of each crystal of a batch.

    Attributes:
        coordinates: Mean absolute Cartesian component of the difference, Å (Eq. 25).
        displacement: Mean length of the difference in the affine frame, Å: between fractional
            coordinates, in the relaxed cell.
        bonds: Mean absolute error of the lengths of the graph's pairs, Å (Eq. 26).
        lattice: Mean absolute error of the nine components of the cell, Å (Eq. 27).
        volume: Absolute error of the volume, Å^3 (Eq. 28).
        log_volume: Absolute error of the logarithm of the volume.
    """

    coordinates: Float[np.ndarray, " crystals"]
    displacement: Float[np.ndarray, " crystals"]
    bonds: Float[np.ndarray, " crystals"]
    lattice: Float[np.ndarray, " crystals"]
    volume: Float[np.ndarray, " crystals"]
    log_volume: Float[np.ndarray, " crystals"]


def compute_errors(
    graph: CrystalGraph,
    displacements: Float[Tensor, "atoms 3"],
    deformations: Float[Tensor, "crystals 3 3"],
    targets: Targets,
) -> Errors:
    """Errors of structures given by displacements and deformations of a graph's crystals."""
    cells, true_cells = graph.cells @ deformations, graph.cells @ targets.deformations
    positions = _deform(graph, graph.positions + displacements, deformations)
    true_positions = _deform(graph, graph.positions + targets.displacements, targets.deformations)
    apart = _deform(graph, displacements - targets.displacements, targets.deformations)
    i, j = graph.edge_index
    vectors = graph.edge_vectors + displacements[j] - displacements[i]
    lengths = torch.linalg.vector_norm(
        (vectors[:, None, :] @ deformations[graph.edge_batch])[:, 0], dim=1
    )
    pairs = torch.bincount(graph.edge_batch, minlength=graph.num_crystals).clamp_min(1)
    bonds = lengths.new_zeros(graph.num_crystals)
    bonds = bonds.index_add(0, graph.edge_batch, (lengths - targets.distances).abs()) / pairs
    volumes, true_volumes = torch.linalg.det(cells).abs(), torch.linalg.det(true_cells).abs()
    return Errors(
        coordinates=graph.mean((positions - true_positions).abs().mean(dim=1)).numpy(),
        displacement=graph.mean(torch.linalg.vector_norm(apart, dim=1)).numpy(),
        bonds=bonds.numpy(),
        lattice=(cells - true_cells).abs().flatten(1).mean(dim=1).numpy(),
        volume=(volumes - true_volumes).abs().numpy(),
        log_volume=(volumes / true_volumes).log().abs().numpy(),
    )


def input_errors(graph: CrystalGraph, targets: Targets) -> Errors:
    """Errors of the unrelaxed input itself, the paper's Dummy."""
    still = torch.eye(3).to(graph.cells).expand(graph.num_crystals, 3, 3)
    return compute_errors(graph, torch.zeros_like(graph.positions), still, targets)


def concatenate(parts: list[Errors]) -> Errors:
    """Errors of several batches as one."""
    return Errors(
        **{
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(Errors)
        }
    )


def improvement(errors: Errors, dummy: Errors) -> dict[str, float]:
    """By how many per cent each mean error is smaller than that of the unrelaxed input."""
    means = {f.name: (getattr(errors, f.name), getattr(dummy, f.name)) for f in fields(Errors)}
    return {name: better(own.mean(), input_.mean()) for name, (own, input_) in means.items()}


def better(own: float, dummy: float) -> float:
    """By how many per cent an error is smaller; not a number where the input has none."""
    return float(100 * (1 - own / dummy)) if dummy > NO_ERROR else float("nan")


def _deform(graph: CrystalGraph, vectors: Tensor, deformations: Tensor) -> Tensor:
    return (vectors[:, None, :] @ deformations[graph.batch])[:, 0]
