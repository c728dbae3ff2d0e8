"""What is no crystal is refused in a sentence, and what is one is not."""

import numpy as np
import pytest

from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.validation import StructureError, check_distances, check_input

CUBE = np.diag([3.0, 3.0, 3.0])
PLACES = np.array([[0.0, 0.0, 0.0], [1.5, 1.5, 1.5]])


def check(numbers=(12, 8), positions=PLACES, cell=CUBE, pbc=(True, True, True)):
    check_input(np.array(numbers), np.array(positions), np.array(cell, dtype=float), np.array(pbc))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numbers": [1, 0]}, r"^atom 1 .*\(atomic number 0\)"),
        ({"numbers": [119, 8]}, r"^atom 0 .*\(atomic number 119\).* from 1 to 118"),
        ({"positions": [[0.0, 0, 0], [0, np.nan, 0]]}, "^atom 1 is at .*nan.* finite"),
        ({"positions": [[0.0, 0, 0], [0, -1.5e5, 0]]}, "^atom 1 is at .*-150000.*coordinates in Å"),
        ({"cell": [[3, 0, 0], [0, np.nan, 0], [0, 0, 3]]}, "values that are not finite"),
        ({"cell": [[3, 0, 0], [0, 1001, 0], [0, 0, 3]]}, "1001 Å long, .*is the cell in Å"),
        ({"cell": [[3, 0, 0], [0, 3, 0], [0, 0, 0.4]]}, r"0.4 Å long, less than the 0.5 Å"),
        ({"cell": [[3, 0, 0], [3, 1e-4, 0], [0, 0, 3]]}, "singular along its periodic axes"),
        ({"cell": [[3, 0, 0], [0, 3, 0], [0.3, 0.3, 0]], "pbc": [True, True, False]}, "in a plane"),
        ({"cell": [[3, 0, 0], [3, 0, 0], [0, 0, 0]], "pbc": [False] * 3}, "in a plane"),
    ],
)
def test_the_value_at_fault_is_named(changes, words):
    with pytest.raises(StructureError, match=words):
        check(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"numbers": [1, 118]},
        {"positions": [[9e4, 0, 0], [0, -9e4, 0]]},
        {"cell": [[3, 0, 0], [3, 0.01, 0], [0, 0, 1000]]},  # thin, but a cell
        {"cell": [[0.6, 0, 0], [0, 3, 0], [0, 0, 3]]},
        {"cell": [[3, 0, 0], [0, 3, 0], [0, 0, 0]], "pbc": [True, True, False]},
        {"cell": [[3, 0, 0], [0, 3, 0], [0, 0, 0.1]], "pbc": [True, True, False]},
        {"cell": np.zeros((3, 3)), "pbc": [False] * 3},
    ],
)
def test_what_is_unusual_but_possible_is_taken(changes):
    check(**changes)


@pytest.mark.parametrize("pbc", [True, False])
def test_two_atoms_on_one_site_are_refused(pbc):
    def pair(distance):
        places = np.array([[0, 0, 0.2], [0, 0, 0.2 - distance]])  # across the boundary
        return Crystal(np.array([12, 8]), places, CUBE, np.array([pbc] * 3))

    check_distances(pair(0.51))
    with pytest.raises(StructureError, match=r"^atoms 0 and 1 share a site: .* 0.490 Å apart"):
        check_distances(pair(0.49))


@pytest.mark.parametrize("height", [0.01, 0.002, 1e-3])
def test_atoms_that_cannot_have_room_are_refused_before_they_are_looked_for(height):
    cell = np.array([[4.0, 0, 0], [0, 4, 0], [2, 2, height]])
    positions = np.array([[0.0, 0, 0], [2, 0, height / 2]])
    with pytest.raises(StructureError, match=r"cannot be 0\.5 Å apart"):
        check_input(np.array([12, 8]), positions, cell, np.ones(3, dtype=bool))


def test_what_is_denser_than_any_crystal_is_searched_for_near_pairs_alone(rng):
    positions = rng.random((200, 3)) * 3.1
    crystal = Crystal(np.full(200, 14), positions, np.eye(3) * 3.1, np.ones(3, dtype=bool))
    with pytest.raises(StructureError, match="share a site"):
        check_distances(crystal, 6.0)
    assert [*crystal._known] == [2.0]
