"""What the weights hardly know: elements, elements with a functional, and kinds of structures.

What counts of kinds is what the files of the recipe hold: bulk crystals, sheets, and thin slabs.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from deeprelax_ase.network.config import FUNCTIONALS
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.elements import BONDED, chemical_symbols, covalent_radii
from deeprelax_ase.structures.joined import COPIES, joined_copies, joined_parts
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.validation import StructureError

_LEAST_PACKING = 0.1
"""Share of a bulk crystal that covalent spheres fill; 2 % of those in the files fill less."""
_MOST_THICKNESS = 15.0
"""Å, between the outermost atoms of a layer; 1 % of those in the files are thicker."""
_LAYER, _BULK = 2, 3
"""Periodic axes of each."""
_KIND_OF_FUNCTIONAL = {"optB88-vdW": _LAYER, "PBEsol": _BULK, "r2SCAN": _BULK}
"""Functionals that the files have for one kind alone; PBE-D3 they have for stacks of layers."""
CAREFUL = "dispersion_elsewhere"
"""Code of a note with which a move is made only where it is nearly certainly a gain.

Of other kinds these functionals know that things come together: graphite by 22 % with optB88-vdW,
benzene on silver by 0.5 Å with PBE-D3, each with a probability of 0.9.
"""
_OPEN_SHELLS = frozenset(range(24, 29))
"""Atomic numbers from Cr to Ni."""


def check_elements(crystal: Crystal, predictor: Predictor) -> None:
    """Refuse a crystal of elements that the weights never saw, if it is known what they saw.

    Raises:
        StructureError: It names them.
    """
    unseen = _elements(crystal) - predictor.seen
    if unseen and predictor.seen:
        msg = (
            f"the weights {predictor.weights.name!r} never saw {_symbols(unseen)}: "
            "pass allow_unseen=True (--allow-unseen) to go on all the same, or train on it"
        )
        raise StructureError(msg)


def foreign_notes(crystal: Crystal, functional: str, predictor: Predictor) -> tuple[Note, ...]:
    """Say what of a crystal and of the functional it is relaxed to is foreign to the weights."""
    return (
        *(Note(*note) for note in _of_functional(crystal, functional, predictor)),
        *(Note("foreign_kind", text) for text in _of_kind(crystal)),
        *(Note(*note) for note in _of_kind_with(crystal, functional)),
    )


def _of_functional(
    crystal: Crystal, functional: str, predictor: Predictor
) -> Iterator[tuple[str, str]]:
    name, seen = predictor.weights.name, predictor.seen_with
    known = [other for other in FUNCTIONALS if other in seen]
    if known and functional not in known:
        text = f"the weights {name!r} never saw {functional}, but {', '.join(known)}"
        yield "functional_unseen", text
    elif known:
        strange = (_elements(crystal) & predictor.seen) - seen[functional]
        others = [other for other in known if strange <= seen[other]]
        if strange:
            text = f"the weights {name!r} never saw {_symbols(strange)} with {functional}"
            text += f", but with {', '.join(others)}" if others else ""
            yield "element_unseen_with_functional", text


def _of_kind(crystal: Crystal) -> Iterator[str]:
    periodic = int(crystal.pbc.sum())
    if periodic < _LAYER and (periodic or len(crystal) > 1):
        yield f"a {'chain' if periodic else 'molecule'}: the weights know crystals and layers only"
    elif periodic == _LAYER:
        normal = np.cross(*crystal.cell[crystal.pbc])
        thickness = float(np.ptp(crystal.positions @ normal)) / float(np.linalg.norm(normal))
        if thickness > _MOST_THICKNESS:
            yield (
                f"a slab of {thickness:.1f} Å: few layers that the weights know are thicker than "
                f"{_MOST_THICKNESS:g} Å"
            )
    elif periodic == _BULK and not len(crystal.across_vacuum):
        spheres = 4 / 3 * np.pi * float((covalent_radii[crystal.numbers] ** 3).sum())
        packing = spheres / abs(float(np.linalg.det(crystal.cell)))
        if packing < _LEAST_PACKING:
            yield (
                f"an open structure: its atoms fill {100 * packing:.1f} % of it, and few crystals "
                f"that the weights know are filled to less than {100 * _LEAST_PACKING:.0f} %"
            )


def _of_kind_with(crystal: Crystal, functional: str) -> Iterator[tuple[str, str]]:
    periodic, known = int(crystal.pbc.sum()), _KIND_OF_FUNCTIONAL.get(functional)
    if known is not None and periodic in (_LAYER, _BULK) and periodic != known:
        own, other = ("layer", "bulk crystal") if known == _BULK else ("bulk crystal", "layer")
        code = CAREFUL if functional == "optB88-vdW" else "foreign_kind"
        yield code, f"a {own}: the weights know {functional} of {other}s only"
    if functional == "PBE-D3" and periodic in (_LAYER, _BULK):
        parts, of_copies = _parts(crystal)
        is_one = parts == 1 and of_copies == (1 if periodic == _BULK else 2)
        is_stack = of_copies == 2 * parts and not is_one
        if not is_stack:
            code = "foreign_kind" if is_one else CAREFUL
            yield code, "no stack of layers: the weights know PBE-D3 of layered crystals only"
    magnetic = _elements(crystal) & _OPEN_SHELLS
    if functional == "PBEsol" and magnetic:
        text = (
            f"the weights know PBEsol of {_symbols(magnetic)} with low spin only: volumes of "
            "high-spin compounds come out up to a third too small"
        )
        yield "low_spin", text


def _parts(crystal: Crystal) -> tuple[int, int]:
    """How many bonded parts a cell has, and how many its copies, two along each axis.

    There is one of what is bonded along three axes, two for each layer, eight for each molecule.
    """
    usual = covalent_radii[crystal.numbers]
    pairs = crystal.pairs_within(2 * BONDED * float(usual.max()))
    is_bond = pairs.lengths < BONDED * (usual[pairs.first] + usual[pairs.second])
    first, second, offsets = (of[is_bond] for of in (pairs.first, pairs.second, pairs.offsets))
    copies = joined_copies(first, second, offsets)
    labels = (
        joined_parts(first, second, len(crystal)),
        joined_parts(*copies, COPIES * len(crystal)),
    )
    parts, of_copies = (int(one.max()) + 1 for one in labels)
    return parts, of_copies


def _elements(crystal: Crystal) -> frozenset[int]:
    return frozenset(crystal.numbers.tolist())


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))
