"""Say what of a crystal a relaxation must leave as it is: its cell, its volume, single vectors.

What is held of the cell is written as linear constraints on the strain, so that the network's head
and the solve can obey it exactly. Conventions are those of `network/graph.py`.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

_VECTORS = ("a", "b", "c")
HOLDS = (
    "cell",
    "volume",
    "shape",
    *("".join(chosen) for count in (1, 2) for chosen in combinations(_VECTORS, count)),
    "positions",
    "nothing",
)
"""What can be held: the cell; its volume (area, length); its shape; some of its vectors; the
fractional coordinates; nothing, not even the cell of a slab whose atoms are fixed."""
_ROOT = 2.0**0.5
_UPPER = ((1, 0, 0), (2, 2, 1))
_RANK = 1e-8
COMPONENTS = np.zeros((6, 9))
"""Components xx, yy, zz and sqrt(2) times yz, xz, xy of a flat symmetric matrix: its Frobenius norm
is kept, and the transpose is the way back."""
COMPONENTS[:3, (0, 4, 8)] = np.eye(3)
for _row, (_i, _j) in enumerate(zip(*_UPPER, strict=True), start=3):
    COMPONENTS[_row, [3 * _i + _j, 3 * _j + _i]] = 1 / _ROOT


@runtime_checkable
class Part(Protocol):
    """Some constraints on the strain: `HeldStrains`, `HeldEntries` and others of `exact_holds`."""

    @property
    def rows(self) -> Float[np.ndarray, "rows 9"]:
        """What they are to first order, flat and Cartesian: `rows @ strain.ravel() == 0`."""

    @property
    def is_linear(self) -> bool:
        """Whether they are nothing else."""

    def __call__(self, deformation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " rows"]:
        """How far off a deformation is."""

    def without(self, vectors: Bool[np.ndarray, "3"]) -> "Part":
        """Those that say nothing of some cell vectors, which stay whatever is strained."""


@dataclass(frozen=True, eq=False)
class Held:
    """What a relaxation leaves as it is.

    Attributes:
        names: Of `HOLDS`.
        parts: Further constraints.
    """

    names: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, hold: str | None) -> "Held":
        """Read what a user asks for: one of `HOLDS`, or several with commas between.

        Raises:
            ValueError: One of them is none.
        """
        names = [name.strip() for name in (hold or "").split(",") if name.strip()]
        for name in names:
            if name not in HOLDS:
                msg = f"unknown hold {name!r}: choose from {', '.join(HOLDS)}"
                raise ValueError(msg)
        if "nothing" in names and len({*names}) > 1:
            msg = f"hold is {hold!r}: nothing goes by itself"
            raise ValueError(msg)
        return cls(frozenset(names))

    def __or__(self, other: "Held") -> "Held":
        return Held(self.names | other.names, self.parts + other.parts)

    def __bool__(self) -> bool:
        return bool(self.names - {"nothing"} or len(self.rows))

    def decides_on(self, vectors: Bool[np.ndarray, "3"]) -> bool:
        """Whether it says whether some cell vectors change, be it that they do."""
        others = [name for name in self.names if not set(name) <= set(_VECTORS)]
        return bool(others or self.parts or (self.vectors & vectors).any())

    @property
    def rows(self) -> Float[np.ndarray, "rows 9"]:
        """Those of all parts."""
        return np.concatenate([np.zeros((0, 9)), *(part.rows for part in self.parts)])

    @property
    def exact(self) -> tuple[Part, ...]:
        """All parts, where one of them is more than its rows."""
        is_more = any(not part.is_linear and len(part.rows) for part in self.parts)
        return self.parts if is_more else ()

    def says_of(self, vectors: Bool[np.ndarray, "3"]) -> bool:
        """Whether some cell vectors are held, or components of them, lengths or angles."""
        is_told = any(len(part.rows) > len(part.without(vectors).rows) for part in self.parts)
        return is_told or bool((self.vectors & vectors).any())

    def without(self, vectors: Bool[np.ndarray, "3"]) -> "Held":
        """Without what its parts say of some cell vectors, which stay whatever is strained."""
        return Held(self.names, tuple(part.without(vectors) for part in self.parts))

    @property
    def positions(self) -> bool:
        """Whether the fractional coordinates of all atoms are held."""
        return "positions" in self.names

    @property
    def vectors(self) -> Bool[np.ndarray, "3"]:
        """Which cell vectors are held by their names."""
        letters = {letter for name in self.names if set(name) <= set(_VECTORS) for letter in name}
        return np.array([letter in letters for letter in _VECTORS])

    def strain_rows(
        self,
        cell: Float[np.ndarray, "3 3"],
        repeating: Float[np.ndarray, "some 3"],
        kept: Bool[np.ndarray, "3"] | None = None,
    ) -> Float[np.ndarray, "rows 9"]:
        """All constraints on the strain of a crystal.

        Args:
            cell: Row vectors, Å; those that are named are of this cell.
            repeating: Vectors along which it repeats, Å; the shape is that of what they span.
            kept: Vectors that stay whatever is strained.
        """
        rows = [self.rows]
        for name in sorted(self.names):
            if name == "cell":
                rows.append(np.eye(9))
            elif name == "volume":
                rows.append(np.eye(3).reshape(1, 9))
            elif name == "shape":
                rows.append(_all_but(_span(repeating)))
        named = self.vectors if kept is None else self.vectors & ~kept
        rows.append(held_entries(cell, np.repeat(named[:, None], 3, axis=1)))
        return np.concatenate(rows)


def held_entries(
    cell: Float[np.ndarray, "3 3"], kept: Bool[np.ndarray, "3 3"]
) -> Float[np.ndarray, "rows 9"]:
    """Constraints that keep single Cartesian components of the cell vectors.

    Args:
        cell: Row vectors, Å.
        kept: Which components stay.
    """
    rows = []
    for vector, component in zip(*np.nonzero(kept), strict=True):
        row = np.zeros((3, 3))
        row[:, component] = cell[vector] / np.linalg.norm(cell[vector])
        rows.append(row.ravel())
    return np.array(rows).reshape(-1, 9)


def held_strain(kept: Bool[np.ndarray, "3 3"]) -> Float[np.ndarray, "rows 9"]:
    """Constraints that make single Cartesian components of the strain zero."""
    return np.eye(9)[np.ravel(kept)]


def strain_freedom(
    rows: Float[np.ndarray, "rows 9"], cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> Float[np.ndarray, "9 9"]:
    """Projector of flat matrices onto the strains a crystal may have.

    Strains along axes that do not repeat are never free. Where nothing is held and all axes
    repeat, it is the identity.

    Args:
        rows: Constraints.
        cell: Row vectors, Å.
        pbc: Which of them repeat.
    """
    if pbc.all():
        if not len(rows):
            return np.eye(9)
        basis = np.eye(6)
    else:
        periodic = _span(cell[pbc]).reshape(3, 3)
        both = (periodic[:, None, :, None] * periodic[:, None, :]).reshape(9, 9)
        inside = COMPONENTS @ both @ COMPONENTS.T
        if not len(rows):
            return COMPONENTS.T @ inside @ COMPONENTS
        values, axes = np.linalg.eigh(inside)
        basis = axes[:, values > 1 / 2]
    # Of the strains within the periodic axes, those on which every constraint is zero.
    constraints = rows @ COMPONENTS.T @ basis
    _, singular, right = np.linalg.svd(constraints)
    basis = basis @ right[(singular > _RANK).sum() :].T
    return COMPONENTS.T @ basis @ basis.T @ COMPONENTS


def _span(vectors: Float[np.ndarray, "some 3"]) -> Float[np.ndarray, "9"]:
    """Projector onto what vectors span, flat."""
    axes = np.linalg.qr(vectors.T)[0]
    return (axes @ axes.T).ravel()


def _all_but(direction: Float[np.ndarray, "9"]) -> Float[np.ndarray, "9 9"]:
    """Constraints that only multiples of a flat matrix obey."""
    squared = direction @ direction
    return np.eye(9) - (np.outer(direction, direction) / squared if squared else 0.0)
