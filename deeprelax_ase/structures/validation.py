"""Check that an input can be relaxed, and say in one sentence why not.

Plain geometry: nothing here knows ASE, pymatgen or a network.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.crystal import (
    LEAST_DISTANCE,
    MAX_ATOMIC_NUMBER,
    Crystal,
    nearest_pair,
)

LONGEST_VECTOR = 1000.0
"""A longer cell vector (Å) is taken for a mistake of units."""
LARGEST_COORDINATE = 1e5
"""A coordinate larger than this (Å) is taken for a mistake."""
FULL = 1e-3
"""Occupancies that differ from 1 by no more are full, but for rounding."""
_FLAT = 1e-4
_LEAST_VOLUME = LEAST_DISTANCE**3 / 2**0.5
"""Å^3 an atom takes in the densest packing of spheres that are so far apart."""
_DENSE = 2.0
"""Å^3 an atom of what is denser than any crystal: it may be two atoms on one site."""


class StructureError(ValueError):
    """The input cannot be read as a crystal; the message says why and what to do."""


class SeveralStructuresError(StructureError):
    """A file of records holds several structures where one was asked for."""


def disordered(site: Any) -> StructureError:
    """The error for a site that more or less than one atom of one species is on."""
    msg = (
        f"a site is disordered or partially occupied ({site}): order the structure first, for "
        "instance with pymatgen's OrderDisorderedStructureTransformation"
    )
    return StructureError(msg)


def check_input(
    numbers: Int[np.ndarray, " atoms"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
) -> None:
    """Refuse what cannot be a crystal.

    Raises:
        StructureError: The message names the value, what is allowed and the way out.
    """
    if len(numbers) == 0:
        msg = "the structure is empty: it has no atoms"
        raise StructureError(msg)
    if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        where = int(np.flatnonzero((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER))[0])
        msg = (
            f"atom {where} is a dummy 'X' or no element (atomic number {numbers[where]}): "
            f"atomic numbers go from 1 to {MAX_ATOMIC_NUMBER}; remove it or name its element"
        )
        raise StructureError(msg)
    if not np.isfinite(positions).all():
        where = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        msg = f"atom {where} is at {positions[where].tolist()}: coordinates have to be finite"
        raise StructureError(msg)
    if np.abs(positions).max() > LARGEST_COORDINATE:
        where = int(np.abs(positions).max(axis=1).argmax())
        msg = (
            f"atom {where} is at {positions[where].tolist()}, more than {LARGEST_COORDINATE:g} Å "
            "away: are the coordinates in Å?"
        )
        raise StructureError(msg)
    _check_cell(cell, pbc, len(numbers))


def _check_cell(cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"], num_atoms: int) -> None:
    """Refuse a cell that is none, or in which the atoms have no room."""
    if not np.isfinite(cell).all():
        msg = f"the cell {cell.tolist()} has values that are not finite"
        raise StructureError(msg)
    lengths = np.linalg.norm(cell, axis=1)
    if lengths.max() > LONGEST_VECTOR:
        msg = (
            f"a cell vector is {lengths.max():.0f} Å long, more than {LONGEST_VECTOR:.0f} Å: "
            "is the cell in Å?"
        )
        raise StructureError(msg)
    periodic = cell[pbc]
    if len(periodic) and _is_flat(periodic):
        msg = (
            f"the cell {cell.tolist()} is singular along its periodic axes: give three "
            "independent vectors in Å, or set pbc to False on axes that do not repeat"
        )
        raise StructureError(msg)
    shortest = lengths[pbc].min(initial=np.inf)
    if shortest < LEAST_DISTANCE:
        msg = (
            f"a cell vector is {shortest:.3g} Å long, less than the {LEAST_DISTANCE:g} Å that an "
            "atom and its image have to be apart: is the cell in Å?"
        )
        raise StructureError(msg)
    volume = abs(float(np.linalg.det(cell))) if pbc.all() else np.inf
    if volume < _LEAST_VOLUME * num_atoms:
        msg = (
            f"the cell {cell.tolist()} has a volume of {volume:.3g} Å^3, in which {num_atoms} "
            f"atoms and their images cannot be {LEAST_DISTANCE} Å apart: is the cell in Å?"
        )
        raise StructureError(msg)
    if not pbc.all() and _is_flat(cell[lengths > 0]):
        msg = f"the cell {cell.tolist()} is singular: its vectors lie in a plane or on a line"
        raise StructureError(msg)


def _is_flat(vectors: Float[np.ndarray, "some 3"]) -> bool:
    """Whether vectors are zero, or near to lying on a line or in a plane with each other."""
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.all():
        return True
    units = vectors / lengths[:, None]
    # The determinant of the unit vectors' dot products is their squared volume.
    return bool(np.linalg.det(units @ units.T) < _FLAT**2)


def check_distances(crystal: Crystal, search: float = 0.0) -> None:
    """Refuse two atoms on one site.

    Args:
        crystal: The input.
        search: Cutoff (Å) of pairs that will be needed later and can be searched for now.
    """
    if crystal.pbc.all() and abs(np.linalg.det(crystal.cell)) < _DENSE * len(crystal):
        search = 0.0  # too many pairs to be found before it is known
    pair = nearest_pair(crystal, LEAST_DISTANCE, search)
    if pair is None:
        return
    i, j, distance = pair
    msg = (
        f"atoms {i} and {j} share a site: they are {distance:.3f} Å apart, less than "
        f"{LEAST_DISTANCE} Å; remove one of them"
    )
    raise StructureError(msg)
