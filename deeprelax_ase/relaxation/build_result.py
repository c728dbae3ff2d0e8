"""Build the RelaxResult of one crystal: decide on its move, make it, attach its errors."""

import time
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from deeprelax_ase.relaxation.calibration import (
    Calibration,
    root_mean_square,
    system_uncertainty,
)
from deeprelax_ase.relaxation.foreign import CAREFUL
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.passes import Move, Relaxation
from deeprelax_ase.relaxation.result import Bonds, RelaxResult, Status
from deeprelax_ase.relaxation.sanity_checks import crushed_bond, reason_to_refuse, stretched_bond
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.crystal import exp_symmetric, log_symmetric, relaxed_lengths
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.structure_input import StructureInput

_STILL = 1e-10
"""What symmetry lets not move is moved by less (Å)."""
_NEARLY_CERTAIN = 0.95
_NOTED_STRAIN = 3e-3
"""Of a slab whose fixed atoms are to stay where they are in the plane."""


def build_result(
    entry: StructureInput,
    relaxation: Relaxation,
    predictor: Predictor,
    options: RelaxOptions,
    seconds: float,
) -> RelaxResult[Any]:
    """Decide whether to make the move, make it, and attach calibrated errors.

    Args:
        entry: The input.
        relaxation: What was predicted of it.
        predictor: The networks that predicted it, and their calibration.
        options: Of the relaxer.
        seconds: Time spent on the crystal in its batch.
    """
    started = time.perf_counter()
    prediction, lengths = relaxation.prediction, relaxation.lengths
    stays = _why_all_stays(entry, relaxation)
    expected_error = 0.0 if stays else relaxation.expected_error
    refusal = _refusal(entry, relaxation, predictor.config.cutoff)
    made = wrong = None
    crushed = relaxation.crushed
    if refusal is None and getattr(entry.source, "constraints", None):
        # They can make less of the move than was predicted, and it is that which is judged.
        made = _moved(entry, relaxation.move)
        if made["status"] == "relaxed":
            move = made["displacement"], exp_symmetric(made["strain"])
            pairs = prediction.edge_index, prediction.offsets
            lengths = relaxed_lengths(entry.crystal, *pairs, *move)
            known = prediction.edge_index, prediction.lengths, prediction.distances
            crushed = crushed_bond(entry.crystal.numbers, *known, lengths)
    if refusal is None and crushed is not None:
        wrong = Note("prediction_unsound", crushed)
    change = np.abs(lengths - prediction.lengths) if len(lengths) else np.full(1, np.nan)
    calibration = predictor.calibration
    gain = calibration.gain_probability(root_mean_square(change), expected_error)
    least_gain = least_gain_of(entry, options, calibration)
    doubt = None
    if gain < least_gain:
        text = (
            f"left as it was: a move of {change.mean():.3f} Å with an expected error of "
            f"{expected_error:.3f} Å is a gain with a probability of {gain:.2f}, and "
            f"{least_gain:g} is asked for"
        )
        doubt = Note("within_error", text)
    outcome = _decide(entry, relaxation, refusal, made, doubt, stays)
    if outcome["status"] == "relaxed":
        pulled = entry.adapter.force_from_outside(outcome["structure"])
        if pulled is not None:
            wrong = Note("force_from_outside", f"input kept: {pulled}")
        stretched = stretched_bond(
            entry.crystal.numbers, prediction.edge_index, prediction.lengths, lengths
        )
        if wrong is not None:
            outcome = _kept(entry, "refused", wrong)
        elif stretched is not None:
            outcome["notes"] = (*outcome["notes"], Note("bond_stretched", stretched))
    is_still = np.logical_not(entry.free.any(axis=1)) | bool(stays)
    freedom = entry.crystal.strain_freedom()
    return RelaxResult(
        **outcome,
        formula=entry.formula,
        num_atoms=len(entry.crystal),
        functional=entry.functional or options.functional,
        passes=relaxation.passes,
        expected_error=expected_error,
        gain_probability=gain,
        expected_gain=float(change.mean()) * (2 * gain - 1),
        uncertainty=system_uncertainty(prediction.distance_scales),
        error_signs=relaxation.signs,
        site_errors=calibration.displacement * prediction.displacement_scales * ~is_still,
        strain_error=calibration.strain * prediction.strain_scale if freedom.any() else 0.0,
        bonds=_bonds(entry, relaxation, lengths, predictor, is_still, freedom),
        seconds=seconds + time.perf_counter() - started,
        weights=predictor.weights,
    )


def least_gain_of(entry: StructureInput, options: RelaxOptions, calibration: Calibration) -> float:
    """Probability of a gain that a move needs."""
    if options.always_move:
        return 0.0
    if options.min_gain is not None:
        return options.min_gain
    is_careful = any(note.code == CAREFUL for note in entry.notes)
    return max(calibration.least_gain, _NEARLY_CERTAIN) if is_careful else calibration.least_gain


def _why_all_stays(entry: StructureInput, relaxation: Relaxation) -> str:
    """Why nothing of an input can move; nothing, if something can."""
    if entry.is_all_held:
        return "everything is held: nothing moves"
    crystal = entry.crystal
    is_cell_held = crystal.pbc.all() and not crystal.strain_freedom().any()
    is_still = len(relaxation.lengths) and np.abs(relaxation.move[0]).max() < _STILL
    if is_cell_held and is_still:
        return "nothing moves: the cell is held, and symmetry keeps every atom where it is"
    return ""


