"""What a network says of a batch of crystals, before any solve.

Also the one place where log-scales and certainties get their range, for training, likelihood
and solve alike.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from deeprelax_ase.network.config import (
    LEAST_WEIGHT,
    LOG_SCALE_START,
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
)


def log_scale(raw: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
    """Logarithm of a Laplace scale from a head's raw output, kept in its range."""
    return (raw + LOG_SCALE_START).clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)


def certainty(raw: Float[Tensor, " items"], start: float) -> Float[Tensor, " items"]:
    """Positive weight of a term of the solve; a raw zero gives about `exp(start)`."""
    return softplus(raw + start) + LEAST_WEIGHT


@dataclass(frozen=True)
class Prediction:
    """Relaxed distances, displacements and strain, each with a Laplace scale and a certainty.

    Attributes:
        distances: Relaxed length of every pair of the graph, Å (Eq. 8).
        distance_log_scales: Log of their Laplace scales, Å (Eq. 10).
        distance_weights: Certainty of each length in the solve.
        displacements: Of every atom, Å; mean zero in each crystal, or zero where atoms are fixed.
        displacement_log_scales: Log of the scale of their norm's error, Å.
        displacement_weights: Certainty of each displacement in the solve.
        strains: Symmetric; `relaxed_cell = cell @ expm(strain)`.
        strain_log_scales: Log of the scale of the Frobenius norm of their error.
        strain_weights: Certainty of the strain in the solve, Å^2; grows with the crystal.
    """

    distances: Float[Tensor, " pairs"]
    distance_log_scales: Float[Tensor, " pairs"]
    distance_weights: Float[Tensor, " pairs"]
    displacements: Float[Tensor, "atoms 3"]
    displacement_log_scales: Float[Tensor, " atoms"]
    displacement_weights: Float[Tensor, " atoms"]
    strains: Float[Tensor, "crystals 3 3"]
    strain_log_scales: Float[Tensor, " crystals"]
    strain_weights: Float[Tensor, " crystals"]

    def to(self, dtype: torch.dtype, device: str | torch.device | None = None) -> "Prediction":
        """The prediction with another floating-point type, and perhaps on another device."""
        if device is None and self.distances.dtype == dtype:
            return self
        moved = {f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)}
        return Prediction(**moved)
