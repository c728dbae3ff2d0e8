"""Fixed atoms keep the cell of a slab, unless somebody asks for it."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms, FixCartesian
from ase.filters import FrechetCellFilter

from deeprelax_ase import DeepRelaxOptimizer, Relaxer
from deeprelax_ase.files.aims_calculation import read_aims_calculation
from deeprelax_ase.files.calculation import apply_calculation
from deeprelax_ase.files.castep_calculation import read_castep_calculation
from deeprelax_ase.files.pw_calculation import read_pw_calculation
from deeprelax_ase.files.vasp_calculation import _read_tags
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.structures.read_structure import read_structure


def slab_with_fixed_bottom():
    slab = fcc111("Al", (1, 1, 4), vacuum=9.0)
    slab.rattle(0.05, seed=1)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    return slab


def test_fixed_atoms_keep_the_cell_of_a_slab(random_weights):
    """Unless somebody says what becomes of it: that is the custom of everybody else."""
    slab = slab_with_fixed_bottom()
    options = {"allow_unseen": True, "always_move": True}
    result = Relaxer(random_weights, **options).relax(slab)
    assert result.status == "relaxed"
    assert not result.strain.any()
    np.testing.assert_array_equal(result.structure.positions[:2], slab.positions[:2])
    assert "slab_cell_held" in [note.code for note in result.notes]
    bulk_like = slab.copy()
    bulk_like.center(vacuum=1.0, axis=2)
    bulk_like.pbc = True
    assert Relaxer(random_weights, **options).relax(bulk_like).strain.any()
    loose = slab.copy()
    loose.set_constraint(FixCartesian([0], (True, True, False)))
    assert Relaxer(random_weights, **options).relax(loose).strain.any()


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(
    ("hold", "is_kept"),
    [(None, True), ("c", True), ("a", False), ("volume", False), ("shape", False)],
)
def test_a_vector_across_vacuum_says_nothing_of_it(random_weights, lean, hold, repeat, is_kept):
    slab = fcc111("Al", (1, 1, 4), vacuum=9.0)
    slab.rattle(0.05, seed=1)
    slab.pbc = True
    slab.set_constraint(FixAtoms([0]))
    slab = slab.repeat((repeat, 1, 1))
    if lean:
        slab.cell[2] += slab.cell[1]
    relaxer = Relaxer(random_weights, hold=hold, allow_unseen=True, always_move=True)
    result = relaxer.relax(slab)
    assert result.status == "relaxed"
    assert result.strain.any() != is_kept


def calculation_by(way, cell, folder):
    if way == "INCAR":
        return _read_tags(Path("INCAR"), {"ISIF": "3", "NSW": "9", "IBRION": "2"})
    if way == "vc-relax":
        return read_pw_calculation("&control calculation='vc-relax' /", cell)
    if way == ".param":
        return read_castep_calculation("", cell, "TASK : GeometryOptimization")
    if way == "FIX_ALL_CELL":
        return read_castep_calculation("FIX_ALL_CELL : false", cell)
    (folder / "control.in").write_text("relax_geometry bfgs 1e-2\nrelax_unit_cell full\n")
    return read_aims_calculation(folder / "geometry.in", cell)


WAYS = ["hold", "relax_cell", "filter", "INCAR", "vc-relax", ".param", "FIX_ALL_CELL", "aims"]


@pytest.mark.parametrize("way", WAYS)
def test_who_asks_for_the_cell_of_a_slab_gets_it(random_weights, way, tmp_path):
    slab = slab_with_fixed_bottom()
    slab.pbc = True
    options = {"allow_unseen": True, "always_move": True}
    if way == "hold":
        result = Relaxer(random_weights, hold="nothing", **options).relax(slab)
    elif way == "relax_cell":
        result = Relaxer(random_weights, **options).relax(slab, relax_cell=True)
    elif way == "filter":
        optimizer = DeepRelaxOptimizer(FrechetCellFilter(slab), model=random_weights, **options)
        assert optimizer.run()
        result = optimizer.result
    else:
        calculation = calculation_by(way, slab.cell[:], tmp_path)
        result = Relaxer(random_weights, **options).relax(
            apply_calculation(slab, calculation, None)
        )
        assert "held_by_calculation" not in [note.code for note in result.notes]
    assert result.strain.any()
    assert "slab_cell_held" not in [note.code for note in result.notes]


def test_nothing_is_held_by_itself():
    with pytest.raises(ValueError, match="nothing goes by itself"):
        RelaxOptions(hold="nothing,c")


def test_a_bare_cell_file_does_not_ask_for_it(random_weights):
    slab = slab_with_fixed_bottom()
    slab.pbc = True
    calculation = read_castep_calculation("", slab.cell[:])
    options = {"allow_unseen": True, "always_move": True}
    result = Relaxer(random_weights, **options).relax(apply_calculation(slab, calculation, None))
    assert not result.strain.any()


def test_chains_beside_vacuum_of_any_direction_keep_it_too():
    chain = Atoms("C4", [[0, 0, 1.3 * k] for k in range(4)], cell=[24, 24, 5.2], pbc=True)
    for lean in (0.0, 0.41):
        chain.cell[1] = [24 * lean, 24, 0]
        chain.set_constraint(FixAtoms([0]))
        assert "slab_cell_held" in [note.code for note in read_structure(chain).notes]
    molecule = Atoms("C4", chain.positions, constraint=FixAtoms([0]))
    assert "slab_cell_held" not in [note.code for note in read_structure(molecule).notes]
