"""Fixed atoms keep the cell of a slab, unless somebody asks for it."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms, FixCartesian
from ase.filters import FrechetCellFilter

from deeprelax_ase import DeepRelaxOptimizer, Relaxer
from deeprelax_ase.files.calculation import apply_calculation
from deeprelax_ase.files.pw_calculation import read_pw_calculation
from deeprelax_ase.files.vasp_calculation import _read_tags
from deeprelax_ase.relaxation.options import RelaxOptions


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
@pytest.mark.parametrize(("hold", "is_kept"), [(None, True), ("c", True), ("a", False)])
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


@pytest.mark.parametrize("way", ["hold", "relax_cell", "filter", "INCAR", "vc-relax"])
def test_who_asks_for_the_cell_of_a_slab_gets_it(random_weights, way):
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
        text = "&control calculation='vc-relax' /"
        calculation = (
            _read_tags(Path("INCAR"), {"ISIF": "3", "NSW": "9", "IBRION": "2"})
            if way == "INCAR"
            else read_pw_calculation(text, slab.cell[:])
        )
        result = Relaxer(random_weights, **options).relax(
            apply_calculation(slab, calculation, None)
        )
        assert "held_by_calculation" not in [note.code for note in result.notes]
    assert result.strain.any()
    assert "slab_cell_held" not in [note.code for note in result.notes]


def test_nothing_is_held_by_itself():
    with pytest.raises(ValueError, match="nothing goes by itself"):
        RelaxOptions(hold="nothing,c")
