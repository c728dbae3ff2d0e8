"""Notes: what a person should know of a structure or a result, as data that can be counted."""

from collections.abc import Iterable
from typing import NamedTuple

MEANINGS = {
    "all_held": "everything of it is held: nothing moves",
    "bond_stretched": "a bond of a molecule comes out too long",
    "constraints_contradict": "its constraints contradict each other",
    "force_from_outside": "a constraint of it pulls at its atoms",
    "functional_differs": "its calculation is with another functional than the prediction",
    "functional_taken": "relaxed to the functional of its calculation",
    "functional_unknown": "its calculation is with a functional that the weights do not know",
    "dispersion_elsewhere": "the weights know dispersion of another kind of structure",
    "fixed_atoms_strained": "its fixed atoms moved with its cell",
    "low_spin": "it has magnetic elements that the weights know with low spin only",
    "element_unseen_with_functional": "the weights never saw an element of it with the functional",
    "foreign_kind": "it is of a kind that the weights hardly know",
    "functional_unseen": "the weights never saw the functional",
    "cell_held": "what is held leaves no strain: the cell is kept",
    "held_by_calculation": "its calculation holds the cell, a part of it, or positions",
    "molecule_in_cell": "pbc is False in a full cell: taken for a molecule",
    "nothing_near": "nothing is near it: nothing was predicted of it",
    "no_neighbors": "no two atoms are near each other",
    "prediction_unsound": "the prediction failed a check",
    "single_atom": "a single atom: nothing to relax",
    "symmetry_not_sought": "it is too large to look for its symmetry",
    "slab_cell_held": "its fixed atoms keep its cell, as it has vacuum",
    "stale_dropped": "energies, forces and the like of the unrelaxed atoms were dropped",
    "unreadable": "it could not be read",
    "vacuum_axis": "it has vacuum along an axis, which is not strained",
    "vacuum_directions": "it has vacuum in several directions, across which it is not strained",
    "within_error": "a gain is not probable enough: left as it was",
}
"""What each code means, in words for any structure."""


class Note(NamedTuple):
    """A short code, the same for every structure of a kind, and a sentence about this one."""

    code: str
    text: str


def sentences(notes: Iterable[Note]) -> str:
    """The sentences of notes in one line."""
    return "; ".join(note.text for note in notes)
