"""janus-core: the class goes into `GeomOpt`, where a stock optimizer went.

Needs `pip install deeprelax-ase janus-core chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from janus_core.calculations.geom_opt import GeomOpt

from deeprelax_ase import DeepRelaxFIRE


def relax(atoms: Atoms, optimizer: type = DeepRelaxFIRE, fmax: float = 0.05) -> float:
    """Relax atoms and cell; the energy at the end, eV."""
    atoms.calc = CHGNetCalculator(verbose=False)
    GeomOpt(atoms, optimizer=optimizer, fmax=fmax, steps=500).run()
    return float(atoms.get_potential_energy())


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
