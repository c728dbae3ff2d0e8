"""Disturbing crystals: denoising pairs from relaxed ones, augmentation of the others."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import polar

from deeprelax_ase.datasets.config import NoiseConfig
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric

_SMALLEST_SHARE = 0.03


@dataclass(frozen=True)
class Pair:
    """An unrelaxed crystal and how it relaxes, in the conventions of `graph.py`.

    Attributes:
        crystal: The input.
        functional: Name of the functional of the target.
        displacements: Å, mean zero.
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


def disturb(pair: Pair, noise: NoiseConfig, rng: np.random.Generator) -> Pair:
    """The pair with its input strained and rattled, and the same relaxed crystal as target.

    Strengths are drawn evenly on a logarithmic scale, so that small disturbances are as common
    as large ones.
    """
    if rng.random() < noise.untouched:
        return pair
    crystal = pair.crystal
    shares = np.exp(rng.uniform(np.log(_SMALLEST_SHARE), 0.0, size=3))
    components = rng.uniform(-1.0, 1.0, size=(3, 3)) * noise.max_strain * shares[0]
    log_volume = rng.uniform(-1.0, 1.0) * noise.max_log_volume * shares[1]
    projector = crystal.strain_projector()
    strain = (components + components.T) / 2 + log_volume / 3 * np.eye(3)
    deform = exp_symmetric(projector @ strain @ projector)
    rattle = rng.normal(size=crystal.positions.shape)
    rattle *= noise.max_rattle * shares[2] / np.sqrt(3.0)
    rattle -= rattle.mean(axis=0)
    disturbed = replace(
        crystal, positions=(crystal.positions + rattle) @ deform, cell=crystal.cell @ deform
    )
    # Back by the inverse, then on to the target; a rotation of the target is of no account.
    _, symmetric = polar(np.linalg.solve(deform, pair.deformation), side="left")
    moves = (pair.displacements - rattle) @ deform
    return replace(pair, crystal=disturbed, displacements=moves, deformation=symmetric)
