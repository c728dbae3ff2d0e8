"""Passes of a predictor that says what it is told to, without a network."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.relaxation.calibration import Calibration
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.passes import run_passes
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.result import WeightsName
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import relaxed_lengths
from deeprelax_ase.structures.read_structure import read_structure

UNSTRAINED = np.eye(3)
SHEAR = np.array([[1.02, 0.03, 0.0], [0.03, 0.98, 0.0], [0.0, 0.0, 1.0]])
TILT = np.array([[1.0, 0.0, 0.02], [0.0, 1.03, 0.0], [0.02, 0.0, 0.99]])


class Scripted(Predictor):
    """Predicts from a script for each crystal, one line a pass, and notes what it was asked.

    The functional says whose script it is: `f0`, `f1` and so on.
    """

    def __init__(self, *scripts, calibration=None):
        self.scripts = scripts
        self.calibration = calibration or Calibration()
        self.weights = WeightsName("scripted", "0" * 64)
        self.config = NetworkConfig(cutoff=6.0)
        self.asked = []

    def predict(self, crystals, functionals):
        self.asked.append((list(crystals), list(functionals)))
        answers = [self.scripts[int(name[1:])] for name in functionals]
        return [
            answer[sum(name in names for _, names in self.asked) - 1](crystal)
            for crystal, answer, name in zip(crystals, answers, functionals, strict=True)
        ]


def says(moves=0.0, deformation=UNSTRAINED, scale=0.1, misfit=0.0, status=SolveStatus.SOLVED):
    """A prediction of these moves, that misses its own distances by the misfit (Å)."""

    def predict(crystal):
        pairs = crystal.pairs_within(3.5)
        edge_index = np.stack([pairs.first, pairs.second])
        moved = np.zeros((len(crystal), 3)) + moves
        lengths = relaxed_lengths(crystal, edge_index, pairs.offsets, moved, deformation)
        return CrystalPrediction(
            displacements=moved,
            deformation=deformation,
            status=status,
            displacement_scales=np.full(len(crystal), 0.1),
            strain_scale=0.01,
            edge_index=edge_index,
            offsets=pairs.offsets,
            lengths=pairs.lengths,
            distances=lengths + misfit,
            distance_scales=np.full(len(lengths), scale),
        )

    return predict


def crystal():
    """Of no symmetry, so that moves are what was predicted."""
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.1, seed=4)
    return read_structure(atoms)


def run(predictor, *inputs, passes=5, keep_symmetry=True, least_gain=0.0):
    inputs = inputs or (crystal(),)
    names = [f"f{number}" for number in range(len(inputs))]
    gains = [least_gain] * len(inputs)
    return run_passes(
        inputs, names, predictor, passes, keep_symmetry=keep_symmetry, least_gains=gains
    )


def moves(seed, count=8, size=0.05):
    random = np.random.default_rng(seed).normal(scale=size, size=(count, 3))
    return random - random.mean(axis=0)


def distances(of_crystal):
    return np.sort(of_crystal.pairs_within(3.0).lengths)


def test_two_passes_are_one_move():
    """The composed move leads where the two lead one after the other, but for a rotation."""
    entry, first, second = crystal(), (moves(0), SHEAR), (moves(1), TILT)
    (result,) = run(Scripted([says(*first), says(*second)]), entry, passes=2)
    assert result.passes == 2
    there = entry.crystal.moved(*first).moved(*second)
    found = entry.crystal.moved(*result.move)
    np.testing.assert_allclose(distances(found), distances(there), atol=1e-9)
    np.testing.assert_allclose(found.cell @ found.cell.T, there.cell @ there.cell.T, atol=1e-9)
    np.testing.assert_allclose(result.move.deformation, result.move.deformation.T)
    # Lengths are those of the pairs of the first prediction, which is the calibrated one.
    pairs = result.prediction.edge_index, result.prediction.offsets
    expected = relaxed_lengths(entry.crystal, *pairs, *result.move)
    np.testing.assert_allclose(result.lengths, expected)


def test_each_pass_starts_where_the_one_before_ended():
    predictor = Scripted([says(moves(0), SHEAR), says(moves(1), TILT), says(moves(2))])
    entry = crystal()
    run(predictor, entry, passes=2)
    (((given,), _), ((moved,), _)) = predictor.asked
    np.testing.assert_array_equal(given.positions, entry.crystal.positions)
    expected = entry.crystal.moved(moves(0), SHEAR)
    np.testing.assert_allclose(moved.positions, expected.positions)
    np.testing.assert_allclose(moved.cell, expected.cell)


@pytest.mark.parametrize(("size", "passes"), [(0.01, 1), (0.3, 2)])
def test_a_further_pass_has_to_be_probably_a_gain(size, passes):
    """Passes that each move by less than their error would carry off what is relaxed already."""
    calibration = Calibration(crystal=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    says_twice = [says(moves(0), scale=0.1), says(moves(1, size=size), scale=0.08)]
    predictor = Scripted(says_twice, calibration=calibration)
    (result,) = run(predictor, passes=2, least_gain=0.65)
    assert result.passes == passes
    (always,) = run(Scripted(says_twice, calibration=calibration), passes=2)
    assert always.passes == 2


def test_what_the_first_pass_leaves_the_others_leave():
    says_twice = [says(moves(0, size=0.001), scale=0.1), says(moves(1, size=0.2), scale=0.1)]
    calibration = Calibration(crystal=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    for least_gain, passes in ((0.65, 1), (0.0, 2)):
        predictor = Scripted(says_twice, calibration=calibration)
        assert run(predictor, passes=2, least_gain=least_gain)[0].passes == passes


def test_a_misfit_is_part_of_the_expected_error():
    """What does not fit together is not all right, whatever the network's own scales say."""
    calibration = Calibration(crystal=(0.5, 0.0, 0.1, 0.1, 0.3, 0.0))
    well, badly = (
        run(Scripted([says(moves(0), misfit=misfit)], calibration=calibration), passes=1)[0]
        for misfit in (0.0, 0.2)
    )
    assert badly.expected_error == pytest.approx(well.expected_error * 201**0.3)


