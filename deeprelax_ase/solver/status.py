"""How a solve ended, and the limits that it is judged by."""

from enum import IntEnum

from deeprelax_ase.structures.crystal import LEAST_DISTANCE

LEAST_STRETCH = 0.2
TINY = 1e-12


class SolveStatus(IntEnum):
    """How a solve ended; all but the first keep the last sound iterate."""

    SOLVED = 0
    NOT_FINITE = 1
    COLLAPSED_CELL = 2
    ATOMS_OVERLAP = 3

    @property
    def sentence(self) -> str:
        """What a user is told."""
        return _SENTENCES[self]


_SENTENCES = {
    SolveStatus.SOLVED: "solved",
    SolveStatus.NOT_FINITE: "the predicted structure has values that are not finite",
    SolveStatus.COLLAPSED_CELL: "the predicted cell is squeezed to less than a fifth",
    SolveStatus.ATOMS_OVERLAP: f"predicted atoms come nearer than {LEAST_DISTANCE} Å",
}
