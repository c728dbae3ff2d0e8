"""TensorNet-MatPES: Kaplan et al., arXiv:2503.04070; one model for PBE and one for r2SCAN."""

from pathlib import Path
from typing import Any

import matgl
from matgl.ext.ase import PESCalculator

FUNCTIONALS = ("PBE", "r2SCAN")


def calculator(weights: str | None, functional: str = "PBE") -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3.

    Args:
        weights: Folder that holds those of both functionals; downloaded by the package if None.
        functional: One of `FUNCTIONALS`.
    """
    name = f"TensorNet-MatPES-{functional}-v2025.1-PES"
    model = matgl.load_model(name if weights is None else str(Path(weights) / name))
    return PESCalculator(model, stress_unit="eV/A3")
