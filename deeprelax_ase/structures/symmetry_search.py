"""Search the operations that map a small crystal onto itself; see `symmetry.py`."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures.crystal import Crystal

_SAME_FREEDOM = 0.02
"""Projectors that differ by less are the same, but for an input symmetric to few digits."""
_CHEAP = 8_000
_AXES = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
_STEPS = np.array(
    [*_AXES, *(s for s in product((-1, 0, 1), repeat=3) if any(s) and s not in _AXES)], dtype=float
)
"""Vectors that an isometry of a reduced lattice may take a basis vector to; its own come first."""


@dataclass(frozen=True)
class SpaceGroup:
    """Operations `scaled -> rotation @ scaled + translation` that map a crystal onto itself.

    The group is the product of the pure translations, which come first, and of one operation
    for each further rotation.

    Attributes:
        basis: Reduced cell that the fractional coordinates refer to, Å.
        inverse: Of the basis.
        rotations: In fractional coordinates, whole numbers.
        translations: In fractional coordinates.
        images: Atom that each operation takes each atom to.
        num_translations: How many of the operations are pure translations.
    """

    basis: Float[np.ndarray, "3 3"]
    inverse: Float[np.ndarray, "3 3"]
    rotations: Float[np.ndarray, "operations 3 3"]
    translations: Float[np.ndarray, "operations 3"]
    images: Int[np.ndarray, "operations atoms"]
    num_translations: int

    def cartesian_rotations(self) -> Float[np.ndarray, "operations 3 3"]:
        """Rotations of Cartesian column vectors, one for each operation."""
        turned = self.basis.T @ self.rotations @ self.inverse.T
        return np.asarray(turned)

    def keeping(self, freedom: Float[np.ndarray, "9 9"]) -> "SpaceGroup | None":
        """The operations that make of every strain that is free another that is free.

        A mean over others would mix what moves with what is held. None if none are left.

        Args:
            freedom: Projector of flat matrices onto the strains that are free.
        """
        turned = self.cartesian_rotations()
        pairs = np.einsum("kij,kmn->kimjn", turned, turned).reshape(-1, 9, 9)
        change = np.abs(pairs @ freedom @ pairs.transpose(0, 2, 1) - freedom)
        kept = change.max(axis=(1, 2)) < _SAME_FREEDOM
        kept[: self.num_translations] = True
        if kept.sum() < 2:  # noqa: PLR2004 - the identity and another
            return None
        return replace(
            self,
            rotations=self.rotations[kept],
            translations=self.translations[kept],
            images=self.images[kept],
        )

    @property
    def order(self) -> int:
        """Number of operations modulo the translations of the given cell."""
        return self.num_translations * (len(self.rotations) - self.num_translations + 1)


def find_operations(
    basis: Float[np.ndarray, "3 3"],
    inverse: Float[np.ndarray, "3 3"],
    crystal: Crystal,
    symprec: float,
) -> SpaceGroup:
    """Translations that go with the rotations: from one atom of the rarest element to others."""
    numbers, scaled = crystal.numbers, crystal.positions @ inverse
    rotations = _lattice_rotations(basis, symprec)
    counts = np.bincount(numbers)
    rare = (numbers == np.where(counts > 0, counts, len(numbers) + 1).argmin()).nonzero()[0]
    turned = rotations @ scaled[rare[0]]
    candidates = _Candidates(
        basis=basis,
        scaled=scaled,
        is_alike=numbers[:, None] == numbers,
        rotations=rotations.repeat(len(rare), axis=0),
        translations=(scaled[rare] - turned[:, None, :]).reshape(-1, 3),
        symprec=symprec,
    )
    everyone = np.arange(len(scaled))
    kept = np.arange(len(candidates.rotations))
    if len(kept) * len(scaled) ** 2 > _CHEAP:
        # Most candidates fail on the last atoms already.
        kept = (candidates.match(kept, everyone[-2:]) >= 0).all(axis=1).nonzero()[0]
    images = candidates.match_enough(kept, kept // len(rare))
    # No two atoms are so near that both could go to one.
    good = images.min(axis=1) >= 0
    kept, images = kept[good], images[good]
    rotation = kept // len(rare)
    # All pure translations, and one operation for each further rotation.
    chosen = np.ones(len(kept), dtype=bool)
    chosen[1:] = (rotation[1:] == 0) | (rotation[1:] != rotation[:-1])
    kept, images, rotation = kept[chosen], images[chosen], rotation[chosen]
    turns, translations = candidates.rotations[kept], candidates.translations[kept]
    # The translation that fits all atoms best, and that composes exactly.
    apart = scaled[images] - scaled @ turns.transpose(0, 2, 1)
    apart -= np.rint(apart - translations[:, None, :])
    translations = apart.mean(axis=1)
    num_translations = int((rotation == 0).sum())
    if num_translations > 1:
        is_other = (images[:num_translations] != everyone).any(axis=1)
        order = np.r_[np.argsort(is_other, kind="stable"), num_translations : len(kept)]
        turns, translations, images = turns[order], translations[order], images[order]
    return SpaceGroup(basis, inverse, turns, translations, images, num_translations)


def is_closed(rotations: Float[np.ndarray, "rotations 3 3"]) -> bool:
    """Whether the products of rotations are among them."""
    rows, columns = rotations.reshape(-1, 3), rotations.transpose(1, 0, 2).reshape(3, -1)
    products = (rows @ columns).reshape(len(rotations), 3, len(rotations), 3)
    # Entries of -1, 0 and 1 as digits; those of a product go from -3 to 3.
    code = 3.0 ** np.arange(9)
    largest = 3 * int(code.sum())
    is_own = np.zeros(2 * largest + 1, dtype=bool)
    is_own[(rotations.reshape(-1, 9) @ code).astype(int) + largest] = True
    products = products.transpose(0, 2, 1, 3).reshape(-1, 9) @ code
    return bool(is_own[products.astype(int) + largest].all())


def _lattice_rotations(
    basis: Float[np.ndarray, "3 3"], symprec: float
) -> Float[np.ndarray, "rotations 3 3"]:
    """Isometries of a reduced lattice, identity first; their entries are -1, 0 and 1."""
    vectors = _STEPS @ basis
    dots = vectors @ vectors.T
    lengths = np.sqrt(dots.diagonal())
    # The basis itself comes first.
    a, b, c = lengths[:3]
    near = np.abs(lengths - lengths[:3, None]) < symprec
    # Vectors that may take the place of each of the three of the basis.
    first, second, third = (row.nonzero()[0] for row in near)
    to_second = np.abs(dots[first[:, None], second] - dots[0, 1]) < symprec * (a + b)
    to_third = np.abs(dots[second[:, None], third] - dots[1, 2]) < symprec * (b + c)
    to_first = np.abs(dots[first[:, None], third] - dots[2, 0]) < symprec * (c + a)
    i, j, k = (to_second[:, :, None] & to_first[:, None, :] & to_third).nonzero()
    chosen = np.array([first[i], second[j], third[k]])
    return _STEPS[chosen].transpose(1, 2, 0)


@dataclass(frozen=True)
class _Candidates:
    """Operations that may map a crystal onto itself."""

    basis: Float[np.ndarray, "3 3"]
    scaled: Float[np.ndarray, "atoms 3"]
    is_alike: Bool[np.ndarray, "atoms atoms"]
    rotations: Float[np.ndarray, "candidates 3 3"]
    translations: Float[np.ndarray, "candidates 3"]
    symprec: float

    def match(
        self, kept: Int[np.ndarray, " kept"], atoms: Int[np.ndarray, " some"]
    ) -> Int[np.ndarray, "kept some"]:
        """Atom that each operation takes each atom to, -1 where there is none."""
        # Components first, for one matrix product of all.
        moved = self.rotations[kept] @ self.scaled[atoms].T + self.translations[kept][:, :, None]
        apart = moved.transpose(1, 0, 2)[..., None] - self.scaled.T[:, None, None, :]
        apart -= np.rint(apart)
        squares = (self.basis.T @ apart.reshape(3, -1)) ** 2
        near = (squares.sum(axis=0) < self.symprec**2).reshape(apart.shape[1:])
        near &= self.is_alike[atoms]
        return np.where(near.any(axis=-1), near.argmax(axis=-1), -1)

    def match_enough(
        self, kept: Int[np.ndarray, " kept"], rotation: Int[np.ndarray, " kept"]
    ) -> Int[np.ndarray, "kept atoms"]:
        """The match of all atoms for every pure translation and one operation a rotation at least.

        Args:
            kept: Candidates, sorted.
            rotation: Number of the rotation of each; 0 is the identity.
        """
        count = len(self.scaled)
        everyone = np.arange(count)
        if len(kept) * count**2 < _CHEAP:
            return self.match(kept, everyone)
        images = np.full((len(kept), count), -1)
        tried = rotation == 0
        tried[np.flatnonzero(np.diff(rotation, prepend=-1))] = True
        images[tried] = self.match(kept[tried], everyone)
        found = set(rotation[images.min(axis=1) >= 0].tolist())
        for index in np.flatnonzero(~tried):
            if int(rotation[index]) not in found:
                images[index] = self.match(kept[index : index + 1], everyone)[0]
                if images[index].min() >= 0:
                    found.add(int(rotation[index]))
        return images
