"""CHGNet: Deng et al., Nature Machine Intelligence 5, 1031 (2023). Its weights are in the wheel."""

from collections.abc import Callable
from typing import Any

from ase import Atoms
from chgnet.model import CHGNet, CHGNetCalculator, StructOptimizer

FUNCTIONALS = ("PBE", "r2SCAN")
_MODELS = {"PBE": "0.3.0", "r2SCAN": "r2scan"}


def calculator(
    weights: str | None,  # noqa: ARG001 - every adapter is called alike
    functional: str = "PBE",
) -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3."""
    model = CHGNet.load(model_name=_MODELS[functional], use_device="cpu", verbose=False)
    return CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="ignore")


def packaged(weights: str | None) -> Callable[[Atoms], tuple[Atoms, int]]:  # noqa: ARG001
    """The relaxer of the package at its defaults."""
    optimizer = StructOptimizer(use_device="cpu", on_isolated_atoms="ignore")

    def relax(atoms: Atoms) -> tuple[Atoms, int]:
        found = optimizer.relax(atoms, verbose=False)
        structure = found["final_structure"].to_ase_atoms()
        return structure, len(found["trajectory"].energies) - 1

    return relax
