"""matcalc: the class goes where the name of an optimizer went.

Needs `pip install deeprelax-ase matcalc chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from matcalc import RelaxCalc

from deeprelax_ase import DeepRelaxFIRE


def relax(
    atoms: Atoms,
    optimizer: type = DeepRelaxFIRE,
    *,
    relax_cell: bool = True,
    fix_symmetry: bool = False,
) -> float:
    """Relax atoms and cell to 0.05 eV/Å; the energy at the end, eV."""
    calc = RelaxCalc(
        CHGNetCalculator(verbose=False),
        optimizer=optimizer,
        fmax=0.05,
        max_steps=500,
        relax_cell=relax_cell,
        fix_symmetry=fix_symmetry,
    )
    return float(calc.calc(atoms)["energy"])


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
