"""Inputs that mean the same relax alike, however they are written; results are coherent."""

import json
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, fcc111, mx2
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixedPlane, FixScaled
from ase.filters import FrechetCellFilter
from pymatgen.core import Lattice, Structure

from deeprelax_ase import DeepRelaxBFGS, DeepRelaxOptimizer, DeepRelaxTransformation, Relaxer
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.relaxation.options import RelaxOptions


def volumes(structures, **options):
    relaxer = Relaxer(**options)
    return [relaxer.relax(structure).volume_change for structure in structures]


@pytest.mark.parametrize("hold", ["shape", "positions", "shape,positions"])
@pytest.mark.parametrize(
    "crystal",
    [bulk("Cu", a=3.8), bulk("MgO", "rocksalt", a=4.4), bulk("NaCl", "rocksalt", a=5.9)],
    ids=str,
)
def test_what_symmetry_holds_already_changes_nothing(crystal, hold):
    free = Relaxer(always_move=True).relax(crystal)
    held = Relaxer(always_move=True, hold=hold).relax(crystal)
    assert held.volume_change == pytest.approx(free.volume_change, abs=1e-5)
    assert held.gain_probability == pytest.approx(free.gain_probability, abs=1e-5)


@pytest.mark.parametrize("rotation", [0, 20])
def test_a_filter_that_holds_nothing_changes_no_weights(rotation):
    sheet = mx2("MoS2", a=3.4, vacuum=10)
    sheet.pbc = True
    sheet.rotate(rotation, "z", rotate_cell=True)
    results = []
    for mask in ([1] * 6, [1, 1, 0, 0, 0, 1]):
        optimizer = DeepRelaxOptimizer(
            FrechetCellFilter(sheet.copy(), mask=mask), functional="optB88-vdW", logfile=None
        )
        optimizer.run()
        results.append(optimizer.result)
    assert results[0].weights == results[1].weights
    assert results[0].volume_change == pytest.approx(results[1].volume_change, abs=1e-5)
    assert Relaxer(functional="optB88-vdW", hold="c").relax(sheet).weights == results[0].weights


@pytest.mark.parametrize("functional", ["PBE", "optB88-vdW"])
def test_fixed_images_of_one_atom_say_only_where_the_sheet_stands(functional):
    sheet = mx2("MoS2", a=3.3, vacuum=10)
    sheet.set_constraint(FixAtoms([0]))
    one, *more = volumes([sheet * size for size in ((1, 1, 1), (2, 1, 1), (2, 2, 1))],
                         functional=functional)  # fmt: skip
    assert more == pytest.approx([one] * 2, abs=1e-5)


def test_several_fixed_atoms_hold_each_other():
    slab = fcc100("Al", (1, 1, 4), a=4.1, vacuum=8)
    slab.set_constraint(FixAtoms([0, 1]))
    relaxed = Relaxer(relax_cell=False, always_move=True).relax(slab * (2, 2, 1)).structure
    apart = relaxed.positions - (slab * (2, 2, 1)).positions
    assert not apart[[0, 1, 4, 5]].any()
    assert np.abs(apart).max() > 1e-3


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.1])
def test_a_gap_of_round_numbers_is_vacuum_wherever_the_slab_stands(shift):
    slab, sheet = fcc111("Cu", (1, 1, 4), a=3.75, vacuum=4.0), mx2("MoS2", a=3.4, vacuum=7.0)
    for atoms in (slab, sheet):
        atoms.pbc = True
        atoms.positions[:, 2] += shift
    assert Relaxer().relax(slab).structure.cell[2, 2] == slab.cell[2, 2]
    assert Relaxer(functional="optB88-vdW").relax(sheet).structure.cell[2, 2] == sheet.cell[2, 2]


@pytest.mark.parametrize("lean", [(0.0, 0.0), (0.5, 0.3), (1.0, 0.0)])
def test_a_vector_across_vacuum_is_held_without_holding_the_plane(lean):
    slab = fcc111("Cu", (1, 1, 4), a=3.75, vacuum=8)
    slab.pbc = True
    upright = Relaxer(always_move=True).relax(slab).volume_change
    cell = slab.cell.array.copy()
    cell[2] += lean @ cell[:2]
    slab.set_cell(cell)
    result = Relaxer(hold="c", always_move=True).relax(slab)
    assert result.volume_change == pytest.approx(upright, abs=1e-5)
    assert np.abs(result.structure.cell[2] - cell[2]).max() < 1e-10


