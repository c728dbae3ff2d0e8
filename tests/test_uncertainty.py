import numpy as np
import pytest

from deeprelax_ase.evaluation.tables import _flagged, _spearman
from deeprelax_ase.relaxation.calibration import (
    COVERAGES,
    Calibration,
    combine,
    crystal_signs,
    fit_crystal,
    fit_gain,
    fit_intervals,
    fit_powers,
    system_uncertainty,
)


def test_replicates_that_agree_leave_the_data_uncertainty_alone():
    values, scales = np.array([2.0, 3.0]), np.array([0.1, 0.2])
    mean, uncertainty = combine([values, values], [scales, scales])
    np.testing.assert_allclose(mean, values)
    np.testing.assert_allclose(uncertainty, scales)


def test_disagreement_adds_to_the_uncertainty():
    """Eq. 21-23: |d_t - mean d| of every replicate, here averaged."""
    _, uncertainty = combine([np.array([2.0]), np.array([2.4])], [np.array([0.1])] * 2)
    np.testing.assert_allclose(uncertainty, [0.1 + 0.2])
    vectors = [np.array([[0.3, 0.4, 0.0]]), -np.array([[0.3, 0.4, 0.0]])]
    mean, uncertainty = combine(vectors, [np.array([0.1])] * 2)
    np.testing.assert_allclose(mean, 0)
    np.testing.assert_allclose(uncertainty, [0.6])


def test_a_gain_is_more_probable_the_larger_the_move_is_over_its_expected_error():
    known = Calibration.from_metadata({"gain": [2.0, 1.0], "least_gain": 0.9})
    assert known.least_gain == 0.9
    assert known.gain_probability(0.1, 0.1) == pytest.approx(1 / (1 + np.exp(-1.0)))
    for calibration in (known, Calibration()):
        said = [calibration.gain_probability(change, 0.1) for change in (0.0, 1e-6, 0.02, 0.1, 1.0)]
        assert said == sorted(said)
        assert said[0] == 0.0
        assert said[-1] > 0.95


def test_the_probability_of_a_gain_is_what_was_seen():
    """What was put in comes out, and a small set counts as much as a large one."""
    rng = np.random.default_rng(0)
    signs = [rng.normal(0, 1.5, size=count) for count in (40_000, 4_000)]
    gained = [rng.random(len(s)) < 1 / (1 + np.exp(-(1.5 * s + 0.7))) for s in signs]
    np.testing.assert_allclose(
        fit_gain(list(zip(signs, gained, strict=True))), (1.5, 0.7), atol=0.1
    )
    split = [(signs[0], np.full(40_000, fill_value=True)), (signs[1], np.zeros(4_000, dtype=bool))]
    slope, constant = fit_gain(split)
    assert abs(slope) < 0.1
    assert abs(constant) < 0.1
    # Nothing but gains is no certainty, and nothing at all leaves what there was.
    certain = fit_gain([(np.zeros(50), np.full(50, fill_value=True))])
    assert all(np.isfinite(certain))
    assert fit_gain([(np.zeros(0), np.zeros(0, dtype=bool))]) == Calibration.gain


def test_system_uncertainty_is_the_mean_over_bonds():
    assert system_uncertainty(np.array([0.1, 0.3])) == pytest.approx(0.2)
    assert np.isnan(system_uncertainty(np.zeros(0)))


def test_intervals_of_laplace_errors_are_those_of_laplace():
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.05, 0.3, size=200_000)
    errors = np.abs(rng.laplace(scale=scales))
    # A small set of another kind counts as much as the large one.
    found = fit_intervals([errors], [scales])
    for share, factor in Calibration().intervals.items():
        assert found[share] == pytest.approx(factor, rel=0.02)
    mixed = fit_intervals([errors, 10 * errors[:1000]], [scales, scales[:1000]])
    assert mixed[0.9] > 2 * found[0.9]


