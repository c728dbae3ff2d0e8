"""From two structures of any source to one pair: order of sites, images, rotation, translation.

Every converter goes through `make_pair`, so that pairs of all sources obey the same conventions
(those of `graph.py`): sites in the order of the unrelaxed crystal, each relaxed site in the image
nearest to its own unrelaxed one, `relaxed_cell = cell @ deformation` with a symmetric deformation,
and a mean displacement of zero; where atoms are fixed, theirs is. A cell that is the same before
and after was held.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import polar
from scipy.optimize import linear_sum_assignment

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.validate_rows import HELD
from deeprelax_ase.structures.crystal import Crystal, complete_cell
from deeprelax_ase.structures.validation import check_distances, check_input

LARGEST_MEAN_DISPLACEMENT = 1.5
"""Pairs that move further than this in the mean (Å) are taken for two different crystals."""
LARGEST_LOG_VOLUME = 0.9
"""Pairs whose logarithm of the volume (of a sheet: of its area) changes by more are refused."""
LARGEST_STRETCH = 2.0
"""Pairs with a direction that stretches or shrinks by more than this factor are refused."""
LEAST_SHEET_SPACING = 15.0
"""Vacuum beside a sheet, Å."""
_MOST_ORIGINS = 24
_ROUNDS = 20
_CLEARLY_SMALLER = 0.7
_SETTLED = 1e-12
_SAME_CELL = 1e-6


def make_pair(unrelaxed: Crystal, relaxed: Crystal, functional: str = "unknown") -> Pair:
    """Bring a crystal and its relaxed counterpart into one form.

    Args:
        unrelaxed: Any cell and order of sites; its order is kept.
        relaxed: The same cell vectors, relaxed; rotated, shifted, wrapped and ordered anyhow.
            Where the species stand in the same order, sites are taken to correspond, unless
            exchanging equal atoms makes the moves clearly smaller.
        functional: Of the relaxed one.

    Raises:
        ValueError: They are no such pair (`checks.StructureError` where one of them is no
            crystal at all): other composition, other periodicity, sites that coincide, or
            changes larger than the limits of this module.
    """
    for crystal in (unrelaxed, relaxed):
        check_input(crystal.numbers, crystal.positions, crystal.cell, crystal.pbc)
    _check_same_kind(unrelaxed, relaxed)
    if not unrelaxed.pbc.all():
        unrelaxed, relaxed = _as_sheets(unrelaxed, relaxed)
    check_distances(unrelaxed)
    if np.linalg.det(unrelaxed.cell) * np.linalg.det(relaxed.cell) < 0:
        msg = "one cell is left-handed and the other right-handed: they do not correspond"
        raise ValueError(msg)
    _, deformation = polar(np.linalg.solve(unrelaxed.cell, relaxed.cell), side="left")
    displacements = _match_sites(unrelaxed, relaxed, deformation) @ unrelaxed.cell
    if unrelaxed.fixed is not None:
        displacements = _anchored(displacements, unrelaxed.fixed)
    held = np.zeros((0, 9))
    if np.abs(deformation - np.eye(3)).max() < _SAME_CELL:
        held, deformation = np.eye(9), np.eye(3)
    pair = Pair(replace(unrelaxed, held_strain=held), functional, displacements, deformation)
    _check_size(pair)
    return pair


def _anchored(
    displacements: Float[np.ndarray, "atoms 3"], fixed: Bool[np.ndarray, " atoms"]
) -> Float[np.ndarray, "atoms 3"]:
    """Displacements where what is fixed stands still."""
    displacements = displacements - displacements[fixed].mean(axis=0)
    moved = np.linalg.norm(displacements, axis=1) * fixed
    if moved.max() > HELD:
        msg = f"atom {moved.argmax()} is fixed, and moves by {moved.max():.2f} Å"
        raise ValueError(msg)
    return np.where(fixed[:, None], 0.0, displacements)


def _check_same_kind(unrelaxed: Crystal, relaxed: Crystal) -> None:
    if len(unrelaxed) != len(relaxed):
        msg = f"{len(unrelaxed)} sites before and {len(relaxed)} after: they have to be the same"
        raise ValueError(msg)
    if not np.array_equal(np.sort(unrelaxed.numbers), np.sort(relaxed.numbers)):
        msg = "the species before and after differ"
        raise ValueError(msg)
    allowed = ([True] * 3, [True, True, False])
    if unrelaxed.pbc.tolist() not in allowed or not np.array_equal(unrelaxed.pbc, relaxed.pbc):
        msg = (
            f"pbc {unrelaxed.pbc.tolist()} before and {relaxed.pbc.tolist()} after: allowed is "
            "three periodic axes, or the first two, the same on both sides"
        )
        raise ValueError(msg)


def _check_size(pair: Pair) -> None:
    mean = float(np.linalg.norm(pair.displacements, axis=1).mean())
    if mean > LARGEST_MEAN_DISPLACEMENT:
        msg = (
            f"sites move by {mean:.2f} Å in the mean, more than {LARGEST_MEAN_DISPLACEMENT} Å: "
            "not a relaxation of this crystal"
        )
        raise ValueError(msg)
    stretches = np.linalg.eigvalsh(pair.deformation)
    if stretches[0] < 1 / LARGEST_STRETCH or stretches[-1] > LARGEST_STRETCH:
        msg = (
            f"the cell stretches by factors of {stretches[0]:.2f} to {stretches[-1]:.2f} along its "
            f"axes, more than {LARGEST_STRETCH} either way: not a relaxation of this crystal"
        )
        raise ValueError(msg)
    log_volume = float(np.log(np.linalg.det(pair.deformation)))
    if abs(log_volume) > LARGEST_LOG_VOLUME:
        msg = (
            f"the volume changes by a factor of {np.exp(log_volume):.2f}, more than "
            f"{np.exp(LARGEST_LOG_VOLUME):.2f} either way: not a relaxation of this crystal"
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class _Sites:
    """Sites of both crystals in fractional coordinates, and how far a fractional step is."""

    before: Float[np.ndarray, "atoms 3"]
    after: Float[np.ndarray, "atoms 3"]
    numbers_before: Int[np.ndarray, " atoms"]
    numbers_after: Int[np.ndarray, " atoms"]
    wraps: Float[np.ndarray, "3"]
    metric: Float[np.ndarray, "3 3"]

    def moves(
        self, order: Int[np.ndarray, " atoms"], shift: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "atoms 3"]:
        """Fractional moves to the nearest images."""
        moves = self.after[order] - shift - self.before
        return moves - np.rint(moves) * self.wraps

    def cost(self, moves: Float[np.ndarray, "atoms 3"]) -> float:
        """Sum of squares, Å^2."""
        return float(((moves @ self.metric) ** 2).sum())

    def assign(self, shift: Float[np.ndarray, "3"]) -> Int[np.ndarray, " atoms"]:
        """Of each species, the relaxed sites that are nearest to the unrelaxed ones in sum."""
        order = np.empty(len(self.before), dtype=int)
        for number in np.unique(self.numbers_before):
            mine = np.flatnonzero(self.numbers_before == number)
            theirs = np.flatnonzero(self.numbers_after == number)
            moves = (self.after[theirs] - shift)[None] - self.before[mine][:, None]
            moves -= np.rint(moves) * self.wraps
            squares = ((moves @ self.metric) ** 2).sum(axis=2)
            order[mine] = theirs[linear_sum_assignment(squares)[1]]
        return order


def _match_sites(
    unrelaxed: Crystal, relaxed: Crystal, deformation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "atoms 3"]:
    """Smallest fractional moves, with a mean of zero, from unrelaxed sites to relaxed ones."""
    sites = _Sites(
        before=unrelaxed.positions @ np.linalg.inv(unrelaxed.cell),
        after=relaxed.positions @ np.linalg.inv(relaxed.cell),
        numbers_before=unrelaxed.numbers,
        numbers_after=relaxed.numbers,
        wraps=unrelaxed.pbc.astype(float),
        metric=unrelaxed.cell @ (np.eye(3) + deformation) / 2,
    )
    species, counts = np.unique(unrelaxed.numbers, return_counts=True)
    rarest = species[counts.argmin()]
    first = sites.before[unrelaxed.numbers == rarest][0]
    origins = np.vstack([np.zeros(3), sites.after[relaxed.numbers == rarest] - first])
    matched = _best(sites, origins[:_MOST_ORIGINS], None)
    if np.array_equal(unrelaxed.numbers, relaxed.numbers):
        origins = np.vstack([np.zeros(3), sites.after - sites.before])
        kept = _best(sites, origins[:_MOST_ORIGINS], np.arange(len(unrelaxed)))
        if sites.cost(matched) >= _CLEARLY_SMALLER * sites.cost(kept):
            return kept
    return matched


def _best(
    sites: _Sites, origins: Float[np.ndarray, "some 3"], order: Int[np.ndarray, " atoms"] | None
) -> Float[np.ndarray, "atoms 3"]:
    """Smallest moves from several origins; without an order, sites are assigned."""
    candidates = [_settle(sites, shift, order) for shift in origins]
    return min(candidates, key=sites.cost)


def _settle(
    sites: _Sites, shift: Float[np.ndarray, "3"], order: Int[np.ndarray, " atoms"] | None
) -> Float[np.ndarray, "atoms 3"]:
    """Alternate between order and images at a shift, and the shift that zeroes the mean."""
    for _ in range(_ROUNDS):
        moves = sites.moves(sites.assign(shift) if order is None else order, shift)
        mean = moves.mean(axis=0)
        shift = shift + mean
        if np.abs(mean).max() < _SETTLED:
            break
    return moves - mean


def _as_sheets(unrelaxed: Crystal, relaxed: Crystal) -> tuple[Crystal, Crystal]:
    """Both flat in the xy plane, centred along the same c, which has vacuum enough."""
    flat = [_lay_flat(crystal) for crystal in (unrelaxed, relaxed)]
    thickness = max(float(np.ptp(crystal.positions[:, 2])) for crystal in flat)
    height = max(float(flat[0].cell[2, 2]), thickness + LEAST_SHEET_SPACING)
    sheets = []
    for crystal in flat:
        cell, positions = crystal.cell.copy(), crystal.positions.copy()
        cell[2] = [0.0, 0.0, height]
        positions[:, 2] += height / 2 - (positions[:, 2].min() + positions[:, 2].max()) / 2
        sheets.append(replace(crystal, cell=cell, positions=positions))
    return sheets[0], sheets[1]


def _lay_flat(crystal: Crystal) -> Crystal:
    """Turn a sheet so that a is along x and b in the xy plane."""
    cell = complete_cell(crystal.cell, crystal.pbc)
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    height = max(abs(float(cell[2] @ normal)), 1.0)
    # Right-handed, whichever way c was drawn: it does not repeat, and a sheet has no mirror image.
    upright = np.stack([cell[0], cell[1], normal * height])
    axes, triangle = np.linalg.qr(upright.T)
    turn = axes * np.sign(np.diag(triangle))
    return replace(crystal, cell=upright @ turn, positions=crystal.positions @ turn)
