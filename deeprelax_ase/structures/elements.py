"""Symbols, numbers, masses, radii and colours of the elements, and formulas, in one place."""

import warnings
from collections import Counter
from contextlib import nullcontext

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Int
from pymatgen.core.composition import Composition, reduce_formula

__all__ = [
    "BONDED",
    "HYDROGEN_ISOTOPES",
    "atomic_masses",
    "atomic_numbers",
    "chemical_symbols",
    "covalent_radii",
    "jmol_colors",
    "reduced_formula",
]


HYDROGEN_ISOTOPES = ("D", "T")
"""Symbols of hydrogen that are no element to ASE."""
BONDED = 1.3
"""Times the sum of their covalent radii that two atoms with a bond are apart at most."""
_UNRANKED = frozenset({"He", "Ne", "Ar", *chemical_symbols[104:]})
"""Elements without an electronegativity."""


def reduced_formula(numbers: Int[np.ndarray, " atoms"]) -> str:
    """Reduced chemical formula, elements in the order of their electronegativities: NaCl."""
    counts = Counter(chemical_symbols[number] for number in numbers.tolist())
    is_warned_of = not _UNRANKED.isdisjoint(counts)
    with warnings.catch_warnings() if is_warned_of else nullcontext():
        if is_warned_of:
            warnings.simplefilter("ignore")
        formula = str(reduce_formula(counts)[0])  # a Composition takes eight times as long
    return str(Composition.special_formulas.get(formula, formula))
