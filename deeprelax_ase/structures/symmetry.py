"""Keeping the space group of the input in what a solve returns.

The network keeps the symmetry of an exactly symmetric input by construction. Real inputs are
symmetric to a few digits only; averaging over the space group makes the result symmetric to
machine precision. Operations of large crystals come from spglib; those of small ones are found
here, because spglib takes 20 ms for any face-centred crystal (2.5 to 2.8, median of five), several
times the rest of a relaxation. The tests compare both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import spglib
import spglib.error
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from deeprelax_ase.structures.crystal import Crystal

SYMPREC = 1e-3
"""Tolerance within which the input is symmetric, Å."""
_VACUUM = 20.0
_MOST_ATOMS = 1000
_SMALL = 40
_HALVINGS = 4
_SAME_FREEDOM = 0.02
"""Projectors that differ by less are the same, but for an input symmetric to few digits."""
_CHEAP = 40_000
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


def find_space_group(crystal: Crystal, symprec: float = SYMPREC) -> SpaceGroup | None:
    """The symmetry of a crystal; None for P1, and for crystals of more than 1000 atoms.

    Args:
        crystal: Of any periodicity; vacuum is made around a sheet, wire or molecule.
        symprec: Å. Where the operations found within it form no group, it is halved.
    """
    if len(crystal) > _MOST_ATOMS:
        return None
    crystal = _with_vacuum(crystal)
    if len(crystal) > _SMALL:
        return _ask_spglib(crystal, symprec)
    basis = _or_none(spglib.niggli_reduce, crystal.cell)
    basis = crystal.cell if basis is None else basis
    inverse = np.linalg.inv(basis)
    for _ in range(_HALVINGS):
        group = _find_operations(basis, inverse, crystal, symprec)
        if _is_closed(group.rotations[group.num_translations - 1 :]):
            return group if len(group.rotations) > 1 else None
        symprec /= 2
    return None


def symmetrise(
    crystal: Crystal,
    group: SpaceGroup,
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]:
    """Average the relaxed crystal over the space group of the unrelaxed one.

    Args:
        crystal: The unrelaxed crystal.
        group: Its space group.
        displacements: Å.
        deformation: Symmetric; acts on the periodic axes.

    Returns:
        Displacements and deformation of the averaged crystal.
    """
    inverse, split = group.inverse, group.num_translations
    relaxed = (crystal.positions + displacements) @ inverse
    cosets: slice | Int[np.ndarray, " some"] = slice(None)
    if split > 1:
        relaxed = _average(group, slice(0, split), relaxed)
        # The identity stands for the translations, which have been averaged over.
        cosets = np.append(0, np.arange(split, len(group.rotations)))
    relaxed = _average(group, cosets, relaxed)
    stretched = group.basis @ deformation
    rotations = group.rotations[cosets]
    metric = (rotations.transpose(0, 2, 1) @ (stretched @ stretched.T) @ rotations).mean(axis=0)
    squares, axes = np.linalg.eigh(inverse @ metric @ inverse.T)
    symmetric = (axes * np.sqrt(squares)) @ axes.T
    if not crystal.pbc.all():
        projector, identity = crystal.strain_projector(), np.eye(3)
        symmetric = identity + projector @ (symmetric - identity) @ projector
    return relaxed @ group.basis - crystal.positions, symmetric


def _average(
    group: SpaceGroup, operations: slice | Int[np.ndarray, " some"], scaled: np.ndarray
) -> Float[np.ndarray, "atoms 3"]:
    """Mean over operations of the images of all atoms, each taken to its own atom."""
    images = group.images[operations]
    moved = scaled @ group.rotations[operations].transpose(0, 2, 1)
    moved += group.translations[operations][:, None, :]
    moved -= np.rint(moved - scaled[images])
    came_from = images.argsort(axis=1)
    mean: np.ndarray = np.take_along_axis(moved, came_from[:, :, None], axis=1).mean(axis=0)
    return mean


def _or_none(ask: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What spglib answers; None where it finds nothing, which ASE can make it raise."""
    try:
        return ask(*arguments, **options)
    except spglib.error.SpglibError:
        return None


def _ask_spglib(crystal: Crystal, symprec: float) -> SpaceGroup | None:
    """Operations by spglib, and the atoms they permute by a search for the nearest."""
    scaled = crystal.positions @ np.linalg.inv(crystal.cell)
    cell = (crystal.cell, scaled, crystal.numbers)
    dataset = _or_none(spglib.get_symmetry_dataset, cell, symprec=symprec)
    if dataset is None or len(dataset.rotations) == 1:
        return None
    rotations = dataset.rotations.astype(float)
    pure = np.flatnonzero((rotations == np.eye(3)).all(axis=(1, 2)))
    pure = pure[np.argsort(np.abs(dataset.translations[pure]).sum(axis=1), kind="stable")]
    _, firsts = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)
    kept = np.r_[pure, np.setdiff1d(firsts, pure)]
    rotations, translations = rotations[kept], dataset.translations[kept]
    moved = np.einsum("kab,nb->kna", rotations, scaled) + translations[:, None, :]
    tree = cKDTree(_into_cell(scaled), boxsize=1.0)
    images = tree.query(_into_cell(moved).reshape(-1, 3))[1].reshape(len(kept), -1)
    if (np.sort(images, axis=1) != np.arange(len(crystal))).any():
        return None
    inverse = np.linalg.inv(crystal.cell)
    return SpaceGroup(crystal.cell, inverse, rotations, translations, images, len(pure))


def _into_cell(scaled: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Fractional coordinates in [0, 1), rounding included."""
    inside = scaled - np.floor(scaled)
    return np.where(inside >= 1.0, 0.0, inside)


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


def _find_operations(
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
        moved = self.scaled[atoms] @ self.rotations[kept].transpose(0, 2, 1)
        moved += self.translations[kept][:, None, :]
        apart = moved[:, :, None, :] - self.scaled
        apart -= np.rint(apart)
        apart = apart @ self.basis
        near = np.einsum("kmna,kmna->kmn", apart, apart) < self.symprec**2
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


def _is_closed(rotations: Float[np.ndarray, "rotations 3 3"]) -> bool:
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


def _with_vacuum(crystal: Crystal) -> Crystal:
    """The crystal with the rows of its non-periodic axes normal to the others and long."""
    if crystal.pbc.all():
        return crystal
    cell = np.where(crystal.pbc[:, None], crystal.cell, 0.0)
    for axis in np.flatnonzero(~crystal.pbc):
        filled = cell[np.any(cell != 0, axis=1)]
        normal = np.linalg.svd(filled)[2][-1] if len(filled) else np.eye(3)[axis]
        extent = float(np.ptp(crystal.positions @ normal))
        cell[axis] = normal * (extent + _VACUUM)
    return replace(crystal, cell=cell)
