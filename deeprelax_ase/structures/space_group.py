"""Operations that map a crystal onto itself; `symmetry.py` finds them."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

_SAME_FREEDOM = 0.02
"""Projectors that differ by less are the same, but for an input symmetric to few digits."""


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
