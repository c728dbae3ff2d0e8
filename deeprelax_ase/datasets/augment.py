"""Move the inputs of pairs: denoising of relaxed crystals, augmentation, points on the way."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from deeprelax_ase.datasets.config import NoiseConfig
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric, log_symmetric

_SMALLEST_SHARE = 0.03


@dataclass(frozen=True)
class Pair:
    """An unrelaxed crystal and how it relaxes, in the conventions of `graph.py`.

    Attributes:
        crystal: The input.
        functional: Name of the functional of the target.
        displacements: Å, `Crystal.settled`.
        deformation: Symmetric; `relaxed_cell = cell @ deformation`.
    """

    crystal: Crystal
    functional: str
    displacements: Float[np.ndarray, "atoms 3"]
    deformation: Float[np.ndarray, "3 3"]

    @property
    def relaxed(self) -> Crystal:
        """The target."""
        moved = (self.crystal.positions + self.displacements) @ self.deformation
        return replace(self.crystal, positions=moved, cell=self.crystal.cell @ self.deformation)


def move_input(
    pair: Pair, displacements: Float[np.ndarray, "atoms 3"], deformation: Float[np.ndarray, "3 3"]
) -> Pair:
    """Move the input of a pair; the target stays, but for a rotation, which is of no account.

    Args:
        pair: What is changed.
        displacements: Of the input, Å, in its frame.
        deformation: Symmetric; what the input is deformed by after that.
    """
    moved = replace(pair, displacements=displacements, deformation=deformation).relaxed
    # Back by the inverse, then on to the target: its symmetric factor.
    onward = np.linalg.solve(deformation, pair.deformation)
    squares, axes = np.linalg.eigh(onward @ onward.T)
    symmetric = (axes * np.sqrt(squares)) @ axes.T
    moves = (pair.displacements - displacements) @ deformation
    return replace(pair, crystal=moved, displacements=moves, deformation=symmetric)


def move_on_the_way(pair: Pair, part: float) -> Pair:
    """Move the input a part of the way to its target, displacements and strain alike."""
    strain = log_symmetric(pair.deformation)
    return move_input(pair, part * pair.displacements, exp_symmetric(part * strain))


def disturb(pair: Pair, noise: NoiseConfig, rng: np.random.Generator) -> Pair:
    """Strain and rattle the input of a pair; the target stays.

    Strengths are drawn evenly on a logarithmic scale, so that small disturbances are as common
    as large ones. Before that, a share of the inputs is moved a random part of the way.
    """
    if noise.on_the_way and rng.random() < noise.on_the_way:
        pair = move_on_the_way(pair, rng.uniform())
    if rng.random() < noise.untouched:
        return pair
    crystal = pair.crystal
    shares = np.exp(rng.uniform(np.log(_SMALLEST_SHARE), 0.0, size=3))
    components = rng.uniform(-1.0, 1.0, size=(3, 3)) * noise.max_strain * shares[0]
    log_volume = rng.uniform(-1.0, 1.0) * noise.max_log_volume * shares[1]
    strain = (components + components.T) / 2 + log_volume / 3 * np.eye(3)
    rattle = rng.normal(size=crystal.positions.shape)
    rattle *= noise.max_rattle * shares[2] / np.sqrt(3.0)
    strain = (crystal.strain_freedom() @ strain.ravel()).reshape(3, 3)
    return move_input(pair, crystal.settled(rattle), exp_symmetric(strain))
