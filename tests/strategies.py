"""Random crystals, for hypothesis."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deeprelax_ase.structures.crystal import Crystal, nearest_pair

_coordinate = st.floats(0.0, 1.0, exclude_max=True, width=32)


@st.composite
def crystals(draw, max_atoms=5, periodic=None):
    """Skewed cells of any periodicity, with atoms at least 0.9 Å apart."""
    lengths = [draw(st.floats(2.5, 7.0)) for _ in range(3)]
    skew = [draw(st.floats(-0.5, 0.5)) for _ in range(3)]
    cell = np.diag(lengths)
    cell[1, 0], cell[2, 0], cell[2, 1] = np.array(skew) * lengths[0]
    pbc = np.array([draw(st.booleans()) for _ in range(3)] if periodic is None else periodic)
    count = draw(st.integers(1, max_atoms))
    numbers = np.array([draw(st.sampled_from([8, 12, 22, 38])) for _ in range(count)])
    scaled = np.array([[draw(_coordinate) for _ in range(3)] for _ in range(count)])
    crystal = Crystal(numbers, scaled @ cell, cell, pbc)
    assume(nearest_pair(crystal, 0.9) is None)
    return crystal


@st.composite
def rotations(draw):
    """Proper and improper rotations, to be applied from the right."""
    matrix = Rotation.random(random_state=draw(st.integers(0, 2**16))).as_matrix()
    return -matrix if draw(st.booleans()) else matrix
