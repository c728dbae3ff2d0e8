"""Vacuum is found where it is, and given or chosen axes lie along it."""

import numpy as np
import pytest

from deeprelax_ase.structures.vacuum import SHEET_GAP, VACUUM_GAP, find_vacuum, given_axes

ALL = np.array([True, True, True])


def axes_of(positions, cell, pbc=ALL, numbers=None):
    positions, cell = np.array(positions, dtype=float), np.array(cell, dtype=float)
    if np.ndim(cell) == 1:
        cell = np.diag(cell)
    numbers = np.full(len(positions), 6) if numbers is None else np.array(numbers)
    return find_vacuum(positions, cell, np.array(pbc), numbers)


def together(axes, positions, cell):
    """Positions after the shifts, in the axes that were chosen: nothing is cut."""
    return np.array(positions) + axes.shifts @ (axes.basis @ cell)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("gap", "is_vacuum"), [(7.9, False), (8.1, True)])
def test_a_gap_along_an_axis(axis, gap, is_vacuum):
    lengths = np.full(3, 3.0)
    lengths[axis] = gap + 2.0
    places = np.zeros((3, 3))
    places[:, axis] = [0.5, 2.5, 1.4]
    axes = axes_of(places, lengths)
    expected = np.arange(3) == axis
    np.testing.assert_array_equal(axes.is_vacuum, expected & is_vacuum)
    np.testing.assert_array_equal(axes.basis, np.eye(3))
    assert len(axes.normals) == 0
    if is_vacuum:
        np.testing.assert_allclose(axes.gaps, np.where(expected, gap, 3.0))
        assert axes.name(axis) == f"axis {'abc'[axis]}"
        assert len(axes.rotations) > 0
    else:
        np.testing.assert_array_equal(axes.gaps, 0)
        assert len(axes.rotations) == 0


def test_vacuum_needs_an_axis_that_repeats():
    axes = axes_of([[0, 0, 0]], [3, 3, 30], pbc=[True, True, False])
    assert not axes.is_vacuum.any()


def test_of_a_leaning_cell_the_distance_of_planes_counts():
    """The vector is 12 Å long, and its planes are 6 Å apart."""
    leaning = [[3, 0, 0], [0, 3, 0], [np.sqrt(144 - 36), 0, 6]]
    assert not axes_of([[0, 0, 0]], leaning).is_vacuum.any()
    leaning[2][2] = 9
    axes = axes_of([[0, 0, 0]], leaning)
    assert axes.is_vacuum.tolist() == [False, False, True]
    assert axes.gaps[2] == pytest.approx(9.0)


@pytest.mark.parametrize("height", [0.0, 0.5, 14.5, 16.9])
def test_a_sheet_that_is_cut_is_put_together(height):
    """Wherever it lies in the cell, and whichever atoms are on which side of the boundary."""
    cell = np.diag([3.0, 3.0, 17.0])
    places = np.array([[0, 0, height + k] for k in (-2, 0, 1, 2)], dtype=float)
    wrapped = places - 17.0 * np.floor(places / 17.0) @ np.diag([0, 0, 1.0])
    axes = axes_of(wrapped, cell)
    heights = together(axes, wrapped, cell)[:, 2]
    np.testing.assert_allclose(heights - heights[0], [0, 2, 3, 4])
    assert axes.gaps[2] == pytest.approx(13.0)
    assert not axes.shifts[:, :2].any()


CUTS = [
    [[1, 0, 1], [0, 1, 0], [0, 0, 1]],
    [[0, 0, 1], [1, 0, 1], [0, 1, 0]],
    [[1, 2, 1], [0, 1, 1], [1, 2, 2]],
    [[1, 0, 2], [0, 1, 0], [1, 0, 3]],
]


