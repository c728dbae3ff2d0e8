"""Uncertainty of bonds and crystals (Sec. 4.7), and what turns it into an expected error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

COVERAGES = (0.5, 0.8, 0.9)
"""Shares of bond lengths for which an interval is calibrated."""
_LEAST_ERROR = 1e-3
"""Å. Smaller errors are no more alike or different than this."""
_SCALE_POWER = 0.5
_LITTLE = 1e-4
"""What keeps the odds of a gain finite where every move gained."""
_CRYSTAL_POWERS = np.round(np.arange(0.0, 1.2, 0.01), 2)


@dataclass(frozen=True)
class Calibration:
    """Factors fitted on validation data, stored with the weights.

    Attributes:
        displacement: Mean error of displacements over their mean predicted scale.
        distance: The same for lengths of bonds, with `bond_scales` in place of predicted ones.
        power: Of the scale of a bond in these.
        crystal_power: Of the expected error of its crystal in these. A network is surer than it
            should be of crystals it knows least: it saw in training what it is uncertain of.
        strain: As `displacement`, of the strain.
        crystal: What the logarithm of the mean error of the bond lengths of a crystal is made of:
            factors of `crystal_signs`, and a constant. The mean over its bonds until it is fitted.
        intervals: For each coverage, half the width of the interval of a bond over its scale in
            `bond_scales`; those of a Laplace distribution until they are fitted.
        gain: Slope and constant of the log-odds that a move brings the bonds nearer to their
            relaxed lengths, over the logarithm of the move over its expected error.
        least_gain: A crystal is moved if that probability is at least this. It is not fitted but
            chosen, so that crystals that are relaxed already stay where they are and the others
            lose little.
    """

    displacement: float = 1.0
    distance: float = 1.0
    power: float = 1.0
    crystal_power: float = 0.0
    strain: float = 1.0
    crystal: tuple[float, ...] = ()
    intervals: Mapping[float, float] = field(
        default_factory=lambda: {share: -float(np.log1p(-share)) for share in COVERAGES}
    )
    gain: tuple[float, float] = (1.3, 1.3)
    least_gain: float = 0.65

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Calibration":
        """Read what a weights file says; what it does not say stays as it is by default."""
        names = ("displacement", "distance", "power", "crystal_power", "strain", "least_gain")
        known: dict[str, Any] = {k: float(metadata[k]) for k in names if k in metadata}
        if "gain" in metadata:
            slope, constant = metadata["gain"]
            known["gain"] = float(slope), float(constant)
        given = metadata.get("intervals", {})
        intervals = {float(share): float(factor) for share, factor in given.items()}
        crystal = tuple(float(factor) for factor in metadata.get("crystal", ()))
        calibration = cls(**known, crystal=crystal)
        return replace(calibration, intervals=intervals) if intervals else calibration

    def expected_error(
        self, scales: Float[np.ndarray, " bonds"], signs: Float[np.ndarray, " signs"]
    ) -> float:
        """Expected mean error of the bond lengths of a crystal, Å.

        Args:
            scales: Laplace scale of every bond, Å.
            signs: `crystal_signs` of the crystal.
        """
        if not self.crystal or not len(scales):
            return system_uncertainty(self.distance * scales**self.power)
        *factors, constant = self.crystal
        return float(np.exp(np.dot(factors, signs) + constant))

    def gain_probability(self, change: float, expected_error: float) -> float:
        """Probability that a move ends nearer to the relaxed structure than it began.

        Args:
            change: Root mean square change of the lengths of the bonds, in which a few that change
                much count, Å.
            expected_error: Mean expected error of the lengths, Å.

        Returns:
            0 for a move of nothing.
        """
        if not change:
            return 0.0
        slope, constant = self.gain
        return float(expit(slope * gain_sign(change, expected_error) + constant))

    def bond_scales(
        self,
        scales: Float[np.ndarray, " bonds"],
        expected_error: float | Float[np.ndarray, " bonds"],
    ) -> Float[np.ndarray, " bonds"]:
        """What errors of bonds are proportional to, from their Laplace scales and their crystal."""
        mixed: Float[np.ndarray, " bonds"] = scales**self.power * expected_error**self.crystal_power
        return mixed


def combine(
    values: Sequence[Float[np.ndarray, "items ..."]],
    scales: Sequence[Float[np.ndarray, " items"]],
) -> tuple[Float[np.ndarray, "items ..."], Float[np.ndarray, " items"]]:
    """Mean of what replicates predict, and its uncertainty (Eq. 21-23).

    The uncertainty is the scale that the data leave, plus the distance of a replicate from the
    mean of all. Both are averaged over the replicates, where the paper sums: so they stay in Å.

    Args:
        values: Of each replicate.
        scales: Laplace scale of each value.
    """
    mean = np.mean(values, axis=0)
    apart = np.abs(np.array(values) - mean)
    if apart.ndim > 2:  # noqa: PLR2004 - vectors or matrices, not numbers
        apart = np.linalg.norm(apart.reshape(*apart.shape[:2], -1), axis=2)
    return mean, np.mean(scales, axis=0) + apart.mean(axis=0)


def system_uncertainty(bond_uncertainties: Float[np.ndarray, " bonds"]) -> float:
    """Mean over the bonds, Å (Eq. 24); unknown for a crystal without bonds."""
    return _mean(bond_uncertainties) if len(bond_uncertainties) else math.nan


def crystal_signs(
    distance_scales: Float[np.ndarray, " bonds"],
    displacement_scales: Float[np.ndarray, " atoms"],
    strain_scale: float,
    misfits: Float[np.ndarray, " bonds"],
) -> Float[np.ndarray, " signs"]:
    """What tells how wrong a prediction may be: five logarithms.

    Args:
        distance_scales: Laplace scale of every bond length, Å; there is one at least.
        displacement_scales: Of every displacement, Å.
        strain_scale: Of the strain.
        misfits: Solved less predicted length of every bond, Å: where what was predicted of bonds,
            atoms and lattice does not fit together, not all of it is right.
    """
    return np.array(
        [
            math.log(_mean(distance_scales)),
            _mean(np.log(distance_scales)),
            math.log(_mean(displacement_scales)),
            math.log(strain_scale),
            math.log(_mean(np.abs(misfits)) + _LEAST_ERROR),
        ]
    )


def _mean(values: Float[np.ndarray, " values"]) -> float:
    """As `values.mean()`, in a third of its time."""
    return float(np.add.reduce(values)) / len(values)


def root_mean_square(changes: Float[np.ndarray, " bonds"]) -> float:
    """Of changes of bonds, Å: what a gain is judged by."""
    return float(np.sqrt(np.mean(changes**2)))


def gain_sign(
    change: float | Float[np.ndarray, " crystals"],
    expected_error: float | Float[np.ndarray, " crystals"],
) -> Any:
    """What tells whether a move is worth making: the logarithm of it over its expected error."""
    return np.log((change + _LEAST_ERROR) / (expected_error + _LEAST_ERROR))


def fit_gain(
    sets: Sequence[tuple[Float[np.ndarray, " _"], Bool[np.ndarray, " _"]]],
) -> tuple[float, float]:
    """Slope and constant of the log-odds of a gain, by maximum likelihood; sets count the same.

    Args:
        sets: `gain_sign` of each crystal, and whether its move ended nearer to the target than it
            began.
    """
    from scipy.optimize import minimize

    filled = [(signs, gained) for signs, gained in sets if len(signs)]
    if not filled:
        return Calibration.gain
    sign, gain = (np.concatenate(column) for column in zip(*filled, strict=True))
    weights = _set_weights([signs for signs, _ in filled])

    def loss(line: Float[np.ndarray, "2"]) -> float:
        odds = line[0] * sign + line[1]
        lost = np.logaddexp(0, np.where(gain, -odds, odds))
        return float(np.average(lost, weights=weights)) + _LITTLE * float(line @ line)

    slope, constant = minimize(loss, np.array(Calibration.gain), method="BFGS").x.tolist()
    return slope, constant


def fit_factor(
    errors: Float[np.ndarray, " sets"], scales: Float[np.ndarray, " sets"], before: float
) -> float:
    """The factor that makes the mean of the scales the mean of the errors.

    Args:
        errors: Mean of each set.
        scales: The same of the scales; 0 where what they are of is held, and tells nothing.
        before: What it is where all of them are held.
    """
    told = scales > 0
    return float(errors[told].mean() / scales[told].mean()) if told.any() else before


def fit_crystal(
    errors: Sequence[Float[np.ndarray, " _"]], signs: Sequence[Float[np.ndarray, "_ signs"]]
) -> tuple[float, ...]:
    """Factors of the signs of crystals, and a constant, that give their mean errors.

    The logarithm of the error is fitted, and then its mean; a set counts by the square root of the
    number of its crystals, which is nearest to the errors of kinds that were left out of a fit.

    Args:
        errors: Mean error of the bond lengths of each crystal, by set, Å.
        signs: `crystal_signs` of each.
    """
    design = np.concatenate([np.c_[rows, np.ones(len(rows))] for rows in signs])
    weights = _set_weights(signs, -0.25)
    logs = np.log(np.concatenate(errors) + _LEAST_ERROR)
    fitted = np.linalg.lstsq(design * weights[:, None], logs * weights, rcond=None)[0]
    expected = np.exp(design @ fitted)
    means = np.average(np.concatenate(errors), weights=weights**2)
    fitted[-1] += np.log(means / np.average(expected, weights=weights**2))
    return tuple(fitted.tolist())


def fit_powers(
    errors: Sequence[Float[np.ndarray, " _"]],
    scales: Sequence[Float[np.ndarray, " _"]],
    expected: Sequence[Float[np.ndarray, " _"]],
) -> tuple[float, float]:
    """Powers of the scales and of the crystals' errors with which one interval covers all alike.

    Args:
        errors: Of the bonds of each set.
        scales: Laplace scale of each error.
        expected: Expected error of the crystal of each.

    Returns:
        The square root of the scale, which ranks bonds best, and that power of the crystal's
        expected error with which the widest calibrated intervals of the sets, as multiples of the
        two, differ least; 1 and 0 for a single set.
    """
    if len(errors) == 1:
        return 1.0, 0.0

    def spread(power: float) -> float:
        widths = [
            np.quantile(e / (s**_SCALE_POWER * c**power), max(COVERAGES))
            for e, s, c in zip(errors, scales, expected, strict=True)
        ]
        return float(np.std(np.log(widths)))

    return _SCALE_POWER, float(min(_CRYSTAL_POWERS, key=spread))


def fit_intervals(
    errors: Sequence[Float[np.ndarray, " _"]], scales: Sequence[Float[np.ndarray, " _"]]
) -> dict[float, float]:
    """Factors of the scales that cover the shares of errors; every set counts the same.

    Args:
        errors: Of each set.
        scales: Laplace scale of each error.
    """
    ratios = np.concatenate([e / s for e, s in zip(errors, scales, strict=True)])
    weights = _set_weights(errors)
    order = np.argsort(ratios)
    shares = np.cumsum(weights[order]) / weights.sum()
    return {share: float(np.interp(share, shares, ratios[order])) for share in COVERAGES}


def _set_weights(sets: Sequence[np.ndarray], power: float = -1.0) -> Float[np.ndarray, " items"]:
    """A weight for each item of each set: a power of their number; -1: all sets count alike."""
    return np.concatenate([np.full(len(items), float(len(items)) ** power) for items in sets])
