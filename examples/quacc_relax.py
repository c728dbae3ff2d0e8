"""quacc: the class goes into `opt_params` of a relaxation with an ASE calculator.

Needs `pip install deeprelax-ase quacc chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from ase.constraints import FixSymmetry
from chgnet.model.dynamics import CHGNetCalculator
from quacc.runners.ase import Runner

from deeprelax_ase import DeepRelaxFIRE


def relax(
    atoms: Atoms,
    optimizer: type = DeepRelaxFIRE,
    *,
    relax_cell: bool = True,
    fix_symmetry: bool = False,
) -> float:
    """Relax atoms and cell to 0.05 eV/Å; the energy at the end, eV."""
    if fix_symmetry:
        atoms.set_constraint(FixSymmetry(atoms, symprec=1e-3))
    runner = Runner(atoms, CHGNetCalculator(verbose=False))
    dynamics = runner.run_opt(relax_cell=relax_cell, fmax=0.05, max_steps=500, optimizer=optimizer)
    relaxed = dynamics.atoms.atoms if relax_cell else dynamics.atoms
    return float(relaxed.get_potential_energy())


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
