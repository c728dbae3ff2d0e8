"""Fit expected errors and intervals on validation data, and store them with the weights."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.evaluation.evaluate import Evaluation, evaluate
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.relaxation.calibration import (
    Calibration,
    fit_crystal,
    fit_factor,
    fit_gain,
    fit_intervals,
    fit_powers,
    gain_sign,
)
from deeprelax_ase.relaxation.inference import load_replicates

_ENOUGH_CRYSTALS = 100


def calibrate(
    path: Path,
    files: Sequence[Path],
    limit: int | None = None,
    *,
    ensemble: bool = False,
    least_gain: float | None = None,
) -> Calibration:
    """Fit what makes expected errors of scales, on validation data, and store it with the weights.

    Args:
        path: Weights file; it is replaced by one that differs in its calibration alone.
        files: Files of pairs, of as many kinds of crystals as there are. The probability of a gain
            is fitted on their inputs, and on points nearly at their targets.
        limit: At most so many crystals of each.
        ensemble: Calibrate the ensemble of the weights and their replicates; what is stored for
            the weights alone stays.
        least_gain: Of `Calibration`, chosen and not fitted; stays as it was if None.

    Raises:
        ValueError: No such weights or replicates, a file that cannot be evaluated, or too few
            crystals.
    """
    if not Path(path).is_file():
        msg = f"no file {path}: name the weights file to calibrate, not shipped weights"
        raise ValueError(msg)
    if least_gain is not None and not 0 <= least_gain <= 1:
        msg = f"least_gain is {least_gain}: it has to be a probability, from 0 to 1"
        raise ValueError(msg)
    stored = load_weights(path)
    replicates = load_replicates(path) if ensemble else [stored]
    plain = [replace(weights, calibration={}) for weights in replicates]
    evaluations = [evaluate(file, plain, limit=limit, always_move=True) for file in files]
    # Lengths that are known, since all that they depend on is held, have neither scale nor error.
    free = [[values > 0 for values in entry.bond_scales] for entry in evaluations]
    errors = [_of(entry.bond_errors, one) for entry, one in zip(evaluations, free, strict=True)]
    scales = [_of(entry.bond_scales, one) for entry, one in zip(evaluations, free, strict=True)]
    for file, values in zip(files, errors, strict=True):
        if not len(values):
            msg = f"{file}: not a single bond to calibrate on"
            raise ValueError(msg)
    crystal_errors, signs = zip(*map(errors_and_signs, evaluations), strict=True)
    _check_count(sum(map(len, crystal_errors)), signs[0].shape[1] + 1, limit)
    crystal = fit_crystal(crystal_errors, signs)
    own = Calibration(crystal=crystal)
    nearly = [evaluate(file, plain, limit=limit, nearly=True, always_move=True) for file in files]
    runs = [*evaluations, *nearly]
    of_crystals = [expected_errors(entry, own) for entry in runs]
    gains = list(map(signs_of_gain, runs, of_crystals))
    expected = [
        np.repeat(known, [int(chosen.sum()) for chosen in one if len(chosen)])
        for one, known in zip(free, of_crystals[: len(free)], strict=True)
    ]
    power, crystal_power = fit_powers(errors, scales, expected)
    powers = Calibration(power=power, crystal_power=crystal_power)
    scales = [powers.bond_scales(*values) for values in zip(scales, expected, strict=True)]
    kept = dict(stored.calibration)
    before = Calibration.from_metadata(kept.get("ensemble", kept) if ensemble else kept)
    calibration = Calibration(
        gain=fit_gain(gains),
        least_gain=before.least_gain if least_gain is None else least_gain,
        displacement=fit_factor(
            _means([entry.errors.displacement for entry in evaluations]),
            _means([entry.expected_displacement for entry in evaluations]),
            before.displacement,
        ),
        distance=fit_factor(_means(errors), _means(scales), before.distance),
        power=power,
        crystal_power=crystal_power,
        strain=fit_factor(
            _means([entry.strain_errors for entry in evaluations]),
            _means([entry.expected_strain for entry in evaluations]),
            before.strain,
        ),
        crystal=crystal,
        intervals=fit_intervals(errors, scales),
    )
    fitted = asdict(calibration)
    kept |= {"ensemble": fitted} if ensemble else fitted
    save_weights(path, stored.network, stored.provenance, kept)
    return calibration


def _check_count(crystals: int, numbers: int, limit: int | None) -> None:
    """Refuse fewer crystals than numbers fitted to them, and warn where they are few."""
    if crystals <= numbers:
        msg = (
            f"{crystals} crystals with bonds are too few to fit {numbers} numbers to: give some "
            f"hundreds{'' if limit is None else ', or leave out the limit'}"
        )
        raise ValueError(msg)
    if crystals < _ENOUGH_CRYSTALS:
        warnings.warn(
            f"calibrated on {crystals} crystals: expected errors need some hundreds to be trusted",
            stacklevel=3,
        )


def errors_and_signs(
    entry: Evaluation,
) -> tuple[Float[np.ndarray, " crystals"], Float[np.ndarray, "crystals signs"]]:
    """Mean error of the bonds of each crystal that has some, and what tells of it, uncalibrated."""
    known = [place for place, errors in enumerate(entry.bond_errors) if len(errors)]
    signs = np.array([entry.signs[place] for place in known])
    return np.array([entry.bond_errors[place].mean() for place in known]), signs


def expected_errors(entry: Evaluation, calibration: Calibration) -> Float[np.ndarray, " crystals"]:
    """Expected error of each crystal that has bonds, Å, of an evaluation without a calibration."""
    scales = [scales for scales in entry.bond_scales if len(scales)]
    return np.array(list(map(calibration.expected_error, scales, errors_and_signs(entry)[1])))


def signs_of_gain(
    entry: Evaluation, expected: Float[np.ndarray, " crystals"]
) -> tuple[Float[np.ndarray, " moved"], Bool[np.ndarray, " moved"]]:
    """`gain_sign` of each crystal that would be moved, and whether the move gained.

    Args:
        entry: Made without a calibration, with every move.
        expected: Its `expected_errors`, Å.
    """
    known = np.array([len(errors) > 0 for errors in entry.bond_errors])
    changes, gained = entry.changes[known], entry.gained[known]
    signs = gain_sign(changes, expected)
    return signs[changes > 0], gained[changes > 0]


def _of(
    values: Sequence[Float[np.ndarray, " _"]], chosen: Sequence[Bool[np.ndarray, " _"]]
) -> Float[np.ndarray, " chosen"]:
    """Those of the values of crystals that are chosen, in one."""
    return np.concatenate([entry[which] for entry, which in zip(values, chosen, strict=True)])


def _means(sets: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " sets"]:
    return np.array([np.nanmean(values) for values in sets])
