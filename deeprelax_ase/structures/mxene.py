"""Tell MXenes, which have weights of their own, from all else that is made of the same elements."""

import numpy as np
from jaxtyping import Bool, Int

from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.elements import BONDED, covalent_radii
from deeprelax_ase.structures.joined import joined_parts

_METALS = (21, 22, 23, 24, 39, 40, 41, 42, 57, 72, 73, 74)
_CORES = (6, 7)
_HYDROGEN = 1
_HELD = 1.5
"""Times that sum which neighbours in one piece are apart at most, where it is not relaxed."""
_METALS_AROUND = 5
"""Of the six around carbon or nitrogen in an MXene, that many have to be there."""


def is_mxene(crystal: Crystal, cutoff: float) -> bool:
    """Whether a sheet is an MXene, terminated or not, with nothing but atoms bound to it.

    It has carbon or nitrogen in octahedra or prisms of early transition metals, fewer of them than
    of these metals; no bond between C, N and O, and no two H at an atom that is no metal: so no
    graphene, dopant, slab of a carbide, or molecule or sheet on top.

    Args:
        crystal: A sheet.
        cutoff: Up to which pairs of atoms are searched, Å.
    """
    numbers = crystal.numbers
    is_metal, is_core = np.isin(numbers, _METALS), np.isin(numbers, _CORES)
    if not is_metal.any() or not is_core.any():
        return False
    pairs = crystal.pairs_within(cutoff)
    radii = covalent_radii[numbers]
    share = pairs.lengths / (radii[pairs.first] + radii[pairs.second])
    held = share < _HELD
    if _holds_another(numbers, is_metal, pairs.first[held], pairs.second[held]):
        return False
    first, second = pairs.first[share < BONDED], pairs.second[share < BONDED]
    is_light = np.isin(numbers, (*_CORES, 8))
    if (is_light[first] & is_light[second]).any():
        return False
    if _neighbours(first, second, numbers == _HYDROGEN)[~is_metal].max() > 1:
        return False
    inside = is_core & (_neighbours(first, second, is_metal) >= _METALS_AROUND)
    return bool(inside.any() and is_metal.sum() > inside.sum())


def _holds_another(
    numbers: Int[np.ndarray, " atoms"],
    is_metal: Bool[np.ndarray, " atoms"],
    first: Int[np.ndarray, " bonds"],
    second: Int[np.ndarray, " bonds"],
) -> bool:
    """Whether a part without metal is more than an atom, OH or NH that is still too far away."""
    part_of = joined_parts(first, second, len(numbers))
    for part in set(part_of.tolist()) - set(part_of[is_metal].tolist()):
        if sorted(numbers[part_of == part].tolist())[1:] not in ([], [7], [8]):
            return True
    return False


def _neighbours(
    first: Int[np.ndarray, " bonds"],
    second: Int[np.ndarray, " bonds"],
    counted: Bool[np.ndarray, " atoms"],
) -> Int[np.ndarray, " atoms"]:
    """How many bonds each atom has to those that count."""
    ends = np.concatenate((first[counted[second]], second[counted[first]]))
    return np.bincount(ends, minlength=len(counted))
