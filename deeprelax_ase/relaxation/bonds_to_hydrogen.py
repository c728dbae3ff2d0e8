"""Give bonds of hydrogen back the length that the network wants, where the solve crushed them.

Many lengths around a molecule push it as a whole, and the solve pays for that with the one bond
that gives least: a hydroxyl group that has to leave a surface has its hydrogen pressed into its
oxygen. The hydrogen is free to go along; an eighth of all adsorbates had been refused for that.
"""

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.sanity_checks import CRUSHED_HYDROGEN, SHORTENED, is_to_hydrogen
from deeprelax_ase.structures.crystal import Crystal, relaxed_lengths
from deeprelax_ase.structures.elements import covalent_radii


def with_bonds_to_hydrogen(
    crystal: Crystal,
    prediction: CrystalPrediction,
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
    free: Bool[np.ndarray, " atoms"],
) -> Float[np.ndarray, "atoms 3"]:
    """Lengthen bonds of hydrogen to B, C, N, O or F that displacements (Å) crush.

    Each hydrogen is moved along the shortest such bond it has, to the length that is predicted, or
    to the sum of the radii where that is more. It stays where others are in the way: of what is
    pressed onto a surface hydrogen first, the surface.

    Args:
        crystal: The input.
        prediction: What was predicted, of the input or of a structure on the way.
        displacements: Since the input, in the frame of its cell, Å.
        deformation: Since the input.
        free: Which atoms may move along all directions.
    """
    numbers = crystal.numbers
    known, shifts = prediction.edge_index, prediction.offsets
    to_hydrogen = np.flatnonzero(is_to_hydrogen(numbers, known))
    of_these = known[:, to_hydrogen], shifts[to_hydrogen]
    lengths = relaxed_lengths(crystal, *of_these, displacements, deformation)
    radii = covalent_radii[numbers]
    if not (lengths < CRUSHED_HYDROGEN * radii[of_these[0]].sum(axis=0)).any():
        return displacements

    pairs = np.hstack([known, known[::-1]])
    is_of = (numbers[pairs[1]] == 1) & free[pairs[1]]
    first, hydrogen = pairs = pairs[:, is_of]
    offsets = np.vstack([shifts, -shifts])[is_of]
    wanted = np.tile(prediction.distances, 2)[is_of]
    usual = radii[first] + radii[hydrogen]
    unmoved = np.zeros_like(displacements), np.eye(3)
    before = relaxed_lengths(crystal, pairs, offsets, *unmoved)
    now = relaxed_lengths(crystal, pairs, offsets, displacements, deformation)

    def too_near(lengths: Float[np.ndarray, " pairs"]) -> Bool[np.ndarray, " pairs"]:
        is_near: np.ndarray = lengths < CRUSHED_HYDROGEN * usual
        return is_near & (lengths < SHORTENED * before)

    is_crushed = is_to_hydrogen(numbers, pairs) & too_near(now) & (now > 0)
    moved, places = displacements.copy(), crystal.positions + displacements
    put_back: set[int] = set()
    for bond in sorted(np.flatnonzero(is_crushed), key=lambda one: now[one] / usual[one]):
        atom = int(hydrogen[bond])
        if atom in put_back:
            continue
        put_back.add(atom)
        vector = places[atom] + offsets[bond] @ crystal.cell - places[first[bond]]
        moved[atom] += (max(wanted[bond], usual[bond]) / now[bond] - 1) * vector
    after = relaxed_lengths(crystal, pairs, offsets, moved, deformation)
    in_the_way = np.isin(hydrogen, list(put_back)) & too_near(after) & (after < now)
    stays = hydrogen[in_the_way]
    moved[stays] = displacements[stays]
    return moved
