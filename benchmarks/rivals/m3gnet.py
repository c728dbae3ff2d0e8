"""M3GNet, the paper's baseline: Chen and Ong, Nature Computational Science 2, 718 (2022)."""

from collections.abc import Callable
from typing import Any

from ase import Atoms
from ase.units import GPa
from m3gnet.models import M3GNet, M3GNetCalculator, Potential, Relaxer


def _potential(weights: str | None) -> Any:
    # Without a folder the package downloads its own.
    return Potential(M3GNet.from_dir(weights) if weights else M3GNet.load())


def calculator(weights: str | None) -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3 (the package's are in GPa)."""
    return M3GNetCalculator(potential=_potential(weights), stress_weight=GPa)


def packaged(weights: str | None) -> Callable[[Atoms], tuple[Atoms, int]]:
    """The relaxer of the package at its defaults."""
    relaxer = Relaxer(_potential(weights))

    def relax(atoms: Atoms) -> tuple[Atoms, int]:
        found = relaxer.relax(atoms)
        structure = found["final_structure"].to_ase_atoms()
        return structure, len(found["trajectory"].energies) - 1

    return relax
