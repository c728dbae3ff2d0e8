"""atomate2: `precondition` puts the move in front of a relaxation with a force field.

Needs `pip install "deeprelax-ase[jobflow]" atomate2 chgnet`.
"""

from ase import Atoms
from ase.build import bulk
from atomate2.forcefields.jobs import ForceFieldRelaxMaker
from jobflow import run_locally
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase import DeepRelaxFIRE
from deeprelax_ase.interfaces.jobflow import DeepRelaxMaker, precondition


def relax(
    atoms: Atoms,
    optimizer: type = DeepRelaxFIRE,
    *,
    relax_cell: bool = True,
    fix_symmetry: bool = False,
) -> float:
    """Relax atoms and cell to 0.05 eV/Å in a flow; the energy at the end, eV.

    The move is a job of its own, and a stock optimizer of any name goes on from it.
    """
    stock = optimizer.__name__.removeprefix("DeepRelax")
    maker = ForceFieldRelaxMaker(
        force_field_name="CHGNet",
        steps=500,
        relax_cell=relax_cell,
        fix_symmetry=fix_symmetry,
        relax_kwargs={"fmax": 0.05},
        optimizer_kwargs={"optimizer": stock},
    )
    move = DeepRelaxMaker(relax_cell=relax_cell)
    is_ours = optimizer.__name__ != stock
    structure = AseAtomsAdaptor.get_structure(atoms)
    flow = (precondition(maker, move) if is_ours else maker).make(structure)
    responses = run_locally(flow, ensure_success=True)
    last = flow.jobs[-1] if is_ours else flow
    return float(responses[last.uuid][1].output.output.energy)


if __name__ == "__main__":
    print(f"{relax(bulk('MgO', 'rocksalt', a=4.5)):.4f} eV")
