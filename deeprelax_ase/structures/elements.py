"""Symbols, numbers, masses, radii and colours of the elements, from ASE, in one place."""

from ase.data import atomic_masses, atomic_numbers, chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

__all__ = ["atomic_masses", "atomic_numbers", "chemical_symbols", "covalent_radii", "jmol_colors"]
