"""Uncertainty of bonds and crystals (Sec. 4.7), and what turns it into an expected error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Calibration:
    """Factors fitted on validation data, stored with the weights.

    Attributes:
        displacement: Mean error of displacements over their mean predicted scale.
        distance: The same for predicted lengths of bonds.
    """

    displacement: float = 1.0
    distance: float = 1.0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Calibration":
        """Read what a weights file says; factors of one where it says nothing."""
        known = ("displacement", "distance")
        return cls(**{name: float(metadata[name]) for name in known if name in metadata})


def system_uncertainty(bond_uncertainties: Float[np.ndarray, " bonds"]) -> float:
    """Mean over the bonds, Å (Eq. 24); zero for a crystal without bonds."""
    return float(bond_uncertainties.mean()) if len(bond_uncertainties) else 0.0


def fit_factor(errors: Float[np.ndarray, " items"], scales: Float[np.ndarray, " items"]) -> float:
    """The factor that makes the mean of the scales the mean of the errors."""
    return float(errors.mean() / scales.mean())
