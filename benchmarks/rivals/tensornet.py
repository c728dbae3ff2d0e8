"""TensorNet-MatPES: Kaplan et al., arXiv:2503.04070; one model for PBE and one for r2SCAN."""

from pathlib import Path
from typing import Any

import matgl
from matgl.ext.ase import PESCalculator

FUNCTIONALS = ("PBE", "r2SCAN")


class Periodic(PESCalculator):
    """Repeat slabs and sheets across their vacuum: matgl 2.0.4 loses neighbours without.

    Where `pbc` is False along one axis only, energies are off by some eV an atom.
    """

    def calculate(self, atoms: Any = None, *arguments: Any, **settings: Any) -> None:
        """Evaluate a copy that is periodic along all axes."""
        copy = atoms.copy()
        copy.pbc = True
        super().calculate(copy, *arguments, **settings)


def calculator(weights: str | None, functional: str = "PBE") -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3.

    Args:
        weights: Folder that holds those of both functionals; downloaded by the package if None.
        functional: One of `FUNCTIONALS`.
    """
    name = f"TensorNet-MatPES-{functional}-v2025.1-PES"
    model = matgl.load_model(name if weights is None else str(Path(weights) / name))
    return Periodic(model, stress_unit="eV/A3")
