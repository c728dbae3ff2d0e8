"""Boxes around what does not repeat along all axes: sheets, wires and molecules."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from deeprelax_ase.structures.crystal import Crystal, complete_cell

_BOX, _WIDE = 15.0, 6.0
"""Å of vacuum that is made for formats that know none, and that is enough."""


def in_box(crystal: Crystal, vacuum: float) -> Crystal:
    """The crystal with the rows of its non-periodic axes normal to the others, and so much longer.

    Args:
        crystal: Of any periodicity.
        vacuum: Between its images, Å.
    """
    if crystal.pbc.all():
        return crystal
    cell = np.where(crystal.pbc[:, None], crystal.cell, 0.0)
    for axis in np.flatnonzero(~crystal.pbc):
        filled = cell[np.any(cell != 0, axis=1)]
        normal = np.linalg.svd(filled)[2][-1] if len(filled) else np.eye(3)[axis]
        extent = float(np.ptp(crystal.positions @ normal))
        cell[axis] = normal * (extent + vacuum)
    return replace(crystal, cell=cell)


def cell_with_box(crystal: Crystal) -> Float[np.ndarray, "3 3"]:
    """The cell, with a box of 15 Å of vacuum along axes that do not repeat.

    A vector there stays if it is long enough for the images to be apart.
    """
    if crystal.pbc.all():
        return crystal.cell
    cell = complete_cell(crystal.cell, crystal.pbc)
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    is_wide = (1.0 - np.ptp(crystal.positions @ inverse, axis=0)) * heights > _WIDE
    if is_wide[~crystal.pbc].all():
        return cell
    return in_box(crystal, _BOX).cell
