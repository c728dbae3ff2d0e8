"""Density functional theory by GPAW, with plane waves.

Mortensen et al., J. Chem. Phys. 160, 092503 (2024). Spin is paired and there is no Hubbard U, so
energies are compared with energies of the same settings alone.
"""

from collections.abc import Sequence
from typing import Any

from ase.calculators.mixing import SumCalculator
from dftd3.ase import DFTD3
from gpaw import GPAW, PW, FermiDirac
from gpaw.xc import XC

MADE_EVERY_TIME = True
"""A calculator keeps the density of the last crystal."""
PERIODIC = True
"""Plane waves repeat along every axis."""
FUNCTIONALS = ("PBE", "PBEsol", "PBE-D3")
"""With the cores of PBE for all: GPAW comes with no others that are as near."""
_CORES = "PBE"
_DISPERSION = "-D3"
"""With the damping of Becke and Johnson, without three-body terms (simple-dftd3)."""
_SMEARING = 0.1
"""eV"""
_SYMMETRY = {"tolerance": 1e-4}
"""Data are of single precision: of a part of the symmetry, GPAW makes k-points of no weight."""


def calculator(
    weights: str | None,  # noqa: ARG001 - every adapter is called alike
    kpts: Sequence[int] = (1, 1, 1),
    functional: str = "PBE",
    cutoff: float = 400.0,
) -> Any:
    """Energies in eV, forces in eV/Å, stresses in eV/Å^3.

    Args:
        weights: There are none.
        kpts: Mesh around the Gamma point, the same for every geometry of a crystal.
        functional: One of `FUNCTIONALS`.
        cutoff: Of the plane waves, eV.
    """
    semilocal = functional.removesuffix(_DISPERSION)
    xc = XC(semilocal)
    xc.get_setup_name = lambda: _CORES
    calculator = GPAW(
        mode=PW(cutoff),
        xc=xc,
        kpts={"size": tuple(kpts), "gamma": True},
        symmetry=_SYMMETRY,
        occupations=FermiDirac(_SMEARING),
        convergence={"energy": 1e-4, "density": 1e-4},
        maxiter=150,
        parallel={"augment_grids": True},
        txt=None,
    )
    if functional == semilocal:
        return calculator
    dispersion = DFTD3(method=semilocal, damping="d3bj")
    return SumCalculator([calculator, dispersion])
