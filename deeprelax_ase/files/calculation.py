"""What the calculation around a structure lets move, whichever code it is of.

`vasp_calculation`, `pw_calculation` and `castep_calculation` read the inputs of one code each. What
holds the cell, or part of it, is honoured; what no relaxation can honour is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.read_structure import HeldStructure
from deeprelax_ase.structures.validation import StructureError


@dataclass(frozen=True, eq=False)
class Calculation:
    """What an input of a DFT code says of the relaxation that it asks for.

    Attributes:
        held: What it keeps as it is.
        reason: Where it says so, such as `ISIF = 2`; nothing if all is free.
        functional: That it names; `unknown` for one that no weights know; None if it names none.
        refusal: Why its structure is not to be relaxed; nothing if it is.
        nearest: Of the functionals that weights know, the one to take for an unknown one.
    """

    held: Held = field(default_factory=Held)
    reason: str = ""
    functional: str | None = None
    refusal: str = ""
    nearest: str = "unknown"


def with_dispersion(plain: str | None, nearest: str, *, is_d3: bool) -> tuple[str, str]:
    """Functional with a correction for dispersion, and the nearest where that is unknown.

    Args:
        plain: The functional without it.
        nearest: To that, where it is unknown.
        is_d3: Whether the correction is D3.
    """
    if plain != "PBE":
        return "unknown", nearest if plain in (None, "unknown") else plain
    return "PBE-D3" if is_d3 else "unknown", "PBE-D3"


def apply_calculation(
    structure: Any, calculation: Calculation, functional: str | None, *, force: bool = False
) -> HeldStructure:
    """Join a structure with what the calculation around it says.

    Args:
        structure: ASE Atoms or a pymatgen Structure.
        calculation: Around it.
        functional: That the user names; None takes that of the calculation.
        force: Relax also what is not to be relaxed. Its functional is heeded, and so is what it
            holds, if it is a relaxation.

    Raises:
        StructureError: It is not to be relaxed.
    """
    if calculation.refusal and not force:
        msg = f"{calculation.refusal}: nothing was relaxed; pass --force to relax it all the same"
        raise StructureError(msg)
    notes = [*_notes(calculation, functional)]
    is_unknown = calculation.functional == "unknown"
    taken = calculation.nearest if is_unknown else calculation.functional
    return HeldStructure(structure, calculation.held, tuple(notes), functional or taken)


def _notes(calculation: Calculation, functional: str | None) -> Iterable[Note]:
    if calculation.held:
        yield Note("held_by_calculation", f"{calculation.reason}: {_what(calculation.held)}")
    named = calculation.functional
    if named == "unknown":
        nearest = "none in particular"
        if calculation.nearest != "unknown":
            nearest = f"{calculation.nearest}, the nearest that they know"
        text = (
            "the calculation is with a functional that the weights do not know, and the prediction "
            f"is for {functional or nearest}"
        )
        yield Note("functional_unknown", text)
    elif named is not None and functional not in (None, named):
        text = f"the calculation is with {named}, and the prediction is for {functional}"
        yield Note("functional_differs", text)
    elif named is not None and functional is None and named != "PBE":
        yield Note("functional_taken", f"relaxed to {named}, the functional of the calculation")


def _what(held: Held) -> str:
    """Say what is held."""
    names = sorted(held.names)
    parts = [f"the {name} is kept" for name in names if name in ("cell", "volume", "shape")]
    parts += ["fractional coordinates are kept"] if held.positions else []
    vectors = [name for name in names if set(name) <= set("abc")]
    parts += [f"the cell vectors {', '.join(vectors)} are kept"] if vectors else []
    parts += ["part of the cell is kept"] if len(held.rows) else []
    return ", ".join(parts)
