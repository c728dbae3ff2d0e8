"""Whether two crystals are the same structure, by pymatgen's StructureMatcher."""

import numpy as np
from jaxtyping import Float
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from deeprelax_ase.data.augment import Pair


def matches(
    pair: Pair,
    displacements: Float[np.ndarray, "atoms 3"] | None = None,
    deformation: Float[np.ndarray, "3 3"] | None = None,
) -> bool:
    """Whether a relaxed structure matches the target of its pair, at the matcher's defaults.

    Args:
        pair: The input and what it should relax to.
        displacements: Of the relaxed structure, Å; none: the input itself.
        deformation: Of the relaxed structure; none: the input itself.
    """
    still = np.zeros_like(pair.displacements) if displacements is None else displacements
    own = _structure(pair, still, np.eye(3) if deformation is None else deformation)
    target = _structure(pair, pair.displacements, pair.deformation)
    return bool(StructureMatcher().fit(own, target))


def _structure(
    pair: Pair,
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> Structure:
    crystal = pair.crystal
    return Structure(
        crystal.cell @ deformation,
        crystal.numbers.tolist(),
        (crystal.positions + displacements) @ deformation,
        coords_are_cartesian=True,
    )
