"""The joint solve in one batch against the paper's hinge one crystal at a time.

    python -m benchmarks.solver [--crystals 512] [--hinge 32]

Crystals of 20 atoms with exact distances, rattled by 0.3 Å and strained by 5 %; one thread.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from ase.build import bulk

from deeprelax_ase import solver
from deeprelax_ase.datasets.augment import Pair, disturb
from deeprelax_ase.datasets.config import NoiseConfig
from deeprelax_ase.datasets.pair_file import Targets, collate
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.structures.crystal import Crystal

_NOISE = NoiseConfig(max_rattle=0.3, max_log_volume=0.05, max_strain=0.05, untouched=0.0)


def main() -> None:
    """Time both and print the medians, the ratio and the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=512)
    parser.add_argument("--hinge", type=int, default=32, help="crystals the hinge is timed on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    atoms = bulk("MgO", "rocksalt", a=4.2) * (1, 2, 5)
    perfect = Crystal(
        atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), atoms.pbc
    )
    still = Pair(perfect, "PBE", np.zeros_like(perfect.positions), np.eye(3))
    pairs = [disturb(still, _NOISE, rng) for _ in range(arguments.crystals)]

    batched = _times(lambda: _solve(pairs, "joint"))
    singles = [_times(partial(_solve, [pair], "bed"), 1) for pair in pairs[: arguments.hinge]]
    hinge = float(np.median(singles))
    each = batched / len(pairs)
    print(f"joint, one call on {len(pairs)} crystals: {1e3 * each:.3f} ms each")
    print(f"hinge, one by one on {len(singles)} crystals: {1e3 * hinge:.1f} ms each")
    print(f"ratio {hinge / each:.0f}")
    for method in ("joint", "bed"):
        print(f"{method}: mean error {_error(pairs[: arguments.hinge], method):.1e} Å")


def _problem(pairs: list[Pair]) -> tuple[CrystalGraph, Targets, Prediction]:
    graph, targets = collate(pairs, NetworkConfig())
    pair_count, atom_count, count = len(targets.distances), len(graph.numbers), len(pairs)
    options: dict[str, Any] = {"dtype": torch.float64}
    prediction = Prediction(
        distances=targets.distances,
        distance_log_scales=torch.full((pair_count,), -5.0, **options),
        distance_weights=torch.ones(pair_count, **options),
        displacements=torch.zeros(atom_count, 3, **options),
        displacement_log_scales=torch.full((atom_count,), 2.0, **options),
        displacement_weights=torch.full((atom_count,), 1e-6, **options),
        strains=targets.strains,
        strain_log_scales=torch.zeros(count, **options),
        strain_weights=torch.full((count,), 1e-6, **options),
    )
    return graph, targets, prediction


def _solve(pairs: list[Pair], method: str) -> tuple[float, solver.Solution, CrystalGraph, Targets]:
    graph, targets, prediction = _problem(pairs)
    started = time.perf_counter()
    solution = solver.solve(graph, prediction, method=method)
    return time.perf_counter() - started, solution, graph, targets


def _times(run: Callable[[], tuple[Any, ...]], repeats: int = 3) -> float:
    return float(np.median([run()[0] for _ in range(repeats)]))


def _error(pairs: list[Pair], method: str) -> float:
    _, solution, _, targets = _solve(pairs, method)
    return float((solution.displacements - targets.displacements).norm(dim=1).mean())


if __name__ == "__main__":
    main()
