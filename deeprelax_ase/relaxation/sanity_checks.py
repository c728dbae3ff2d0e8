"""Check that a predicted structure can be believed, and say in one sentence why not."""

import numpy as np
from jaxtyping import Float, Int

from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import (
    LEAST_DISTANCE,
    MAX_ATOMIC_NUMBER,
    Crystal,
    nearest_pair,
)
from deeprelax_ase.structures.elements import atomic_numbers, covalent_radii

LARGEST_DISPLACEMENT = 4.0
"""A move further than this (Å) is refused."""
LARGEST_LOG_VOLUME = 1.0
"""A change of the logarithm of the volume larger than this is refused."""

_NONMETALS = "H B C N O F Si P S Cl As Se Br Te I"
_IS_NONMETAL = np.isin(
    np.arange(MAX_ATOMIC_NUMBER + 1), [atomic_numbers[one] for one in _NONMETALS.split()]
)
_BONDED = 1.3
"""Times the sum of their covalent radii that atoms with a bond are apart at most."""
_CRUSHED = 0.75
"""Times that sum which no bond is shorter than (that of N2 is 0.77, of CO 0.79 times as long)."""
_SHORTENED = 0.95
"""A bond that was as short before is not crushed."""


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


def crushed_bond(
    numbers: Int[np.ndarray, " atoms"],
    edge_index: Int[np.ndarray, "2 bonds"],
    before: Float[np.ndarray, " bonds"],
    after: Float[np.ndarray, " bonds"],
) -> str | None:
    """Why a prediction that crushes a covalent bond is not to be trusted, or None.

    A molecule that lies the wrong way round on a surface is pushed together rather than turned.

    Args:
        numbers: Atomic numbers.
        edge_index: The two atoms of each pair.
        before: Lengths in the input, Å.
        after: Lengths in the prediction, Å.
    """
    i, j = edge_index
    covalent = _IS_NONMETAL[numbers]
    near = np.flatnonzero(covalent[i] & covalent[j] & (after < _SHORTENED * before))
    if not len(near):
        return None
    radii = covalent_radii[numbers]
    usual = radii[i[near]] + radii[j[near]]
    is_bond = before[near] < _BONDED * usual
    crushed = near[is_bond & (after[near] < _CRUSHED * usual)]
    if not len(crushed):
        return None
    worst = crushed[after[crushed].argmin()]
    return (
        f"input kept: the bond of atoms {i[worst]} and {j[worst]} would be crushed from "
        f"{before[worst]:.2f} to {after[worst]:.2f} Å; is a molecule too near, or upside down?"
    )
