"""Check that a predicted structure can be believed, and say in one sentence why not."""

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import (
    LEAST_DISTANCE,
    MAX_ATOMIC_NUMBER,
    Crystal,
    nearest_pair,
)
from deeprelax_ase.structures.elements import BONDED, atomic_numbers, covalent_radii

LARGEST_DISPLACEMENT = 4.0
"""A move further than this (Å) is refused."""
LARGEST_LOG_VOLUME = 1.0
"""A change of the logarithm of the volume larger than this is refused."""

_NONMETALS = "H B C N O F Si P S Cl As Se Br Te I"
_IS_NONMETAL = np.isin(
    np.arange(MAX_ATOMIC_NUMBER + 1), [atomic_numbers[one] for one in _NONMETALS.split()]
)
_ALKALIS = "Li Na K Rb Cs"
_IS_ALKALI = np.isin(
    np.arange(MAX_ATOMIC_NUMBER + 1), [atomic_numbers[one] for one in _ALKALIS.split()]
)
"""As ions they are smaller than as atoms: relaxed pnictides have Rb at 2.9 Å from Rb."""
_IS_ANION = np.isin(
    np.arange(MAX_ATOMIC_NUMBER + 1),
    [atomic_numbers[one] for one in f"{_NONMETALS} Ge Sn Sb Pb Bi Au Pt".split()],
)
_SHARE_OF_ANIONS = 0.25
_CRUSHED = 0.75
"""Times the sum of their covalent radii that no bond of nonmetals is shorter than (of N2: 0.77)."""
CRUSHED_HYDROGEN = 0.95
"""The same for a bond of hydrogen to B, C, N, O or F (of 361 relaxed ones, the shortest: 0.985)."""
_FLUORINE = 9
_OVERLAPPING = 0.64
"""The same for any two atoms (of 2,137 relaxed crystals, the nearest two have 0.66)."""
_OVERLAPPING_IONS = 0.62
"""The same for two alkali ions, which a crystal with this share of anions has."""
_INSIDE = 0.5
"""The same for two atoms that no move is trusted to part."""
_NEAR = 0.85
"""The same for metal atoms that are not to be pressed further than the network wants them."""
_AGAINST_NETWORK = 0.86
"""Times the length that the network predicts of such a pair, from which a solve made less of it."""
_MOLECULAR = np.isin(np.arange(MAX_ATOMIC_NUMBER + 1), [1, 6, 7, 8, 9])
"""Elements of molecules whose bonds have one length: H, C, N, O and F."""
_STRETCHED, _UNSTRETCHED, _PARTED = 1.10, 1.06, 1.5
"""Times the radii: of a bond that is too long, of one that is not, of one that is none."""
SHORTENED = 0.97
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


def is_to_hydrogen(
    numbers: Int[np.ndarray, " atoms"], pairs: Int[np.ndarray, "2 pairs"]
) -> Bool[np.ndarray, " pairs"]:
    """Which pairs are of hydrogen and B, C, N, O or F."""
    i, j = numbers[pairs]
    is_to: np.ndarray = ((i == 1) != (j == 1)) & (np.maximum(i, j) <= _FLUORINE)
    return is_to


def stretched_bond(
    numbers: Int[np.ndarray, " atoms"],
    edge_index: Int[np.ndarray, "2 bonds"],
    before: Float[np.ndarray, " bonds"],
    after: Float[np.ndarray, " bonds"],
) -> str | None:
    """Say which bond of a molecule comes out longer than such bonds are, or None.

    What is parted altogether may well be right, and so are two alike that shared a site. Most of
    these predictions are still nearer to the target than their inputs are.

    Args:
        numbers: Atomic numbers.
        edge_index: The two atoms of each pair.
        before: Lengths in the input, Å.
        after: Lengths in the predicted structure, Å.
    """
    i, j = edge_index
    usual = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
    is_long = (after > _STRETCHED * usual) & (after < _PARTED * usual)
    is_long &= (before < _UNSTRETCHED * usual) & (after > _UNSTRETCHED * before)
    is_long &= _MOLECULAR[numbers[i]] & _MOLECULAR[numbers[j]] & (numbers[i] != numbers[j])
    if not is_long.any():
        return None
    worst = np.flatnonzero(is_long)[(after[is_long] / usual[is_long]).argmax()]
    return (
        f"the bond of atoms {i[worst]} and {j[worst]} comes out at {after[worst]:.2f} Å, from "
        f"{before[worst]:.2f} Å: too long for one of a molecule"
    )


def crushed_bond(
    numbers: Int[np.ndarray, " atoms"],
    edge_index: Int[np.ndarray, "2 bonds"],
    before: Float[np.ndarray, " bonds"],
    predicted: Float[np.ndarray, " bonds"],
    after: Float[np.ndarray, " bonds"],
) -> str | None:
    """Why a prediction that presses atoms together is not to be trusted, or None.

    A molecule that lies the wrong way round on a surface is pushed together rather than turned,
    and two metal atoms that share a site are pushed into each other, which the lengths around them
    do to them against their own.

    Args:
        numbers: Atomic numbers.
        edge_index: The two atoms of each pair.
        before: Lengths in the input, Å.
        predicted: Lengths that the network wants, Å.
        after: Lengths in the predicted structure, Å.
    """
    radii = covalent_radii[numbers]
    i, j = edge_index
    usual = radii[i] + radii[j]
    near = np.flatnonzero(after < CRUSHED_HYDROGEN * usual)
    if not len(near):
        return None
    i, j, usual, old, new = i[near], j[near], usual[near], before[near], after[near]
    is_shorter, ends = new < SHORTENED * old, _IS_NONMETAL[numbers[[i, j]]]
    has_hydrogen = is_to_hydrogen(numbers, np.array([i, j]))
    least = np.where(has_hydrogen, CRUSHED_HYDROGEN, _CRUSHED) * usual
    is_bond = has_hydrogen | (old < BONDED * usual)
    is_crushed = ends.all(axis=0) & is_bond & (new < least) & is_shorter
    is_ionic = bool(_IS_ANION[numbers].mean() >= _SHARE_OF_ANIONS)
    are_ions = _IS_ALKALI[numbers[[i, j]]].all(axis=0) & is_ionic
    is_pressed = ~ends.any(axis=0) & ~are_ions & (new < _NEAR * usual) & is_shorter
    is_pressed &= new < _AGAINST_NETWORK * predicted[near]
    overlapping = np.where(are_ions, _OVERLAPPING_IONS, _OVERLAPPING) * usual
    is_inside = (new < overlapping) & (is_shorter | (old < _INSIDE * usual))
    wrong = np.flatnonzero(is_crushed | is_pressed | is_inside)
    if not len(wrong):
        return None
    worst = wrong[(new[wrong] / usual[wrong]).argmin()]
    pair = f"atoms {i[worst]} and {j[worst]}"
    if is_crushed[worst]:
        return (
            f"input kept: the bond of {pair} would be crushed from {old[worst]:.2f} to "
            f"{new[worst]:.2f} Å; is a molecule too near, or upside down?"
        )
    return (
        f"input kept: {pair}, now {old[worst]:.2f} Å apart, would be {new[worst]:.2f} Å apart, "
        "which is too near; is one of them where the other belongs?"
    )
