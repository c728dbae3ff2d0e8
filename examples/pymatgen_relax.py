"""pymatgen: the class goes into `Structure.relax`.

Needs `pip install deeprelax-ase matcalc chgnet`; pymatgen calls matgl or an ASE calculator.
"""

from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase import DeepRelaxFIRE


def relax(atoms: Atoms, optimizer: type = DeepRelaxFIRE, *, relax_cell: bool = True) -> float:
    """Relax atoms and cell to 0.05 eV/Å; the energy at the end, eV."""
    structure = AseAtomsAdaptor.get_structure(atoms)
    relaxed = structure.relax(
        calculator=CHGNetCalculator(verbose=False),
        optimizer=optimizer,
        relax_cell=relax_cell,
        fmax=0.05,
        steps=500,
    )
    return float(relaxed.calc.results["energy"])


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
