"""janus-core: the class goes into `GeomOpt`, where a stock optimizer went.

Needs `pip install deeprelax-ase janus-core chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from chgnet.model.dynamics import CHGNetCalculator
from janus_core.calculations.geom_opt import GeomOpt

from deeprelax_ase import DeepRelaxFIRE


def relax(
    atoms: Atoms,
    optimizer: type = DeepRelaxFIRE,
    *,
    relax_cell: bool = True,
    fix_symmetry: bool = False,
) -> float:
    """Relax atoms and cell to 0.05 eV/Å; the energy at the end, eV."""
    atoms.calc = CHGNetCalculator(verbose=False)
    GeomOpt(
        atoms,
        optimizer=optimizer,
        fmax=0.05,
        steps=500,
        filter_class=FrechetCellFilter if relax_cell else None,
        fix_symmetry=fix_symmetry,
    ).run()
    return float(atoms.get_potential_energy())


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
