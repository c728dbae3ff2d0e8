"""Whether two crystals are the same structure, by pymatgen's StructureMatcher."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.structures.crystal import Crystal


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
    own = replace(
        pair,
        displacements=np.zeros_like(pair.displacements) if displacements is None else displacements,
        deformation=np.eye(3) if deformation is None else deformation,
    )
    return bool(StructureMatcher().fit(_structure(own.relaxed), _structure(pair.relaxed)))


def _structure(crystal: Crystal) -> Structure:
    return Structure(
        crystal.cell, crystal.numbers.tolist(), crystal.positions, coords_are_cartesian=True
    )
