"""quacc: the class goes into `opt_params` of a relaxation with an ASE calculator.

Needs `pip install deeprelax-ase quacc chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from quacc.runners.ase import Runner

from deeprelax_ase import DeepRelaxFIRE


def relax(atoms: Atoms, optimizer: type = DeepRelaxFIRE, fmax: float = 0.05) -> float:
    """Relax atoms and cell; the energy at the end, eV."""
    runner = Runner(atoms, CHGNetCalculator(verbose=False))
    dynamics = runner.run_opt(relax_cell=True, fmax=fmax, max_steps=500, optimizer=optimizer)
    return float(dynamics.atoms.atoms.get_potential_energy())


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
