"""From an input and its relaxed atoms to a row in the form of the data files, or why not."""

from typing import Any

import numpy as np
from ase import Atoms
from scipy.linalg import polar

from deeprelax_ase.datasets.validate_rows import find_faults
from deeprelax_ase.datasets.write_pairs import split_of
from recipes.teaching.chemistry import UnusableError, count_pieces
from recipes.teaching.inputs import Input

LARGEST_MEAN_DISPLACEMENT = 2.0
"""Å."""
LARGEST_LOG_VOLUME = 0.9
_LEAST_SHARE = 0.55
_FARTHEST_ADSORBATE = 3.0
"""Å from the surface."""
_LARGEST_FRAGMENT = 4
_FLOATS = ("cell", "positions", "relaxed_cell", "relaxed_positions")


def make_row(made: Input, relaxed: Atoms, kind: str, index: int, steps: int) -> dict[str, Any]:
    """Bring a relaxed input into the form of the data files.

    Args:
        made: The input.
        relaxed: The same atoms, relaxed, in the same order and not wrapped.
        kind: Of the input; with `index` it makes the row's id.
        index: Of the input among its kind.
        steps: Of the relaxation.

    Raises:
        UnusableError: A filter drops it.
    """
    before, fixed = made.atoms, made.fixed
    cell, positions = before.cell.array, before.positions
    relaxed_cell, moves, deformation = _moves(before, relaxed, made.cell)
    if not fixed.any():
        moves -= moves.mean(axis=0)
    displacements = moves @ cell
    if made.cell == "held":
        relaxed_positions = positions + displacements
        relaxed_positions[fixed] = positions[fixed]
    else:
        relaxed_positions = (positions + displacements) @ deformation
    mean = float(np.linalg.norm(displacements, axis=1).mean())
    log_volume = float(np.log(np.linalg.det(deformation)))
    after = Atoms(before.numbers, relaxed_positions, cell=relaxed_cell, pbc=before.pbc)
    _check(made, after, mean, log_volume)
    row = {
        "id": f"taught/{kind}/{index}",
        "source": f"taught by {made.potential}",
        "functional": made.functional,
        "split": split_of(made.host.numbers),
        "numbers": before.numbers.tolist(),
        "cell": cell.ravel(),
        "positions": positions.ravel(),
        "relaxed_cell": relaxed_cell.ravel(),
        "relaxed_positions": relaxed_positions.ravel(),
        "mean_displacement": mean,
        "log_volume_ratio": log_volume,
        "pbc": before.pbc.tolist(),
        "fixed": fixed.tolist(),
        "cell_free": made.cell != "held",
        "kind": kind,
        "variant": made.variant,
        "potential": made.potential,
        "host": made.host.id,
        "steps": steps,
    }
    for name in _FLOATS:
        row[name] = np.asarray(row[name], dtype=np.float32)
    # In single precision, as it will be read.
    fault = find_faults({name: [np.asarray(row[name])] for name in ("numbers", *_FLOATS, "pbc")})
    if fault:
        raise UnusableError(fault[0])
    return row


def _moves(before: Atoms, relaxed: Atoms, cell: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relaxed cell turned back, fractional moves, and the symmetric deformation."""
    start = before.cell.array
    if cell == "held":
        deformation, relaxed_cell = np.eye(3), start
    else:
        _, deformation = polar(np.linalg.solve(start, relaxed.cell.array), side="left")
        relaxed_cell = start @ deformation
    scaled = before.positions @ np.linalg.inv(start)
    moves = relaxed.positions @ np.linalg.inv(relaxed.cell.array) - scaled
    moves -= np.rint(moves) * before.pbc
    return relaxed_cell, moves, deformation


def _check(made: Input, after: Atoms, mean: float, log_volume: float) -> None:
    from recipes.teaching.chemistry import least_distance

    reason = ""
    if mean > LARGEST_MEAN_DISPLACEMENT:
        reason = "moves by over 2 Å in the mean"
    elif abs(log_volume) > LARGEST_LOG_VOLUME:
        reason = "volume changes too much"
    elif least_distance(after) < _LEAST_SHARE:
        reason = "collapsed: relaxed atoms on top of each other"
    elif made.adsorbed and _adsorbate_distance(after, made.adsorbed) > _FARTHEST_ADSORBATE:
        reason = "adsorbate flew off"
    else:
        pieces, smallest = count_pieces(after)
        if pieces > count_pieces(made.atoms)[0] and smallest <= _LARGEST_FRAGMENT:
            reason = "a fragment came off"
    if reason:
        raise UnusableError(reason)


def _adsorbate_distance(atoms: Atoms, adsorbed: int) -> float:
    """From the nearest atom of an adsorbate to the surface, Å."""
    count = len(atoms) - adsorbed
    return min(
        float(atoms.get_distances(index, range(count), mic=True).min())
        for index in range(count, len(atoms))
    )
