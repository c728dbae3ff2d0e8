"""Make inputs of what the network predicts: so it learns to go on from there, pass after pass.

All of it stays on the device: the pairs that the moved crystals may have are searched for once,
some way beyond the cutoff, and of these the nearest are chosen again after each move.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from deeprelax_ase import solver
from deeprelax_ase.datasets.pair_file import Targets
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.neighbors import SHELL_GAP

FURTHER = 1.0
"""Å beyond the cutoff in which pairs are searched for."""


@torch.no_grad()
def relaxed_inputs(
    network: nn.Module,
    wide: CrystalGraph,
    targets: Targets,
    config: NetworkConfig,
    passes: int,
) -> tuple[CrystalGraph, Targets]:
    """Move crystals to where the network relaxes them; where they end in the end stays.

    A crystal whose solve fails stays where it is.

    Args:
        network: Averaged weights.
        wide: The crystals, with all pairs up to `FURTHER` beyond the cutoff.
        targets: What they relax to.
        config: Of the network.
        passes: How often they are moved.

    Returns:
        Graph and targets of the moved crystals.
    """
    for _ in range(passes):
        graph, _ = nearest(wide, targets, config)
        prediction = network(graph)
        solution = solver.solve(graph, prediction, max_steps=config.solver_steps)
        solved = solution.status == solver.SolveStatus.SOLVED
        displacements = solution.displacements * solved.index_select(0, wide.batch).unsqueeze(1)
        still = torch.eye(3).to(solution.deformations)
        deformations = torch.where(solved.view(-1, 1, 1), solution.deformations, still)
        wide, targets = move(
            wide, targets, displacements.to(wide.positions), deformations.to(wide.positions)
        )
    return nearest(wide, targets, config)


def move(
    graph: CrystalGraph,
    targets: Targets,
    displacements: Float[Tensor, "atoms 3"],
    deformations: Float[Tensor, "crystals 3 3"],
) -> tuple[CrystalGraph, Targets]:
    """Move the crystals of a graph; the targets stay, but for a rotation, which is of no account.

    Args:
        graph: Keeps its pairs.
        targets: Of the graph.
        displacements: Å, in the frame of the cells.
        deformations: Symmetric; act after the displacements.
    """
    of_atoms = deformations.index_select(0, graph.batch)
    i, j = graph.edge_index
    apart = displacements.index_select(0, j) - displacements.index_select(0, i)
    of_pairs = deformations.index_select(0, graph.edge_batch)
    vectors = _times(graph.edge_vectors + apart, of_pairs)
    # Back by the inverse, then on to the target: its symmetric factor.
    onward = torch.linalg.solve(deformations, targets.deformations)
    squares, axes = torch.linalg.eigh(onward @ onward.mT)
    logs = squares.clamp_min(1e-6).log() / 2
    moved = replace(
        graph,
        positions=_times(graph.positions + displacements, of_atoms),
        cells=graph.cells @ deformations,
        edge_vectors=vectors,
        edge_lengths=torch.linalg.vector_norm(vectors, dim=1),
    )
    left = Targets(
        displacements=_times(targets.displacements - displacements, of_atoms),
        deformations=(axes * logs.exp().unsqueeze(1)) @ axes.mT,
        strains=(axes * logs.unsqueeze(1)) @ axes.mT,
        distances=targets.distances,
    )
    return moved, left


def nearest(
    wide: CrystalGraph, targets: Targets, config: NetworkConfig
) -> tuple[CrystalGraph, Targets]:
    """The graph with those pairs only that `build_graph` would give it, and their targets."""
    inside = (wide.edge_lengths < config.reach).nonzero().squeeze(1)
    first, second = wide.edge_index.index_select(1, inside)
    lengths = wide.edge_lengths.index_select(0, inside)
    neighbors = wide.neighbors.index_select(0, wide.batch)
    kept = inside[_in_nearest_shells(first, second, lengths, neighbors)]
    names = ("offsets", "edge_batch", "edge_vectors", "edge_lengths", "encoded_offsets")
    parts = {name: getattr(wide, name).index_select(0, kept) for name in names}
    graph = replace(wide, edge_index=wide.edge_index.index_select(1, kept), **parts)
    return graph, replace(targets, distances=targets.distances.index_select(0, kept))


def _in_nearest_shells(
    first: Int[Tensor, " pairs"],
    second: Int[Tensor, " pairs"],
    lengths: Float[Tensor, " pairs"],
    neighbors: Int[Tensor, " atoms"],
) -> Bool[Tensor, " pairs"]:
    """Which pairs are among the nearest whole shells of either end, as in `build_graph`."""
    centers, distances = torch.cat([first, second]), torch.cat([lengths, lengths])
    order = distances.argsort(stable=True)
    order = order[centers[order].argsort(stable=True)]
    centers, distances = centers[order], distances[order]
    position = torch.arange(len(order), device=order.device)
    is_first = torch.ones_like(centers, dtype=torch.bool)
    is_first[1:] = centers[1:] != centers[:-1]
    start = torch.where(is_first, position, 0).cummax(0).values
    is_gap = torch.zeros_like(is_first)
    is_gap[1:] = distances[1:] - distances[:-1] > SHELL_GAP
    ended = ((position - start >= neighbors[centers]) & is_gap).cumsum(0)
    kept = torch.zeros_like(first, dtype=torch.bool)
    kept[order[ended == ended[start]] % len(lengths)] = True
    return kept


def _times(
    vectors: Float[Tensor, "items 3"], matrices: Float[Tensor, "items 3 3"]
) -> Float[Tensor, "items 3"]:
    return (vectors.unsqueeze(1) @ matrices).squeeze(1)