def test_powers_are_found_whatever_the_sizes_of_the_sets():
    rng = np.random.default_rng(0)
    scales = [rng.uniform(0.02, 0.05, size=50_000), rng.uniform(0.2, 0.5, size=4_000)]
    expected = [rng.uniform(0.02, 0.05, size=50_000), rng.uniform(0.2, 0.5, size=4_000)]
    errors = [
        np.abs(rng.laplace(scale=0.8 * s**0.5 * c**0.7))
        for s, c in zip(scales, expected, strict=True)
    ]
    assert fit_powers(errors, scales, expected) == (0.5, pytest.approx(0.7, abs=0.03))
    assert fit_powers(errors[:1], scales[:1], expected[:1]) == (1, 0)


def test_bonds_of_a_crystal_that_is_little_known_are_less_certain():
    calibration = Calibration(power=0.5, crystal_power=0.5)
    scales = np.array([0.04, 0.16])
    np.testing.assert_allclose(calibration.bond_scales(scales, 0.09), [0.06, 0.12])
    np.testing.assert_allclose(Calibration().bond_scales(scales, 0.09), scales)


def test_errors_of_crystals_are_fitted_set_by_set():
    """Sets count by the root of their size, and what was put in comes out: factors, mean error."""
    rng = np.random.default_rng(0)
    factors = np.array([0.6, 0.2, 0.1, 0.0, 0.3, 0.5])
    signs = [rng.normal(-2, 0.5, size=(count, 5)) for count in (40_000, 400)]
    errors = [np.exp(rows @ factors[:5] + 0.5 + rng.normal(0, 0.1, len(rows))) for rows in signs]
    fitted = fit_crystal(errors, signs)
    np.testing.assert_allclose(fitted[:5], factors[:5], atol=0.05)
    expected = [np.exp(rows @ fitted[:5] + fitted[5]) for rows in signs]
    roots = [len(e) ** 0.5 for e in errors]
    assert np.average([e.mean() for e in expected], weights=roots) == pytest.approx(
        np.average([e.mean() for e in errors], weights=roots), rel=1e-6
    )


def test_a_prediction_that_does_not_fit_together_is_less_certain():
    scales = np.array([0.1, 0.2]), np.array([0.1]), 0.02
    calibration = Calibration(crystal=(0.5, 0.2, 0.1, 0.1, 0.2, 0.0))
    well, badly = (
        calibration.expected_error(scales[0], crystal_signs(*scales, np.full(2, misfit)))
        for misfit in (0.01, 0.3)
    )
    assert badly > 1.5 * well
    plain = Calibration().expected_error(scales[0], crystal_signs(*scales, np.zeros(2)))
    assert plain == pytest.approx(0.15)
    assert np.isnan(calibration.expected_error(np.zeros(0), np.zeros(5)))


def test_calibration_survives_its_metadata():
    calibration = Calibration(1.2, 1.3, 1.1, 0.2, 1.4, (0.5, 0.1), {0.5: 0.6, 0.8: 1.5, 0.9: 2.4})
    metadata = {
        "displacement": 1.2,
        "distance": 1.3,
        "power": 1.1,
        "crystal_power": 0.2,
        "strain": 1.4,
        "crystal": [0.5, 0.1],
        "intervals": {"0.5": 0.6, "0.8": 1.5, "0.9": 2.4},
        "ensemble": {},
    }
    assert Calibration.from_metadata(metadata) == calibration
    assert tuple(Calibration.from_metadata({"distance": 2.0}).intervals) == COVERAGES


def test_flagging_finds_the_worst():
    actual = np.arange(100.0)
    assert _flagged(actual, actual) == 100
    assert _flagged(-actual, actual) == 0
    half = np.where(actual >= 98, -1.0, actual)  # two of the five worst pass for certain
    assert _flagged(half, actual) == pytest.approx(60)
    assert _spearman(actual**3, actual) == pytest.approx(1)
    assert np.isnan(_spearman(np.ones(100), actual))
