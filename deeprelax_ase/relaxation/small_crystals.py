"""Small crystals on a processor: network and solve in C, which needs no torch.

What crystals of a few atoms cost in torch is not arithmetic but calls and memory. `compiled` has
the layers and the step of the solve a second time; the tests hold both to the same results.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.compiled import IS_COMPILED
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.neighbors import PairList, chosen_pairs
from deeprelax_ase.relaxation.compiled_weights import (
    LIMITS,
    Arrays,
    layout_of,
    weights_block,
)
from deeprelax_ase.relaxation.prediction import CrystalPrediction, split
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import Crystal

_PAIRS_AT_ONCE = 128
"""Filters of so many pairs stay in a core's cache of 1 MB with three layers of 96 features."""


class SmallCrystals(NamedTuple):
    """Crystals and the pairs of their graph.

    Attributes:
        crystals: At least one.
        num_atoms: Of each.
        num_pairs: Of each.
        pairs: Of all, crystal by crystal, atoms counted through.
        vectors: From the first atom to the second, Å.
    """

    crystals: Sequence[Crystal]
    num_atoms: Int[np.ndarray, " crystals"]
    num_pairs: Int[np.ndarray, " crystals"]
    pairs: PairList
    vectors: Float[np.ndarray, "pairs 3"]

    @classmethod
    def of(cls, crystals: Sequence[Crystal], config: NetworkConfig) -> "SmallCrystals":
        """Those that `build_graph` would make a graph of."""
        pairs, vectors, _, keep = chosen_pairs(crystals, config)
        pairs = pairs.of(keep)
        num_atoms = np.array([len(crystal) for crystal in crystals], dtype=np.int64)
        num_pairs = np.bincount(pairs.crystals, minlength=len(crystals)).astype(np.int64)
        return cls(crystals, num_atoms, num_pairs, pairs, vectors[keep])


class CompiledNetwork:
    """Network and one step of the joint solve.

    Args:
        config: Of the network, one that `can_run`.
        arrays: Its weights; they are copied.

    Raises:
        KeyError: They are those of another architecture.
    """

    def __init__(self, config: NetworkConfig, arrays: Arrays) -> None:
        self._names = config.functionals
        self._layout = layout_of(config)
        self._block = weights_block(config, arrays)
        names = ("elements.weight", "functionals.weight", "held.weight", "radial.radii")
        self._elements, self._functionals, self._held, self._radii = (
            np.array(arrays[name], dtype=np.float32) for name in names
        )

    @staticmethod
    def can_run(config: NetworkConfig) -> bool:
        """Whether it knows such a network, and is there at all."""
        if not IS_COMPILED or config.num_tensors == 0 or config.ucoe or config.solver_steps != 1:
            return False
        from deeprelax_ase.compiled import core

        return config.num_layers <= core.MOST_LAYERS

    def __call__(
        self, known: SmallCrystals, functionals: Sequence[str]
    ) -> list[CrystalPrediction | None]:
        """What becomes of crystals, each with its functional.

        Returns:
            None for what is left to the general way, as the one step would not end it.
        """
        from deeprelax_ase.compiled import core

        crystals, pairs = known.crystals, known.pairs
        numbers = np.concatenate([crystal.numbers for crystal in crystals])
        count, num_pairs, num_crystals = len(numbers), len(pairs.first), len(crystals)
        moves, scales = np.empty((count, 3)), np.empty(count)
        deformations, strain_scales = np.empty((num_crystals, 3, 3)), np.empty(num_crystals)
        distances, distance_scales = np.empty(num_pairs), np.empty(num_pairs)
        solved = np.zeros(num_crystals, dtype=np.uint8)
        core.predict(
            self._layout,
            LIMITS,
            _PAIRS_AT_ONCE,
            (
                self._block,
                known.num_atoms,
                known.num_pairs,
                pairs.first,
                pairs.second,
                self._scalars(known, numbers, functionals),
                self._radii[numbers[pairs.first]] + self._radii[numbers[pairs.second]],
                known.vectors,
                pairs.lengths,
                np.stack([crystal.strain_freedom() for crystal in crystals]),
                np.concatenate([_fixed(crystal) for crystal in crystals]),
                *(moves, deformations, scales, strain_scales, distances, distance_scales, solved),
            ),
        )
        found = split(
            known.num_atoms,
            known.num_pairs,
            [SolveStatus.SOLVED] * num_crystals,
            displacements=moves,
            deformations=deformations,
            displacement_scales=scales,
            strain_scales=strain_scales.tolist(),
            edge_index=np.stack([pairs.first, pairs.second]),
            offsets=pairs.offsets,
            lengths=pairs.lengths,
            distances=distances,
            distance_scales=distance_scales,
        )
        return [one if ok else None for one, ok in zip(found, solved.tolist(), strict=True)]

    def _scalars(
        self,
        known: SmallCrystals,
        numbers: Int[np.ndarray, " atoms"],
        functionals: Sequence[str],
    ) -> Float[np.ndarray, "atoms features"]:
        """What the scalars begin as."""
        tokens = [self._names.index(name) for name in functionals]
        told = np.concatenate([crystal.told_holds() for crystal in known.crystals])
        scalars = self._elements[numbers]
        scalars += np.repeat(self._functionals[tokens], known.num_atoms, axis=0)
        if told.any():
            scalars += told.astype(np.float32) @ self._held.T
        return scalars


def _fixed(crystal: Crystal) -> Bool[np.ndarray, " atoms"]:
    return np.zeros(len(crystal), dtype=bool) if crystal.fixed is None else crystal.fixed