def _decide(
    entry: StructureInput,
    relaxation: Relaxation,
    refusal: Note | None,
    made: dict[str, Any] | None,
    doubt: Note | None,
    stays: str,
) -> dict[str, Any]:
    """Structure, status, notes and move of a result.

    Args:
        entry: The input.
        relaxation: What was predicted of it.
        refusal: Why the prediction is not to be used.
        made: What its constraints made of the move, if it has any.
        doubt: Why the move may well be no gain.
        stays: Why nothing can move; nothing, if something can.
    """
    if refusal is not None:
        return _kept(entry, "refused", refusal)
    if not len(relaxation.lengths):
        text = "nothing is near it, and nothing was predicted of it"
        return _kept(entry, "unchanged", Note("nothing_near", text))
    if stays:
        return _kept(entry, "unchanged", Note("all_held", stays))
    if doubt is not None and (made is None or made["status"] == "relaxed"):
        return _kept(entry, "unchanged", doubt)
    return made or _moved(entry, relaxation.move)


def _kept(entry: StructureInput, status: Status, why: Note) -> dict[str, Any]:
    """Structure, status, notes and move of an input that stays as it was."""
    return {
        "structure": entry.copy_of_source() if status == "unchanged" else entry.source,
        "status": status,
        "notes": (*entry.notes, why),
        "strain": np.zeros((3, 3)),
        "displacement": np.zeros((len(entry.crystal), 3)),
    }


def _moved(entry: StructureInput, move: Move) -> dict[str, Any]:
    """Structure, status, notes and move of an input that is relaxed, if its constraints hold."""
    displacement, deformation = move
    strain = log_symmetric(deformation)
    try:
        structure = entry.with_relaxed(displacement, deformation)
    except ValueError as error:  # some constraints are solved for
        text = f"input kept: its constraints cannot be obeyed ({error})"
        return _kept(entry, "refused", Note("constraints_contradict", text))
    broken = entry.broken_constraint(structure)
    is_constrained = bool(getattr(structure, "constraints", ()))
    if is_constrained:
        displacement, strain = entry.measure(structure)
        broken = broken or entry.broken_hold(strain)
    if broken is not None:
        text = f"input kept: its constraints contradict each other ({broken})"
        return _kept(entry, "refused", Note("constraints_contradict", text))
    if is_constrained:
        made = displacement, exp_symmetric(strain)
        reason = reason_to_refuse(entry.crystal, *made, SolveStatus.SOLVED)
        if reason is not None:
            return _kept(entry, "refused", Note("prediction_unsound", reason))
    notes, stale = entry.notes, entry.stale()
    fixed = np.count_nonzero(~entry.free.any(axis=1))
    if fixed and not entry.crystal.pbc.all():
        apart = np.abs(np.linalg.eigvalsh(strain)).max()
        text = (
            f"its {fixed} fixed atoms moved with the cell, which is strained by "
            f"{100 * apart:.1f} %: hold='cell' keeps it"
        )
        notes = (*notes, Note("fixed_atoms_strained", text)) if apart > _NOTED_STRAIN else notes
    if stale:
        text = f"dropped, being of the unrelaxed atoms: {', '.join(stale)}"
        notes = (*notes, Note("stale_dropped", text))
    return {
        "structure": structure,
        "status": "relaxed",
        "notes": notes,
        "strain": strain,
        "displacement": displacement,
    }


def _refusal(entry: StructureInput, relaxation: Relaxation, cutoff: float) -> Note | None:
    """Say why a prediction is not used, or None; `cutoff` (Å) is that of the network."""
    is_crystal = len(entry.crystal) > 1 and entry.repeats.any()
    if is_crystal and not relaxation.prediction.edge_index.size:
        text = f"input kept: no two atoms are within {cutoff:g} Å; is the cell in Å?"
        return Note("no_neighbors", text)
    reason = relaxation.refusal
    return None if reason is None else Note("prediction_unsound", reason)


def _bonds(
    entry: StructureInput,
    relaxation: Relaxation,
    lengths: Float[np.ndarray, " bonds"],
    predictor: Predictor,
    is_still: Bool[np.ndarray, " atoms"],
    freedom: Float[np.ndarray, "9 9"],
) -> Bonds:
    """Bonds of these lengths, between the cells of the input; what is held is known."""
    prediction, calibration = relaxation.prediction, predictor.calibration
    scales = calibration.bond_scales(prediction.distance_scales, relaxation.expected_error)
    first, second = prediction.edge_index
    is_fixed = (is_still[first] & is_still[second]) | (first == second)  # an atom and its image
    if is_fixed.any():  # no strain that is free may change the length
        crystal = entry.crystal
        vectors = crystal.positions[second] - crystal.positions[first]
        vectors = vectors + prediction.offsets @ crystal.cell
        outer = (vectors[:, :, None] * vectors[:, None, :]).reshape(-1, 9)
        change = np.linalg.norm(outer @ freedom, axis=1)
        is_same = change < _STILL * np.linalg.norm(outer, axis=1)
        scales = np.where(is_fixed & is_same, 0.0, scales)
    return Bonds(
        edge_index=prediction.edge_index,
        offsets=entry.between_cells(prediction.edge_index, prediction.offsets),
        lengths=lengths,
        uncertainties=calibration.distance * scales,
        intervals={share: factor * scales for share, factor in calibration.intervals.items()},
        distances=prediction.distances,
    )
