"""Predict, move and predict again: the passes of a relaxation, composed into one move.

After each pass the displacement and the strain since the input are composed, averaged over the
space group of the input, and freed of what is held. The next pass starts there. A crystal stops
where a pass moves nothing any more, where its prediction fails a check, where the network expects a
larger error after it than before, or where a gain is not probable enough: else passes would carry
off what is relaxed already, each by less than its error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import polar

from deeprelax_ase.relaxation.bonds_to_hydrogen import with_bonds_to_hydrogen
from deeprelax_ase.relaxation.calibration import (
    Calibration,
    crystal_signs,
    root_mean_square,
)
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.sanity_checks import crushed_bond, reason_to_refuse
from deeprelax_ase.structures.crystal import relaxed_lengths
from deeprelax_ase.structures.structure_input import StructureInput

_NOTHING = 1e-4
"""A pass after the first that changes the bonds by less (root mean square, Å) is the last."""
_WORSE = 1.05
"""A pass after which this many times the error is expected is not made."""
_EVEN = 0.5
"""Probability of a gain that a pass after the first needs."""
_SURE = 0.9
"""The same of a pass that may expect a larger error than the one before, by pairs of its own.

The first pass knows no pairs between layers that are far apart, so that by its pairs nothing
changes where they come together. Chosen on validation: 0.8 costs slabs three points.
"""


class Move(NamedTuple):
    """A move since the input.

    Attributes:
        displacements: Å, in the frame of the input cell.
        deformation: Symmetric.
    """

    displacements: Float[np.ndarray, "atoms 3"]
    deformation: Float[np.ndarray, "3 3"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What the passes made of one input.

    Attributes:
        prediction: Of the first pass, whose scales are calibrated.
        move: Since the input, symmetrised, without what is held.
        lengths: Of the pairs of the prediction after the move, Å.
        signs: `crystal_signs` of the first pass.
        expected_error: Of these lengths, Å: after the first pass, or a later one that expects more.
        last_expected_error: What the last pass expects, Å. It is too sure of what it made itself.
        last_change: Root mean square change by the last pass of the lengths of its own pairs, Å.
        refusal: Why the prediction of the first pass is not to be used, or None.
        crushed: Why a bond is crushed, or None.
        passes: How many were made.
    """

    prediction: CrystalPrediction
    move: Move
    lengths: Float[np.ndarray, " bonds"]
    signs: Float[np.ndarray, " signs"]
    expected_error: float
    last_expected_error: float
    last_change: float
    refusal: str | None
    crushed: str | None
    passes: int


def run_passes(
    inputs: Sequence[StructureInput],
    functionals: Sequence[str],
    predictor: Predictor,
    passes: int,
    *,
    keep_symmetry: bool,
    least_gains: Sequence[float],
) -> list[Relaxation]:
    """Relax a batch of inputs.

    Args:
        inputs: The crystals.
        functionals: To relax each to.
        predictor: The networks.
        passes: At most so many.
        keep_symmetry: Average each move over the space group of its input.
        least_gains: Probability of a gain that a move of each needs. What the first pass would
            leave as it was, the others leave alone.
    """
    calibration = predictor.calibration
    results: list[Relaxation | None] = [None] * len(inputs)
    active = list(range(len(inputs)))
    for number in range(passes):
        if number == 1:
            active = [k for k in active if _is_begun(results[k], calibration, least_gains[k])]
        if not active:
            break
        crystals = [
            inputs[k].crystal if before is None else inputs[k].crystal.moved(*before.move)
            for k, before in ((k, results[k]) for k in active)
        ]
        predictions = predictor.predict(crystals, [functionals[k] for k in active])
        going_on = []
        for k, prediction in zip(active, predictions, strict=True):
            before = results[k]
            after = _add_pass(inputs[k], before, prediction, predictor, keep_symmetry)
            if before is not None and _is_no_gain(before, after, calibration, least_gains[k]):
                continue
            if before is not None and _is_worse(before, after):
                error = max(before.expected_error, after.last_expected_error)
                after = replace(after, expected_error=error)
            results[k] = after
            going_on.append(k)
        active = going_on
    return [result for result in results if result is not None]


