"""Check that a predicted structure can be believed, and say in one sentence why not."""

import numpy as np
from jaxtyping import Float

from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import LEAST_DISTANCE, Crystal, nearest_pair

LARGEST_DISPLACEMENT = 4.0
"""A move further than this (Å) is refused."""
LARGEST_LOG_VOLUME = 1.0
"""A change of the logarithm of the volume larger than this is refused."""


def reason_to_refuse(
    crystal: Crystal,
    displacement: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
    status: SolveStatus,
    nearest: float = 0.0,
) -> str | None:
    """Why a prediction is not to be trusted at all, or None.

    Args:
        crystal: The input.
        displacement: Å.
        deformation: Symmetric.
        status: Of the solve.
        nearest: Distance (Å) of the two nearest atoms of the input, if it is known: it spares the
            search for atoms that overlap where moves are too small for that.
    """
    if status != SolveStatus.SOLVED:
        return f"input kept: {status.sentence}"
    furthest = float(np.linalg.norm(displacement, axis=1).max())
    if furthest > LARGEST_DISPLACEMENT:
        return f"input kept: an atom would move by {furthest:.1f} Å, over {LARGEST_DISPLACEMENT} Å"
    stretches = np.linalg.eigvalsh(deformation)
    log_volume = float(np.log(stretches).sum())
    if abs(log_volume) > LARGEST_LOG_VOLUME:
        return f"input kept: the volume would change by a factor of {np.exp(log_volume):.2f}"
    if stretches[0] * (nearest - 2 * furthest) > LEAST_DISTANCE:
        return None
    if nearest_pair(crystal.moved(displacement, deformation), LEAST_DISTANCE) is not None:
        return f"input kept: {SolveStatus.ATOMS_OVERLAP.sentence}"
    return None
