"""What a user is told of a prediction, without a network: moves are those of a script."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixBondLengths
from test_passes import SHEAR, Scripted, moves, says

from deeprelax_ase.relaxation.build_result import build_result
from deeprelax_ase.relaxation.calibration import Calibration
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.passes import run_passes
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import relaxed_lengths
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.read_structure import read_structure

SURE = Calibration(distance=1e-6)


def rattled():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.1, seed=4)
    return atoms


def relax(atoms, prediction, calibration=SURE, seconds=0.0, held=None, **options):
    entry = read_structure(atoms, held=held or Held())
    predictor = Scripted([prediction], calibration=calibration)
    (relaxation,) = run_passes(
        [entry], ["f0"], predictor, 1, keep_symmetry=True, least_gains=[0.65]
    )
    return build_result(entry, relaxation, predictor, RelaxOptions(**options), seconds)


def codes(result):
    return [note.code for note in result.notes]


def test_the_move_is_made_and_measured():
    atoms = rattled()
    result = relax(atoms, says(moves(0), SHEAR), seconds=2.0)
    assert (result.status, result.notes, result.passes) == ("relaxed", (), 1)
    np.testing.assert_allclose(result.structure.cell, atoms.cell[:] @ SHEAR)
    np.testing.assert_allclose(result.structure.positions, (atoms.positions + moves(0)) @ SHEAR)
    np.testing.assert_allclose(result.displacement, moves(0))
    values, axes = np.linalg.eigh(result.strain)
    np.testing.assert_allclose((axes * np.exp(values)) @ axes.T, SHEAR)
    assert 2.0 < result.seconds < 3.0
    assert result.weights.name == "scripted"
    assert (result.formula, result.num_atoms) == ("MgO", 8)


def test_errors_are_calibrated():
    """Scales are 0.1 Å of atoms and bonds, and 0.01 of the strain."""
    calibration = Calibration(
        displacement=2.0, distance=0.5, strain=3.0, intervals={0.5: 4.0}, gain=(1.0, 9.0)
    )
    result = relax(rattled(), says(moves(0), SHEAR), calibration)
    np.testing.assert_allclose(result.site_errors, 0.2)
    assert result.strain_error == pytest.approx(0.03)
    np.testing.assert_allclose(result.bonds.uncertainties, 0.05)
    np.testing.assert_allclose(result.bonds.intervals[0.5], 0.4)
    assert result.uncertainty == pytest.approx(0.1)
    assert result.expected_error == pytest.approx(0.05)


def test_the_gain_is_that_of_the_change_of_the_bonds():
    """Its probability goes by the root of the mean square, its size by the mean."""
    calibration = Calibration(gain=(1.0, 0.2), least_gain=0.0)
    result = relax(rattled(), says(moves(0), SHEAR), calibration)
    crystal = read_structure(rattled()).crystal
    old = relaxed_lengths(
        crystal, result.bonds.edge_index, result.bonds.offsets, np.zeros((8, 3)), np.eye(3)
    )
    change = np.abs(result.bonds.lengths - old)
    odds = (np.sqrt((change**2).mean()) + 0.001) / 0.101 * np.exp(0.2)
    assert result.gain_probability == pytest.approx(odds / (1 + odds))
    assert result.expected_gain == pytest.approx(change.mean() * (odds - 1) / (odds + 1))
    assert result.status == "relaxed"
    told = relax(rattled(), says(moves(0), SHEAR), calibration, min_gain=1).message
    assert f"a move of {change.mean():.3f} Å with an expected error of 0.100 Å" in told


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, "unchanged"),
        ({"min_gain": 0.29}, "relaxed"),
        ({"min_gain": 0.31}, "unchanged"),
        ({"always_move": True}, "relaxed"),
        ({"always_move": True, "min_gain": 1.0}, "relaxed"),
    ],
)
def test_a_move_is_made_where_a_gain_is_as_probable_as_is_asked(options, status):
    """Of these weights a gain has a probability of 0.3, and they ask for 0.4."""
    doubtful = Calibration(gain=(0.0, float(np.log(0.3 / 0.7))), least_gain=0.4)
    atoms = rattled()
    result = relax(atoms, says(moves(0), SHEAR), doubtful, **options)
    assert result.status == status
    assert result.gain_probability == pytest.approx(0.3)
    if status == "unchanged":
        assert codes(result) == ["within_error"]
        assert result.structure == atoms
        assert result.structure is not atoms
        assert not result.displacement.any()
        assert not result.strain.any()
        # What was predicted is told all the same.
        assert result.expected_gain < 0
        assert np.abs(result.bonds.lengths - result.bonds.distances).max() < 1e-9


def test_weights_say_what_is_asked_for():
    likely = Calibration(gain=(0.0, float(np.log(0.3 / 0.7))), least_gain=0.2)
    assert relax(rattled(), says(moves(0)), likely).status == "relaxed"


@pytest.mark.parametrize(
    "prediction", [says(moves(0), status=SolveStatus.NOT_FINITE), says(deformation=3 * np.eye(3))]
)
@pytest.mark.parametrize("options", [{}, {"always_move": True}, {"min_gain": 0.0}])
def test_an_unsound_prediction_is_never_used(prediction, options):
    atoms = rattled()
    result = relax(atoms, prediction, **options)
    assert (result.status, codes(result)) == ("refused", ["prediction_unsound"])
    assert result.structure is atoms
    assert not result.displacement.any()
    assert not result.strain.any()


def test_what_is_all_held_stays():
    hold = Held.of("cell,positions")
    for doubtful in (SURE, Calibration(least_gain=1.0)):
        result = relax(rattled(), says(moves(0), SHEAR), doubtful, held=hold)
        assert (result.status, codes(result)) == ("unchanged", ["all_held"])
        assert result.structure == rattled()


@pytest.mark.parametrize(
    ("pbc", "status"),
    [(True, "refused"), ((True, True, False), "refused"), (False, "unchanged")],
)
def test_a_periodic_input_without_neighbours_is_refused(pbc, status):
    """A molecule may be as thin as it likes, and has nothing to gain or to lose."""
    atoms = Atoms("MgO", [[0, 0, 0], [0, 0, 4.5]], cell=[7, 7, 9], pbc=pbc)
    result = relax(atoms, says())
    assert result.status == status
    assert ("no_neighbors" in codes(result)) == (status == "refused")
    for value in (result.expected_error, result.gain_probability, result.expected_gain):
        assert np.isnan(value)
    assert len(result.bonds.lengths) == 0


def test_what_constraints_leave_of_a_move_is_what_is_told():
    """Bonds too are those of the atoms as they are, and not as they were to be."""
    atoms = rattled()
    atoms.set_constraint([FixAtoms([0]), FixBondLength(1, 2)])
    result = relax(atoms, says(moves(0), SHEAR))
    assert result.status == "relaxed"
    i, j = result.bonds.edge_index
    places, cell = result.structure.positions, result.structure.cell[:]
    vectors = places[j] + result.bonds.offsets @ cell - places[i]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), result.bonds.lengths)
    assert np.abs(result.bonds.lengths - result.bonds.distances).max() > 1e-3


def test_numbers_of_the_old_geometry_are_dropped_and_named():
    atoms = rattled()
    atoms.info["energy"] = -1.0
    result = relax(atoms, says(moves(0)))
    assert codes(result) == ["stale_dropped"]
    assert "energy" not in result.structure.info
    assert atoms.info == {"energy": -1.0}


def test_a_move_that_constraints_contradict_is_not_made_but_told():
    atoms = rattled()
    atoms.set_constraint([FixAtoms([0, 2]), FixBondLengths([[0, 1], [1, 2]])])
    result = relax(atoms, says(moves(0), SHEAR))
    assert (result.status, codes(result)) == ("refused", ["constraints_contradict"])
    assert result.structure is atoms
    assert not result.displacement.any()
    moved = relax(rattled(), says(), always_move=True).bonds.lengths - result.bonds.lengths
    assert np.abs(moved).max() > 1e-2