def _add_pass(
    entry: StructureInput,
    before: Relaxation | None,
    prediction: CrystalPrediction,
    predictor: Predictor,
    keep_symmetry: bool,
) -> Relaxation:
    move = _composed(before, prediction)
    if (entry.crystal.numbers == 1).any():
        longer = with_bonds_to_hydrogen(entry.crystal, prediction, *move, _loose(entry))
        move = Move(longer, move.deformation)
    if keep_symmetry:
        move = Move(*entry.symmetrise(*move))
    move = Move(entry.hold_still(move.displacements), entry.hold_strain(move.deformation))
    crystal, status = entry.crystal, prediction.status
    own = relaxed_lengths(crystal, prediction.edge_index, prediction.offsets, *move)
    own_signs = _signs(prediction, own)
    own_error = predictor.calibration.expected_error(prediction.distance_scales, own_signs)
    if before is None:
        first, lengths, signs, expected_error = prediction, own, own_signs, own_error
    else:
        first, signs, expected_error = before.prediction, before.signs, before.expected_error
        lengths = relaxed_lengths(crystal, first.edge_index, first.offsets, *move)
    nearest = float(first.lengths.min()) if len(first.lengths) else 0.0
    return Relaxation(
        first,
        move,
        lengths,
        signs,
        expected_error,
        own_error,
        root_mean_square(own - prediction.lengths) if len(own) else 0.0,
        reason_to_refuse(crystal, *move, status, nearest),
        crushed_bond(crystal.numbers, first.edge_index, first.lengths, first.distances, lengths),
        1 if before is None else before.passes + 1,
    )


def _loose(entry: StructureInput) -> Bool[np.ndarray, " atoms"]:
    """Which atoms may move along all directions."""
    loose: np.ndarray = np.array(entry.free.all(axis=1))
    loose[entry.adapter.fixed_directions(entry.source)[0]] = False
    return loose


def _composed(before: Relaxation | None, prediction: CrystalPrediction) -> Move:
    """The moves so far and a new one as one, without the rotation that is of no account."""
    if before is None:
        return Move(prediction.displacements, prediction.deformation)
    first = before.move
    back = np.linalg.inv(first.deformation)
    displacements = first.displacements + prediction.displacements @ back
    _, deformation = polar(first.deformation @ prediction.deformation, side="left")
    return Move(displacements, (deformation + deformation.T) / 2)


def _is_begun(first: Relaxation | None, calibration: Calibration, least_gain: float) -> bool:
    """Whether the first pass made a move that others can go on from."""
    if first is None or first.refusal is not None or not len(first.lengths):
        return False
    change = root_mean_square(first.lengths - first.prediction.lengths)
    return calibration.gain_probability(change, first.expected_error) >= least_gain


def _is_worse(before: Relaxation, after: Relaxation) -> bool:
    return after.last_expected_error > _WORSE * before.last_expected_error


def _is_no_gain(
    before: Relaxation, after: Relaxation, calibration: Calibration, least_gain: float
) -> bool:
    """Whether a pass after the first is not worth making."""
    if after.refusal is not None or (after.crushed and not before.crushed):
        return True
    if calibration.gain_probability(after.last_change, after.last_expected_error) >= _SURE:
        return False
    if _is_worse(before, after):
        return True
    change = root_mean_square(after.lengths - before.lengths)
    gain = calibration.gain_probability(change, after.last_expected_error)
    return change < _NOTHING or gain < min(_EVEN, least_gain)


def _signs(
    prediction: CrystalPrediction, lengths: Float[np.ndarray, " bonds"]
) -> Float[np.ndarray, " signs"]:
    """What tells of the errors of the lengths of the bonds; nothing where there are none."""
    if not len(lengths):
        return np.zeros(0)
    scales = prediction.distance_scales, prediction.displacement_scales, prediction.strain_scale
    return crystal_signs(*scales, lengths - prediction.distances)
