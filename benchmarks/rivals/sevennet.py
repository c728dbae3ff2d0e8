"""SevenNet-0: Park et al., J. Chem. Theory Comput. 20, 4857 (2024); weights are in its wheel."""

from typing import Any

from sevenn.calculator import SevenNetCalculator


def calculator(weights: str | None) -> Any:  # noqa: ARG001 - every adapter is called alike
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3."""
    return SevenNetCalculator("7net-0", device="cpu")
