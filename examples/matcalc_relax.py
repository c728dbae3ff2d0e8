"""matcalc: the class goes where the name of an optimizer went.

Needs `pip install deeprelax-ase matcalc chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from matcalc import RelaxCalc

from deeprelax_ase import DeepRelaxFIRE


def relax(atoms: Atoms, optimizer: type = DeepRelaxFIRE, fmax: float = 0.05) -> float:
    """Relax atoms and cell; the energy at the end, eV."""
    calculator = CHGNetCalculator(verbose=False)
    calc = RelaxCalc(calculator, optimizer=optimizer, fmax=fmax, max_steps=500)
    return float(calc.calc(atoms)["energy"])


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