@pytest.mark.parametrize(
    ("second", "passes"),
    [
        (says(moves(1)), 2),
        (says(moves(1), scale=0.104), 2),
        (says(moves(1), scale=0.106), 1),  # a larger error is expected
        (says(moves(1, size=1e-5)), 1),  # nothing moves any more
        (says(moves(1, size=1e-3)), 2),
        (says(moves(1), status=SolveStatus.NOT_FINITE), 1),
        (says(deformation=3 * np.eye(3)), 1),
    ],
)
def test_a_pass_is_made_only_where_it_is_worth_it(second, passes):
    (result,) = run(Scripted([says(moves(0)), second]), passes=2)
    assert result.passes == passes
    assert result.refusal is None
    assert result.expected_error == pytest.approx(0.1)
    if passes == 1:
        np.testing.assert_allclose(result.move.displacements, moves(0))
        np.testing.assert_allclose(result.move.deformation, np.eye(3))


@pytest.mark.parametrize(("closer", "passes"), [(0.85, 2), (0.999, 1)])
def test_layers_go_on_closing_once_they_are_neighbours(closer, passes):
    """No pair of the first pass is between them, and a larger error is expected of the second."""
    entry = read_structure(Atoms("Cu", cell=[3, 3, 4.6], pbc=True))
    calibration = Calibration(crystal=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    first = says(deformation=np.diag([1.03, 0.97, 0.74]), scale=0.03)
    second = says(deformation=np.diag([1.0, 1.0, closer]), scale=0.04)
    predictor = Scripted([first, second], calibration=calibration)
    (result,) = run(predictor, entry, passes=2, keep_symmetry=False)
    assert not result.prediction.offsets[:, 2].any()
    assert result.passes == passes
    assert result.move.deformation[2, 2] == pytest.approx(0.74 * (closer if passes > 1 else 1))


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (says(moves(0), status=SolveStatus.NOT_FINITE), "not finite"),
        (says(deformation=3 * np.eye(3)), "volume would change by a factor of 27"),
        (says(moves(0) + np.eye(8, 3) * 4.5), "an atom would move by"),
    ],
)
def test_an_unsound_first_pass_is_the_last(first, words):
    (result,) = run(Scripted([first]))
    assert words in result.refusal
    assert result.passes == 1


