"""What is told of one crystal: the move as it is made, whether it is, and what to expect of it."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from deeprelax_ase.relaxation.calibration import crystal_signs, system_uncertainty
from deeprelax_ase.relaxation.inference import Part, Predictor
from deeprelax_ase.relaxation.result import Bonds, RelaxResult, Status
from deeprelax_ase.relaxation.sanity_checks import reason_to_refuse
from deeprelax_ase.structures.crystal import log_symmetric, relaxed_lengths
from deeprelax_ase.structures.read_structure import StructureInput
from deeprelax_ase.structures.symmetry import find_space_group, symmetrise

_Move = tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]
"""Displacements, Å, and deformation."""


def make_result(
    entry: StructureInput,
    part: Part,
    predictor: Predictor,
    *,
    relax_cell: bool,
    keep_symmetry: bool,
    always_move: bool,
    seconds: float,
) -> RelaxResult:
    """The result of one crystal.

    Args:
        entry: The input.
        part: What was predicted of it.
        predictor: Where that is from.
        relax_cell: Whether the cell may change.
        keep_symmetry: As of `Relaxer`.
        always_move: As of `Relaxer`.
        seconds: What was spent on it in its batch.
    """
    started = time.perf_counter()
    move = _move(entry, part, relax_cell=relax_cell, keep_symmetry=keep_symmetry)
    lengths = relaxed_lengths(entry.crystal, part.edge_index, part.offsets, *move)
    expected_error = _expected_error(part, lengths, predictor)
    bonds = _bonds(entry, part, lengths, expected_error, predictor)
    reason = _reason_to_refuse(entry, part, move, predictor.config.cutoff)
    change = float(np.sqrt(np.mean((lengths - part.lengths) ** 2))) if len(lengths) else 0.0
    is_noise = not always_move and predictor.calibration.is_within_error(change, expected_error)
    if reason is not None:
        outcome = _kept(entry, "refused", reason)
    elif is_noise:
        note = (
            f"left as it was: the expected error, {expected_error:.3f} Å, is too large for a move "
            f"of {change:.3f} Å"
        )
        outcome = _kept(entry, "relaxed", note)
    else:
        outcome = _moved(entry, move)
    return RelaxResult(
        *outcome,
        formula=entry.formula,
        num_atoms=len(entry.crystal),
        expected_error=expected_error,
        uncertainty=system_uncertainty(part.distance_scales),
        site_errors=predictor.calibration.displacement * part.displacement_scales,
        strain_error=predictor.calibration.strain * part.strain_scale,
        bonds=bonds,
        seconds=seconds + time.perf_counter() - started,
        weights=predictor.weights,
    )


def _move(entry: StructureInput, part: Part, *, relax_cell: bool, keep_symmetry: bool) -> _Move:
    """What was predicted, as symmetric as the input, without what is held."""
    displacement, deformation = part.displacements, part.deformation
    group = find_space_group(entry.crystal) if keep_symmetry else None
    if group is not None:
        displacement, symmetric = symmetrise(entry.crystal, group, displacement, deformation)
        # A cell that is to stay stays to the last digit.
        deformation = symmetric if relax_cell else deformation
    return entry.hold_still(displacement), deformation


_Outcome = tuple[Any, Status, str, Float[np.ndarray, "3 3"], Float[np.ndarray, "atoms 3"]]
"""Structure, status, message, strain and displacement of a result."""


def _kept(entry: StructureInput, status: Status, why: str) -> _Outcome:
    """The input as it was."""
    unmoved = np.zeros((3, 3)), np.zeros((len(entry.crystal), 3))
    kept = entry.copy_of_source() if status == "relaxed" else entry.source
    return kept, status, "; ".join((*entry.notes, why)), *unmoved


def _moved(entry: StructureInput, move: _Move) -> _Outcome:
    displacement, deformation = move
    structure = entry.with_relaxed(displacement, deformation)
    strain = log_symmetric(deformation)
    if getattr(structure, "constraints", ()):
        displacement, strain = entry.measure(structure)
    return structure, "relaxed", "; ".join(entry.notes), strain, displacement


def _reason_to_refuse(entry: StructureInput, part: Part, move: _Move, cutoff: float) -> str | None:
    """Why the input of a prediction is kept, or None; `cutoff` (Å) is that of the network."""
    if not part.edge_index.size and entry.crystal.pbc.any():
        return f"input kept: no two atoms are within {cutoff:g} Å; is the cell in Å?"
    nearest = float(part.lengths.min()) if len(part.lengths) else 0.0
    return reason_to_refuse(entry.crystal, *move, part.status, nearest)


def _expected_error(
    part: Part, lengths: Float[np.ndarray, " bonds"], predictor: Predictor
) -> float:
    """Expected mean error of the bond lengths, Å."""
    if not len(lengths):
        return 0.0
    scales = part.distance_scales, part.displacement_scales, part.strain_scale
    signs = crystal_signs(*scales, lengths - part.distances)
    return predictor.calibration.expected_error(part.distance_scales, signs)


def _bonds(
    entry: StructureInput,
    part: Part,
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
