"""Detect vacuum and choose cell vectors so that it lies along one of them.

A sheet in a periodic box is a sheet whichever vectors span the box. So gaps are looked for between
all lattice planes that are far enough apart, and not along the given axes alone. But crystals of
large atoms have gaps too: along other directions than the axes, given or of the Niggli cell, only
those count that no crystal has. Directions
that the symmetry of the crystal makes equivalent are treated alike.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.symmetry import find_space_group, reduced_cell

VACUUM_GAP = 8.0
"""A gap in the atoms as wide as this (Å) along a periodic axis is vacuum."""
SHEET_GAP = 14.0
"""A gap as wide as this (Å) is that of a sheet by itself: layered crystals have narrower ones.
Along other directions than the axes it is vacuum."""
SAME_GAP = 1e-3
"""Gaps may be so much (Å) narrower: people build them of round numbers, and cells are rounded."""
VACUUMS = ("auto", "none")
"""Ways to treat vacuum: find it and never strain it, or take none of it for vacuum."""
_LEAST_SLAB = 6.0
"""Nothing is seen across an empty slab as wide as this (Å): the cutoff of the networks."""
_SHORTER = 1e-6


class Axes(NamedTuple):
    """Axes of which some are vacuum and the others have none.

    Attributes:
        basis: Cell vectors, in those given: `basis @ cell`; of determinant 1.
        is_vacuum: Which of them are vacuum.
        gaps: Widest empty slab along each, Å; zero where that was not looked for.
        shifts: Cells, along each axis of vacuum, that put all atoms to one side of the slab.
        normals: Directions across vacuum that cannot all lie along axes; none otherwise.
        rotations: What the rotations of the crystal make of the given cell vectors, in these
            vectors; none without vacuum.
    """

    basis: Int[np.ndarray, "3 3"]
    is_vacuum: Bool[np.ndarray, "3"]
    gaps: Float[np.ndarray, "3"]
    shifts: Int[np.ndarray, "atoms 3"]
    normals: Float[np.ndarray, "normals 3"]
    rotations: Float[np.ndarray, "rotations 3 3"]

    def name(self, axis: int) -> str:
        """What a user knows an axis by: its letter, or the planes of the cell it leads through."""
        indices = np.rint(np.linalg.inv(self.basis)).astype(int)[:, axis]
        letters = np.flatnonzero(indices)
        if len(letters) == 1:
            return f"axis {'abc'[letters[0]]}"
        return f"the direction normal to ({' '.join(map(str, indices))})"


def check_vacuum(vacuum: str) -> None:
    """Refuse what is no way to treat vacuum."""
    if vacuum not in VACUUMS:
        msg = f"unknown vacuum {vacuum!r}: choose from {', '.join(VACUUMS)}"
        raise ValueError(msg)


def given_axes(num_atoms: int) -> Axes:
    """The axes of a cell as they are, none of them vacuum."""
    none = np.zeros(3)
    shifts = np.zeros((num_atoms, 3), dtype=int)
    return Axes(np.eye(3, dtype=int), none > 0, none, shifts, np.zeros((0, 3)), np.zeros((0, 3, 3)))


def find_vacuum(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    numbers: Int[np.ndarray, " atoms"],
) -> Axes:
    """Choose the given axes, or others of the same lattice where vacuum does not lie along those.

    Args:
        positions: Å.
        cell: Row vectors, Å.
        pbc: Which of them repeat.
        numbers: Atomic numbers, for the symmetry of the crystal.
    """
    # Lattice planes are no farther apart than a vector between them is long.
    reach = ((np.linalg.norm(cell, axis=1) + SAME_GAP) / VACUUM_GAP).astype(int) * pbc
    if not reach.any():
        return given_axes(len(positions))
    planes = _planes_beside_vacuum(positions, cell, reach, is_lattice=bool(pbc.all()))
    if not len(planes):
        return given_axes(len(positions))
    rotations = _lattice_rotations(Crystal(numbers, positions, cell, pbc))
    axes = _choose_axes(_with_equivalents(planes, rotations), positions, cell, pbc)
    return axes._replace(rotations=rotations)


def _choose_axes(
    planes: Int[np.ndarray, "planes 3"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
) -> Axes:
    """Axes such that as many as can be lie in all of the planes beside vacuum."""
    count = _are_axes(planes).sum()
    if len(planes) == count or np.linalg.matrix_rank(planes) == count:
        return _axes(np.eye(3, dtype=int), planes, positions, cell)
    axes = _axes(_along(planes, cell, pbc), planes, positions, cell)
    if axes.gaps[axes.is_vacuum].min() < _LEAST_SLAB:
        # Wires or molecules that stand between each other's planes: no axes have them all.
        normals = planes @ np.linalg.inv(cell).T
        units = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        return given_axes(len(positions))._replace(normals=units)
    return axes


def _lattice_rotations(crystal: Crystal) -> Float[np.ndarray, "rotations 3 3"]:
    """What the rotations of a crystal make of its cell vectors, in these vectors."""
    group = find_space_group(crystal)
    if group is None:
        return np.zeros((0, 3, 3))
    turned = crystal.cell @ group.cartesian_rotations().swapaxes(1, 2)
    return np.asarray(np.rint(turned @ np.linalg.inv(crystal.cell)))


def _with_equivalents(
    planes: Int[np.ndarray, "planes 3"], rotations: Float[np.ndarray, "rotations 3 3"]
) -> Int[np.ndarray, "all_planes 3"]:
    """Planes, and those that the symmetry of the crystal makes equivalent to them."""
    known = {tuple(plane) for plane in planes.tolist()}
    found = list(planes)
    for rotation in rotations:
        for image in np.rint(planes @ rotation.T).astype(int):
            if tuple(image) not in known and tuple(-image) not in known:
                known.add(tuple(image.tolist()))
                found.append(image)
    return np.array(found)


def _axes(
    basis: Int[np.ndarray, "3 3"],
    planes: Int[np.ndarray, "planes 3"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
) -> Axes:
    """Axes of which those that do not lie in the planes are vacuum."""
    gaps, shifts = _widest_gaps(positions, basis @ cell)
    is_vacuum = (basis @ planes.T != 0).any(axis=1)
    chosen = given_axes(len(positions))
    shifts = np.where(is_vacuum, shifts, 0)
    return chosen._replace(basis=basis, is_vacuum=is_vacuum, gaps=gaps, shifts=shifts)


def _planes_beside_vacuum(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    reach: Int[np.ndarray, "3"],
    *,
    is_lattice: bool,
) -> Int[np.ndarray, "planes 3"]:
    """Miller indices of the lattice planes between which there is vacuum, the farthest first.

    The narrower gap is enough along the axes that are given and along those of the Niggli cell,
    which are the same whichever vectors span the lattice.

    Args:
        positions: Å.
        cell: Å.
        reach: Largest index along each axis.
        is_lattice: Whether it repeats along all axes.
    """
    inverse = np.linalg.inv(cell)
    own = np.eye(3, dtype=int)
    if reach.all() and _widest_between(own, positions, inverse).min() > VACUUM_GAP - SAME_GAP:
        return own  # a molecule in a box, beside which there are more planes than can be looked at
    ranges = [np.arange(-largest, largest + 1) for largest in reach]
    indices = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    indices = indices[len(indices) // 2 + 1 :]  # of a plane and its opposite, one
    indices = indices[np.gcd.reduce(indices, axis=1) == 1]
    spacings = 1.0 / np.linalg.norm(indices @ inverse.T, axis=1)
    order = np.argsort(-spacings, kind="stable")
    order = order[spacings[order] > VACUUM_GAP - SAME_GAP]
    planes = indices[order]
    along_axis = _are_axes(planes)
    if is_lattice and not along_axis.all():
        along_axis |= _are_axes(planes @ np.rint(reduced_cell(cell) @ inverse).T)
    least = np.where(along_axis, VACUUM_GAP, SHEET_GAP) - SAME_GAP
    return planes[_widest_between(planes, positions, inverse) > least]


def _widest_between(
    planes: Int[np.ndarray, "planes 3"],
    positions: Float[np.ndarray, "atoms 3"],
    inverse: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, " planes"]:
    """Widest empty slab (Å) between lattice planes; `inverse` is that of the cell."""
    heights = np.sort((positions @ inverse @ planes.T) % 1.0, axis=0)
    gaps = np.diff(heights, axis=0, append=heights[:1] + 1.0).max(axis=0)
    return np.asarray(gaps / np.linalg.norm(planes @ inverse.T, axis=1))


def _are_axes(
    planes: Float[np.ndarray, "planes 3"] | Int[np.ndarray, "planes 3"],
) -> Bool[np.ndarray, " planes"]:
    """Which planes are those that one of the given axes leads through."""
    return np.abs(planes).sum(axis=1) == 1


def _along(
    planes: Int[np.ndarray, "planes 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
) -> Int[np.ndarray, "3 3"]:
    """Cell vectors of which as many as can be lie in all of the planes; the others stand upright.

    Vectors along which nothing repeats stay what they are, and out of the others.

    Euclid's algorithm on the rows, which adds one to another until their heights above the first
    plane are zero but for one of them, and so on with the others and the next planes.
    """
    basis = np.eye(3, dtype=int)
    upright: list[int] = []
    flat: list[int] = np.flatnonzero(pbc).tolist()
    for plane in planes:
        while above := [row for row in flat if basis[row] @ plane]:
            lowest, *others = sorted(above, key=lambda row: abs(basis[row] @ plane))
            for row in others:
                basis[row] -= (basis[row] @ plane) // (basis[lowest] @ plane) * basis[lowest]
            if not others:
                flat.remove(lowest)
                upright.append(lowest)
    while _straighten(basis, flat, upright, cell):
        pass
    return basis


def _straighten(
    basis: Int[np.ndarray, "3 3"],
    flat: list[int],
    upright: list[int],
    cell: Float[np.ndarray, "3 3"],
) -> bool:
    """Make one of the upright vectors shorter by the others, in place, if that can be."""
    for row in upright:
        others = flat + [other for other in upright if other != row]
        if not others:
            return False
        vectors = basis @ cell
        leaning = np.rint(vectors[row] @ np.linalg.pinv(vectors[others])).astype(int)
        straight = basis[row] - leaning @ basis[others]
        if np.linalg.norm(straight @ cell) < np.linalg.norm(vectors[row]) - _SHORTER:
            basis[row] = straight
            return True
    return False


def _widest_gaps(
    positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "3"], Int[np.ndarray, "atoms 3"]]:
    """Widest empty slab (Å) along each axis, and shifts that put all atoms to one side of it."""
    inverse = np.linalg.inv(cell)
    scaled = positions @ inverse
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    wrapped = scaled - np.floor(scaled)
    order = np.sort(wrapped, axis=0)
    gaps = np.diff(order, axis=0, append=order[:1] + 1.0)
    widest = gaps.argmax(axis=0)
    # The first atom above the gap starts the sheet.
    start = order[(widest + 1) % len(order), np.arange(3)]
    target = wrapped + (wrapped < start)
    return gaps.max(axis=0) * heights, np.rint(target - scaled).astype(int)
