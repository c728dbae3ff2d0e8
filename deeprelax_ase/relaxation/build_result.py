"""Build the RelaxResult of one crystal: symmetrise the move, decide on it, attach its errors."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from deeprelax_ase.relaxation.calibration import crystal_signs, system_uncertainty
from deeprelax_ase.relaxation.inference import CrystalPrediction, Predictor
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.result import Bonds, RelaxResult, Status
from deeprelax_ase.relaxation.sanity_checks import reason_to_refuse
from deeprelax_ase.structures.crystal import exp_symmetric, log_symmetric, relaxed_lengths
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.structure_input import StructureInput

_Move = tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]
"""Displacements, Å, and deformation."""


def build_result(
    entry: StructureInput,
    part: CrystalPrediction,
    predictor: Predictor,
    options: RelaxOptions,
    seconds: float,
) -> RelaxResult[Any]:
    """Symmetrise the move, decide whether to make it, and attach calibrated errors.

    Args:
        entry: The input.
        part: What was predicted of it.
        predictor: The networks that predicted it, and their calibration.
        options: Of the relaxer.
        seconds: Time spent on the crystal in its batch.
    """
    started = time.perf_counter()
    move = _allowed_move(entry, part, keep_symmetry=options.keep_symmetry)
    lengths = relaxed_lengths(entry.crystal, part.edge_index, part.offsets, *move)
    expected_error = _expected_error(part, lengths, predictor)
    change = float(np.sqrt(np.mean((lengths - part.lengths) ** 2))) if len(lengths) else 0.0
    is_noise = not options.always_move and predictor.calibration.is_within_error(
        change, expected_error
    )
    refusal = _refusal(entry, part, move, predictor.config.cutoff)
    if refusal is None and entry.is_all_held:
        outcome = _kept(entry, "unchanged", Note("all_held", "everything is held: nothing moves"))
    elif refusal is not None:
        outcome = _kept(entry, "refused", refusal)
    elif is_noise:
        text = (
            f"left as it was: the expected error, {expected_error:.3f} Å, is too large for a move "
            f"of {change:.3f} Å"
        )
        outcome = _kept(entry, "unchanged", Note("within_error", text))
    else:
        outcome = _moved(entry, move)
        made = outcome["displacement"], exp_symmetric(outcome["strain"])
        if outcome["status"] == "relaxed" and getattr(entry.source, "constraints", ()):
            lengths = relaxed_lengths(entry.crystal, part.edge_index, part.offsets, *made)
    return RelaxResult(
        **outcome,
        formula=entry.formula,
        num_atoms=len(entry.crystal),
        expected_error=expected_error,
        uncertainty=system_uncertainty(part.distance_scales),
        site_errors=predictor.calibration.displacement * part.displacement_scales,
        strain_error=predictor.calibration.strain * part.strain_scale,
        bonds=_bonds(entry, part, lengths, expected_error, predictor),
        seconds=seconds + time.perf_counter() - started,
        weights=predictor.weights,
    )


def _allowed_move(entry: StructureInput, part: CrystalPrediction, *, keep_symmetry: bool) -> _Move:
    """The predicted move, as symmetric as the input, without what is held."""
    displacement, deformation = part.displacements, part.deformation
    if keep_symmetry:
        displacement, deformation = entry.symmetrise(displacement, deformation)
    return entry.hold_still(displacement), entry.hold_strain(deformation)


def _kept(entry: StructureInput, status: Status, why: Note) -> dict[str, Any]:
    """Structure, status, notes and move of an input that stays as it was."""
    return {
        "structure": entry.copy_of_source() if status == "unchanged" else entry.source,
        "status": status,
        "notes": (*entry.notes, why),
        "strain": np.zeros((3, 3)),
        "displacement": np.zeros((len(entry.crystal), 3)),
    }


def _moved(entry: StructureInput, move: _Move) -> dict[str, Any]:
    """Structure, status, notes and move of an input that is relaxed, if its constraints hold."""
    displacement, deformation = move
    structure = entry.with_relaxed(displacement, deformation)
    broken = entry.broken_constraint(structure)
    if broken is not None:
        text = f"input kept: its constraints contradict each other ({broken})"
        return _kept(entry, "refused", Note("constraints_contradict", text))
    strain = log_symmetric(deformation)
    if getattr(structure, "constraints", ()):
        displacement, strain = entry.measure(structure)
    notes, stale = entry.notes, entry.stale()
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


def _refusal(
    entry: StructureInput, part: CrystalPrediction, move: _Move, cutoff: float
) -> Note | None:
    """Say why a prediction is not used, or None; `cutoff` (Å) is that of the network."""
    if not part.edge_index.size and entry.crystal.pbc.any():
        text = f"input kept: no two atoms are within {cutoff:g} Å; is the cell in Å?"
        return Note("no_neighbors", text)
    nearest = float(part.lengths.min()) if len(part.lengths) else 0.0
    reason = reason_to_refuse(entry.crystal, *move, part.status, nearest)
    return None if reason is None else Note("prediction_unsound", reason)


def _expected_error(
    part: CrystalPrediction, lengths: Float[np.ndarray, " bonds"], predictor: Predictor
) -> float:
    """Expected mean error of the bond lengths, Å."""
    if not len(lengths):
        return 0.0
    scales = part.distance_scales, part.displacement_scales, part.strain_scale
    signs = crystal_signs(*scales, lengths - part.distances)
    return predictor.calibration.expected_error(part.distance_scales, signs)


def _bonds(
    entry: StructureInput,
    part: CrystalPrediction,
    lengths: Float[np.ndarray, " bonds"],
    expected_error: float,
    predictor: Predictor,
) -> Bonds:
    """Bonds of these lengths, between the cells of the input."""
    calibration = predictor.calibration
    scales = calibration.bond_scales(part.distance_scales, expected_error)
    return Bonds(
        edge_index=part.edge_index,
        offsets=entry.between_cells(part.edge_index, part.offsets),
        lengths=lengths,
        uncertainties=calibration.distance * scales,
        intervals={share: factor * scales for share, factor in calibration.intervals.items()},
        distances=part.distances,
    )