def test_the_shape_of_a_slab_that_was_cut_anew_is_that_of_its_plane():
    slab = fcc111("Cu", (1, 1, 4), a=3.75, vacuum=8)
    slab.pbc = True
    again = slab.copy()
    again.set_cell(np.array([[1, 0, 0], [0, 1, 3], [0, 0, 1]]) @ slab.cell.array)
    one, other = volumes([slab, again], hold="shape", always_move=True)
    assert other == pytest.approx(one, abs=1e-5)
    assert abs(one) > 0.01


def test_a_constraint_that_puts_atoms_onto_each_other_is_refused():
    crystal = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    crystal.set_constraint(FixBondLengths([[0, 1]], bondlengths=[0.3]))
    result = Relaxer().relax(crystal)
    assert result.status == "refused"
    assert result.structure is crystal


def test_the_same_constraint_written_in_two_ways_is_judged_alike():
    results = []
    for constraint in (FixedLine(12, (0, 0, 1)), FixScaled([12], (True, True, False))):
        slab = fcc100("Cu", (2, 2, 3), a=3.63, vacuum=8)
        add_adsorbate(slab, "O", 1.2, "ontop")
        slab.pbc = True
        slab.positions[-1, :2] += [0.5, 0.3]
        slab.set_constraint([FixAtoms(range(12)), constraint])
        results.append(Relaxer(relax_cell=False).relax(slab))
    one, other = results
    assert one.status == other.status
    assert one.gain_probability == pytest.approx(other.gain_probability, abs=1e-2)


@pytest.mark.parametrize(
    "constraints",
    [
        [FixedPlane(range(8), (0, 0, 1)), FixedLine(range(8), (0, 0, 1))],
        [FixCartesian(range(8), (1, 1, 0)), FixCartesian(range(8), (0, 0, 1))],
    ],
    ids=["plane and line", "components"],
)
def test_constraints_that_hold_everything_together_move_nothing(constraints):
    crystal = bulk("MgO", "rocksalt", a=4.3, cubic=True)
    crystal.rattle(0.1, seed=2)
    crystal.set_constraint(constraints)
    result = Relaxer(relax_cell=False).relax(crystal)
    assert result.status == "unchanged"
    assert result.expected_gain == pytest.approx(0.0, abs=1e-6)


def test_a_gain_is_of_the_move_that_constraints_leave():
    slab = fcc100("Cu", (2, 2, 3), a=3.63, vacuum=8)
    slab.rattle(0.1, seed=3)
    slab.pbc = True
    slab.set_constraint(FixedLine(range(12), (0, 0, 1)))
    result = Relaxer(relax_cell=False, always_move=True).relax(slab)
    bonds = result.bonds
    i, j = bonds.edge_index
    vectors = slab.positions[j] + bonds.offsets @ slab.cell.array - slab.positions[i]
    change = np.abs(bonds.lengths - np.linalg.norm(vectors, axis=1)).mean()
    assert abs(result.expected_gain) <= change + 1e-9


def test_what_is_held_has_no_error():
    crystal = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.set_constraint(FixAtoms(range(6)))
    result = Relaxer(hold="cell").relax(crystal)
    assert not result.site_errors[:6].any()
    assert result.site_errors[6:].all()
    assert result.strain_error == 0.0
    still = (result.bonds.edge_index < 6).all(axis=0)
    assert not result.bonds.uncertainties[still].any()
    assert result.bonds.uncertainties[~still].all()
    assert not result.bonds.intervals[0.9][still].any()
    assert Relaxer().relax(crystal).strain_error > 0


def test_nothing_is_known_of_the_uncertainty_of_a_lone_atom():
    result = Relaxer().relax(Atoms("Ar", cell=[20] * 3, pbc=True))
    assert np.isnan(result.uncertainty)
    assert result.facts()["uncertainty"] is None
    box = Structure(Lattice.cubic(20), ["Ar"], [[0, 0, 0]])
    annotated = DeepRelaxTransformation(annotate=True).apply_transformation(box)
    json.dumps(annotated.as_dict(), allow_nan=False)