def test_a_prediction_that_puts_atoms_on_each_other_is_refused():
    """Also where the solve did not see it, because the pair is none of its edges."""
    entry = read_structure(Atoms("MgO", [[0, 0, 0], [0, 0, 2.1]], cell=[3, 3, 4.2], pbc=True))
    refusals = [
        run(Scripted([says([[0, 0, z], [0, 0, -z]])]), entry, passes=1, keep_symmetry=False)[
            0
        ].refusal
        for z in (0.79, 0.81)
    ]
    assert refusals[0] is None
    assert "nearer than 0.5 Å" in refusals[1]


def test_crystals_of_a_batch_stop_each_by_itself():
    """What goes on keeps its own functional, and its own place among the results."""
    go_on = [says(moves(seed)) for seed in range(4)]
    broken = [says(moves(0), status=SolveStatus.NOT_FINITE)]
    still = [says(moves(0)), says()]
    predictor = Scripted(go_on, broken, still, go_on)
    entries = [crystal(), crystal(), crystal(), crystal()]
    results = run(predictor, *entries, passes=4)
    assert [result.passes for result in results] == [4, 1, 1, 4]
    assert [names for _, names in predictor.asked] == [
        ["f0", "f1", "f2", "f3"],
        ["f0", "f2", "f3"],
        ["f0", "f3"],
        ["f0", "f3"],
    ]


def test_cell_and_atoms_are_made_symmetric():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    entry, stretch = read_structure(atoms), np.diag([1.04, 1.0, 0.99])
    predictor = Scripted([says(moves(0), stretch)])
    (kept,) = run(predictor, entry, passes=1)
    np.testing.assert_allclose(kept.move.deformation, kept.move.deformation[0, 0] * np.eye(3))
    assert kept.move.deformation[0, 0] == pytest.approx(1.01, abs=1e-3)
    apart = kept.move.displacements - kept.move.displacements[0]
    np.testing.assert_allclose(apart, 0, atol=1e-9)
    predictor.asked.clear()
    (free,) = run(predictor, entry, passes=1, keep_symmetry=False)
    np.testing.assert_allclose(free.move.deformation, stretch)
    np.testing.assert_allclose(free.move.displacements, moves(0))


def test_what_is_held_stays_in_every_pass():
    atoms = crystal().source
    atoms.set_constraint(FixAtoms([0, 5]))
    entry = read_structure(atoms)
    entry = replace(entry, crystal=replace(entry.crystal, held_strain=np.eye(9)[[0]]))
    (result,) = run(Scripted([says(moves(0), SHEAR), says(moves(1), TILT)]), entry, passes=2)
    assert result.passes == 2
    np.testing.assert_allclose(result.move.displacements[[0, 5]], 0, atol=1e-12)
    assert np.abs(result.move.displacements[1]).max() > 1e-3
    values, axes = np.linalg.eigh(result.move.deformation)
    assert ((axes * np.log(values)) @ axes.T)[0, 0] == pytest.approx(0, abs=1e-12)


def test_a_crystal_without_pairs_is_moved_once():
    far = read_structure(Atoms("MgO", [[0, 0, 0], [0, 0, 4.5]], cell=[9, 9, 9], pbc=True))
    (result,) = run(Scripted([says(), says()]), far)
    assert result.passes == 1
    assert np.isnan(result.expected_error)
