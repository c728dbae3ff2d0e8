"""Density functional theory by GPAW: plane waves of 400 eV, PBE.

Mortensen et al., J. Chem. Phys. 160, 092503 (2024). Spin is paired and there is no Hubbard U, so
energies are compared with energies of the same settings alone.
"""

from collections.abc import Sequence
from typing import Any

from gpaw import GPAW, PW, FermiDirac

MADE_EVERY_TIME = True
"""A calculator keeps the density of the last crystal."""
_CUTOFF = 400.0
"""eV"""
_SMEARING = 0.1
"""eV"""


def calculator(
    weights: str | None,  # noqa: ARG001 - every adapter is called alike
    kpts: Sequence[int],
) -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3.

    Args:
        weights: There are none.
        kpts: Mesh around the Gamma point, the same for every geometry of a crystal.
    """
    return GPAW(
        mode=PW(_CUTOFF),
        xc="PBE",
        kpts={"size": tuple(kpts), "gamma": True},
        occupations=FermiDirac(_SMEARING),
        convergence={"energy": 1e-4, "density": 1e-4},
        maxiter=150,
        parallel={"augment_grids": True},
        txt=None,
    )
