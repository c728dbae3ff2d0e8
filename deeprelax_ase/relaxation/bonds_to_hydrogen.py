"""Give bonds of hydrogen back the length that the network wants, where the solve crushed them.

Many lengths around a molecule push it as a whole, and the solve pays for that with the one bond
that gives least: a hydroxyl group that has to leave a surface has its hydrogen pressed into its
oxygen. The hydrogen is free to go along; 57 of 500 adsorbates had been refused for that.
"""

import numpy as np
from jaxtyping import Float

from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.sanity_checks import CRUSHED_HYDROGEN, SHORTENED, is_to_hydrogen
from deeprelax_ase.structures.crystal import Crystal, relaxed_lengths
from deeprelax_ase.structures.elements import BONDED, covalent_radii

_SHORTEST, _LONGEST = 1.0, 1.06
"""Times the sum of the covalent radii, of relaxed bonds of hydrogen to B, C, N, O and F."""


def with_bonds_to_hydrogen(
    crystal: Crystal,
    prediction: CrystalPrediction,
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "atoms 3"]:
    """Displacements (Å) that leave no bond of hydrogen to B, C, N, O or F crushed.

    Each hydrogen is moved along the shortest such bond it has.

    Args:
        crystal: The input.
        prediction: What was predicted, of the input or of a structure on the way.
        displacements: Since the input, in the frame of its cell, Å.
        deformation: Since the input.
    """
    numbers = crystal.numbers
    if not (numbers == 1).any():
        return displacements
    pairs = np.hstack([prediction.edge_index, prediction.edge_index[::-1]])
    first, hydrogen = pairs
    is_asked = is_to_hydrogen(numbers, pairs) & (numbers[hydrogen] == 1)
    offsets = np.vstack([prediction.offsets, -prediction.offsets])
    now = relaxed_lengths(crystal, pairs, offsets, displacements, deformation)
    usual = covalent_radii[numbers[first]] + covalent_radii[numbers[hydrogen]]
    before = np.tile(prediction.lengths, 2)
    is_crushed = is_asked & (before < BONDED * usual)
    is_crushed &= (now < CRUSHED_HYDROGEN * usual) & (now < SHORTENED * before)
    wanted = np.clip(np.tile(prediction.distances, 2), _SHORTEST * usual, _LONGEST * usual)
    moved, back = displacements.copy(), np.linalg.inv(deformation)
    done: set[int] = set()
    for bond in sorted(np.flatnonzero(is_crushed), key=lambda one: now[one] / usual[one]):
        atom = int(hydrogen[bond])
        if atom in done or not now[bond]:
            continue
        done.add(atom)
        places = crystal.positions + displacements
        vector = places[atom] + offsets[bond] @ crystal.cell - places[first[bond]]
        moved[atom] += (wanted[bond] / now[bond] - 1) * vector @ deformation @ back
    return moved