def test_a_generator_may_use_one_object_again_and_again():
    lattices = (3.55, 3.62, 3.64)

    def scan():
        atoms = bulk("Cu", a=3.6)
        for a in lattices:
            atoms.set_cell(bulk("Cu", a=a).cell, scale_atoms=True)
            atoms.info["a"] = a
            yield atoms

    results = list(Relaxer().relax_many(scan()))
    assert [result.structure.info["a"] for result in results] == list(lattices)
    for result, a in zip(results, lattices, strict=True):
        alone = Relaxer().relax(bulk("Cu", a=a))
        assert result.structure.get_volume() == pytest.approx(alone.structure.get_volume(), 1e-5)


class NeverThere:
    """A constraint as ASE's manual asks for it: two methods, one of which fails here."""

    def adjust_positions(self, _atoms, _positions):
        msg = "did not converge"
        raise ValueError(msg)

    def adjust_forces(self, _atoms, _forces):
        pass


class Nothing(NeverThere):
    """One that holds nothing."""

    def adjust_positions(self, _atoms, _positions):
        pass


def test_constraints_of_users():
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=5)
    copper.calc = EMT()
    copper.set_constraint(NeverThere())
    result = Relaxer(relax_cell=False, always_move=True).relax(copper)
    assert result.status == "refused"
    assert "did not converge" in result.message
    copper.set_constraint(Nothing())
    assert DeepRelaxBFGS(copper, logfile=None).run(fmax=0.1, steps=50)


def test_a_constraint_on_no_atom_is_named():
    crystal = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    crystal.set_constraint(FixedPlane(50, (0, 0, 1)))
    with pytest.raises(ValueError, match="none of the 8"):
        Relaxer().relax(crystal)


def test_options_are_plain_values():
    options = RelaxOptions(passes=np.int64(2), min_gain=np.float32(0.5), relax_cell=np.True_)
    assert [type(v) for v in (options.passes, options.min_gain, options.relax_cell)] == [
        int, float, bool,
    ]  # fmt: skip
    transformation = DeepRelaxTransformation(passes=np.int64(2), min_gain=np.float32(0.5))
    json.dumps(transformation.as_dict())


def test_weights_that_are_loaded():
    weights = load_weights("default")
    atoms = bulk("MgO", "rocksalt", a=4.4)
    assert DeepRelaxOptimizer(atoms, model=[weights], logfile=None).run()


def test_results_of_an_earlier_calculation_are_no_calculator():
    atoms = bulk("Cu", a=3.7)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    before = atoms.cell.array.copy()
    with pytest.raises(ValueError, match="no calculator that finds them"):
        DeepRelaxBFGS(FrechetCellFilter(atoms), logfile=None).run()
    assert (atoms.cell.array == before).all()


def test_settings_and_labels_stay():
    atoms = bulk("MgO", "rocksalt", a=4.5)
    kept = {"force_field": "UFF", "energy_cutoff": 520, "dipole_correction": True, "volume_id": 7}
    atoms.info.update(kept, energy=-3.0)
    DeepRelaxOptimizer(atoms, logfile=None).run()
    assert atoms.info == kept


def test_spglib_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        Relaxer().relax(bulk("Cu", a=3.8))


@pytest.mark.parametrize("lean", [7, 60, 200])
def test_skewed_cells_are_those_of_the_same_lattice(lean):
    crystal = bulk("MgO", "rocksalt", a=4.4)
    sheet = mx2("MoS2", a=3.3, vacuum=8.0)
    for atoms, periodic in ((crystal, True), (sheet, [True, True, False])):
        atoms.pbc = periodic
        skewed = atoms.copy()
        skewed.set_cell(np.array([[1, 0, 0], [lean, 1, 0], [0, 0, 1]]) @ atoms.cell)
        straight, result = (Relaxer(always_move=True).relax(one) for one in (atoms, skewed))
        np.testing.assert_allclose(result.strain, straight.strain, atol=1e-6)
        np.testing.assert_allclose(result.displacement, straight.displacement, atol=1e-6)
        lengths = lengths_before(result, skewed), lengths_before(straight, atoms)
        np.testing.assert_allclose(*lengths, atol=1e-6)


def lengths_before(result, atoms):
    i, j = result.bonds.edge_index
    there = atoms.positions[j] + result.bonds.offsets @ np.array(atoms.cell)
    return np.sort(np.linalg.norm(there - atoms.positions[i], axis=1))