@pytest.mark.parametrize(("gap", "is_vacuum"), [(13.9, False), (14.1, True)])
def test_along_other_directions_a_gap_has_to_be_that_of_a_sheet(gap, is_vacuum):
    """Atoms along a diagonal of a square leave room beside it."""
    assert VACUUM_GAP < 13.9 < SHEET_GAP < 14.1
    cell = np.diag([gap * np.sqrt(2), gap * np.sqrt(2), 3.0])
    along = np.linspace(0, 1, 12, endpoint=False)
    places = np.column_stack([along, -along, np.zeros(12)]) @ cell
    assert axes_of(places, cell).is_vacuum.any() == is_vacuum


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("gap", "is_vacuum"), [(7.9, False), (8.1, True), (14.1, True)])
def test_axes_of_the_lattice_count_whichever_vectors_span_it(cut, gap, is_vacuum):
    assert VACUUM_GAP == 8.0
    cell = np.array(cut) @ np.diag([3.0, 3.5, gap + 2.0])
    inside = np.array([[0.0, 0, 0], [1.5, 1.5, 1.0], [0, 1.5, 2.0]])
    places = inside + np.array([[0, 0, 0], [2, 0, -1], [0, 1, 3]]) @ cell  # in other cells
    axes = axes_of(places, cell)
    assert axes.is_vacuum.sum() == is_vacuum
    if not is_vacuum:
        np.testing.assert_array_equal(axes.basis, np.eye(3))
        return
    (across,) = np.flatnonzero(axes.is_vacuum).tolist()
    chosen = axes.basis @ cell
    assert np.linalg.det(axes.basis) == pytest.approx(1)
    np.testing.assert_allclose(np.delete(chosen, across, axis=0)[:, 2], 0, atol=1e-9)
    assert axes.gaps[across] == pytest.approx(gap)
    # No vector of the sheet makes the one across it shorter: it stands as upright as can be.
    assert np.abs(chosen[across] / [3.0, 3.5, 1.0])[:2].max() <= 0.5
    heights = together(axes, places, cell)[:, 2]
    np.testing.assert_allclose(heights - heights[0], [0, 1, 2], atol=1e-9)


def test_a_direction_is_named_by_its_planes():
    cell = np.array(CUTS[0]) @ np.diag([3.0, 3.5, 20.0])
    axes = axes_of([[0, 0, 0]], cell)
    (across,) = np.flatnonzero(axes.is_vacuum).tolist()
    assert axes.name(across) in (
        "the direction normal to (1 0 1)",
        "the direction normal to (-1 0 -1)",
    )


def test_a_wire_keeps_the_axes_it_came_with():
    """Both of its vacuum axes are given, so that a third direction of vacuum changes nothing."""
    cell = np.array([[20.0, 0, 1.0], [11.0, 19.0, 0.0], [0, 0, 2.6]])
    axes = axes_of([[0, 0, 0], [0.5, 0, 1.3]], cell)
    np.testing.assert_array_equal(axes.basis, np.eye(3))
    assert axes.is_vacuum.tolist() == [True, True, False]
    assert len(axes.normals) == 0


def test_equivalent_directions_are_treated_alike():
    """Molecules on a body-centred lattice: of its directions no three are all of them."""
    cell = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) * 10.0
    axes = axes_of([[0, 0, 0]], cell)
    assert axes.is_vacuum.all()
    turned = axes.rotations @ cell
    np.testing.assert_allclose(turned @ turned.swapaxes(1, 2), np.tile(cell @ cell.T, (48, 1, 1)))


@pytest.mark.parametrize(
    ("spaces", "is_along_axes"), [((5.9, 6.6), False), ((6.6, 5.9), False), ((6.1, 6.6), True)]
)
def test_wires_that_are_seen_across_all_axes_have_normals(spaces, is_along_axes):
    """Vacuum along both diagonals, and along the axes an empty slab of the width that counts."""
    reach = 4.4
    x, y = (2 * (2 * reach + space) for space in spaces)
    ring = np.array([[reach, 0, 0], [-reach, 0, 0], [0, reach, 0], [0, -reach, 0]])
    places = np.vstack([ring, ring + np.array([x / 2, y / 2, 0])])
    axes = axes_of(places, [x, y, 2.6])
    if is_along_axes:
        assert len(axes.normals) == 0
        assert axes.is_vacuum.sum() == 2
        return
    assert not axes.is_vacuum.any()
    expected = np.array([y, x, 0]) / np.hypot(x, y)
    np.testing.assert_allclose(np.abs(axes.normals), [expected] * 2, atol=1e-9)
    assert axes.normals[0, 0] * axes.normals[0, 1] == pytest.approx(
        -axes.normals[1, 0] * axes.normals[1, 1]
    )


def test_a_crystal_has_its_given_axes():
    axes = given_axes(2)
    np.testing.assert_array_equal(axes.basis, np.eye(3))
    assert not axes.is_vacuum.any()
    assert not axes.gaps.any()
    assert axes.shifts.shape == (2, 3)
    assert not axes.shifts.any()
    assert len(axes.normals) == len(axes.rotations) == 0


@pytest.mark.parametrize("length", [40.0, 950.0])
def test_a_molecule_in_a_large_box_has_vacuum_along_its_axes(length):
    positions = np.array([[0.0, 0, 0], [0, 0, 1.15]])
    axes = find_vacuum(positions, np.eye(3) * length, np.ones(3, dtype=bool), np.array([6, 8]))
    assert axes.is_vacuum.all()
    assert (axes.basis == np.eye(3)).all()
    np.testing.assert_allclose(axes.gaps, [length, length, length - 1.15])
