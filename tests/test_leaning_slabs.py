"""Slabs whose third vector leans: what is held, and where atoms lie in the cell, is no matter."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled, FixSymmetry
from ase.filters import FrechetCellFilter
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase import DeepRelaxOptimizer, Relaxer
from deeprelax_ase.files.calculation import apply_calculation
from deeprelax_ase.files.castep_calculation import read_castep_calculation
from deeprelax_ase.files.pw_calculation import read_pw_calculation
from deeprelax_ase.structures.exact_holds import HeldEntries, HeldParameters
from deeprelax_ase.structures.read_structure import read_structure

ACROSS = np.array([False, False, True])


def slab(a=4.2, lean=(0.37, 0.21), layers=5):
    atoms = fcc111("Al", (1, 1, layers), a=a, vacuum=6)
    atoms.pbc = True
    cell = atoms.cell.array.copy()
    cell[2] += lean @ cell[:2]
    atoms.set_cell(cell)
    return atoms


def shifted(atoms, part):
    moved = atoms.copy()
    moved.positions += part * atoms.cell[2]
    moved.wrap()
    return moved


def inner(atoms):
    """All distances between atoms and their images, which know nothing of where the cell is."""
    return atoms.get_all_distances(mic=True)


@pytest.mark.parametrize("part", [0.0, 0.45])
@pytest.mark.parametrize(
    "constraint",
    [FixCartesian(range(5), (True, True, False)), FixedLine(range(5), (0, 0, 1)), FixAtoms([0])],
    ids=lambda constraint: type(constraint).__name__,
)
def test_a_constraint_that_asks_for_nothing_changes_nothing(constraint, part):
    relaxer = Relaxer(functional="PBE", always_move=True)
    plain = relaxer.relax(slab()).structure
    atoms = slab()
    atoms.set_constraint(constraint)
    result = relaxer.relax(shifted(atoms, part), relax_cell=True)
    assert result.status == "relaxed"
    np.testing.assert_allclose(inner(result.structure), inner(plain), atol=1e-6)


@pytest.mark.parametrize("fixed", [[], [0], [0, 5]])
def test_to_hold_a_vector_across_vacuum_does_not_hold_the_plane(fixed):
    relaxer = Relaxer(functional="PBE", always_move=True, hold="c")
    upright, leaning = slab(lean=(0, 0)).repeat((2, 1, 1)), slab().repeat((2, 1, 1))
    results = []
    for atoms in (upright, leaning):
        if fixed:
            atoms.set_constraint(FixAtoms(fixed))
        result = relaxer.relax(atoms, relax_cell=True)
        np.testing.assert_allclose(result.structure.cell[2], atoms.cell[2], atol=1e-9)
        drift = result.structure.get_scaled_positions() - atoms.get_scaled_positions()
        assert np.abs(drift[fixed]).max(initial=0) < 1e-9
        results.append(result)
    lengths = [result.structure.cell.cellpar()[[0, 1, 5]] for result in results]
    np.testing.assert_allclose(*lengths, atol=1e-6)
    assert results[0].volume_change < -0.01


PW = "&CONTROL\ncalculation = 'vc-relax'\n/\n&SYSTEM\n/\n&CELL\ncell_dofree = '{}'\n/\n"


@pytest.mark.parametrize("freedom", ["2Dxy", "fixc", "2Dshape", "epitaxial_ab"])
def test_inputs_of_pw_hold_no_more_of_a_leaning_slab(freedom):
    relaxer, changes = Relaxer(functional="PBE", always_move=True), []
    for atoms in (slab(lean=(0, 0)), slab()):
        calculation = read_pw_calculation(PW.format(freedom), atoms.cell.array)
        result = relaxer.relax(apply_calculation(atoms, calculation, "PBE"))
        changes.append(result.volume_change)
        assert result.structure.cell.cellpar()[5] == pytest.approx(60, abs=1e-6)
    assert changes[0] == pytest.approx(changes[1], abs=1e-6)


def test_castep_holds_no_more_of_a_leaning_slab():
    text = "%BLOCK CELL_CONSTRAINTS\n1 1 0\n0 0 0\n%ENDBLOCK CELL_CONSTRAINTS\n"
    relaxer, changes = Relaxer(functional="PBE", always_move=True), []
    for atoms in (slab(lean=(0, 0)), slab()):
        calculation = read_castep_calculation(text, atoms.cell.array)
        result = relaxer.relax(apply_calculation(atoms, calculation, "PBE"))
        assert "part of the cell is kept" in result.message
        changes.append(result.volume_change)
    assert changes[0] < -0.01
    assert changes[0] == pytest.approx(changes[1], abs=1e-6)


def test_what_is_said_of_a_vector_goes_with_it():
    cell = slab().cell.array
    entries = HeldEntries(cell, np.ones((3, 3), dtype=bool))
    assert not entries.without(ACROSS).kept[2].any()
    assert entries.without(ACROSS).kept[:2].all()
    # The length of c; a + b; the angles: of these gamma is left.
    combinations = np.array([[0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], *np.eye(6)[3:]], dtype=float)
    left = HeldParameters(cell, combinations).without(ACROSS).combinations
    np.testing.assert_array_equal(left, [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])


def test_atoms_at_one_height_are_not_held_against_each_other():
    atoms = slab().repeat((2, 1, 1))
    for fixed, keeps in (([0, 5], False), ([0, 1], True)):
        atoms.set_constraint(FixAtoms(fixed))
        assert read_structure(atoms).keeps_places is keeps


def test_images_across_vacuum_are_the_same_anchor():
    atoms = fcc111("Cu", (2, 2, 4), a=3.7, vacuum=9)
    atoms.pbc = True
    atoms.set_constraint(FixAtoms([0, 1]))
    single, double = (
        Relaxer(functional="PBE", hold="nothing").relax(each).volume_change
        for each in (atoms, atoms * (1, 1, 2))
    )
    assert single == pytest.approx(double, abs=1e-9)


@pytest.mark.parametrize("lean", [(1 / 3, 1 / 3), (0.5, 0.0), (0.37, 0.21)])
@pytest.mark.parametrize("freedom", ["fixc", "2Dxy", "xy"])
def test_a_vector_that_pw_holds_stays_where_symmetry_would_have_it_lean(freedom, lean):
    atoms = slab(lean=lean)
    calculation = read_pw_calculation(PW.format(freedom), atoms.cell.array)
    result = Relaxer(functional="PBE", always_move=True).relax(
        apply_calculation(atoms, calculation, "PBE")
    )
    np.testing.assert_allclose(result.structure.cell[2], atoms.cell[2], atol=1e-12)
    assert abs(result.volume_change) > 0.01


def test_vacuum_that_is_not_to_be_seen_is_not_seen_in_an_input():
    atoms = fcc111("Al", (1, 1, 5), a=4.2, vacuum=4.2)
    atoms.pbc = True
    calculation = read_pw_calculation(PW.format("z"), atoms.cell.array)
    joined = apply_calculation(atoms, calculation, "PBE")
    result = Relaxer(functional="PBE", always_move=True, vacuum="none").relax(joined)
    assert abs(result.structure.cell[2, 2] - atoms.cell[2, 2]) > 0.1
    np.testing.assert_allclose(result.structure.cell[:2], atoms.cell[:2], atol=1e-9)


@pytest.mark.parametrize(
    "constraint",
    [FixedPlane([0], (0, 0, 1)), FixCartesian([0, 3], (0, 0, 1)), FixScaled([0, 3], (0, 0, 1))],
)
def test_what_is_held_across_the_surface_does_not_hold_the_plane(constraint):
    relaxer = Relaxer(functional="PBE", always_move=True, hold="c")
    changes = []
    for atoms in (slab(lean=(0, 0)), slab(), shifted(slab(), 0.45)):
        atoms.set_constraint(constraint)
        result = relaxer.relax(atoms)
        np.testing.assert_allclose(result.structure.cell[2], atoms.cell[2], atol=1e-9)
        changes.append(result.volume_change)
    np.testing.assert_allclose(changes, changes[0], atol=1e-6)
    assert changes[0] < -0.05


@pytest.mark.parametrize("fixed", [[], [0], [0, 1]])
def test_named_vectors_stay_where_vacuum_lies_along_none(fixed):
    atoms = slab(lean=(0.3, -0.4), layers=3).repeat((2, 1, 1))
    cell = np.array([[1, -1, 0], [0, 1, -1], [0, 0, 1]]) @ atoms.cell.array
    atoms.set_cell(cell)
    atoms.set_constraint(FixAtoms(fixed))
    result = Relaxer(functional="PBE", always_move=True, hold="b").relax(atoms)
    np.testing.assert_allclose(result.structure.cell[1], cell[1], atol=1e-9)


def test_a_fixed_atom_is_told_to_have_stayed():
    atoms = shifted(slab(lean=(1.37, -0.79)), 0.45)
    atoms.set_constraint(FixAtoms([0]))
    result = Relaxer(functional="PBE", always_move=True).relax(atoms)
    np.testing.assert_allclose(result.displacement[0], 0, atol=1e-9)
    structure = AseAtomsAdaptor.get_structure(atoms)
    other = Relaxer(functional="PBE", always_move=True).relax(structure)
    np.testing.assert_allclose(other.displacement, result.displacement, atol=1e-6)
    np.testing.assert_allclose(other.structure.lattice.matrix, result.structure.cell, atol=1e-9)


@pytest.mark.parametrize("digits", [3, 5, 7, 15])
def test_heights_that_differ_by_digits_are_one(digits):
    atoms = slab().repeat((2, 2, 1))
    bottom = np.flatnonzero(atoms.positions[:, 2] < atoms.positions[:, 2].min() + 0.1)
    atoms.set_scaled_positions(atoms.get_scaled_positions() + 0.123456789012345)
    atoms.set_scaled_positions(np.round(atoms.get_scaled_positions(), digits))
    atoms.positions[bottom[0], 2] += 3e-5
    atoms.set_constraint(FixAtoms(bottom))
    relaxer = Relaxer(functional="PBE", always_move=True, hold="c")
    result = relaxer.relax(atoms, relax_cell=True)
    assert result.status == "relaxed"
    assert result.volume_change < -0.05
    drift = result.structure.get_scaled_positions() - atoms.get_scaled_positions()
    assert np.abs(drift[bottom]).max() < 1e-9


@pytest.mark.parametrize("hold", ["ab", "c"])
def test_a_symmetry_that_undoes_what_is_held_is_a_contradiction(hold):
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.set_constraint(FixSymmetry(atoms))
    result = Relaxer(functional="PBE", hold=hold).relax(atoms)
    assert result.status == "refused"
    assert "what is held of the cell is strained" in result.message
    before = atoms.cell.array.copy()
    target = FrechetCellFilter(atoms, mask=[0, 0, 1, 0, 0, 0])
    optimizer = DeepRelaxOptimizer(target, logfile=None, functional="PBE")
    assert not optimizer.run()
    assert optimizer.result.status == "refused"
    np.testing.assert_array_equal(atoms.cell.array, before)
