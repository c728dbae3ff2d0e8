"""Keeping the space group of the input in what a solve returns.

The network keeps the symmetry of an exactly symmetric input by construction. Real inputs are
symmetric to a few digits only; averaging over the space group makes the result symmetric to
machine precision. Operations of large crystals come from spglib; those of small ones are found
here, because spglib takes 20 ms for any face-centred crystal (2.5 to 2.8, median of five), several
times the rest of a relaxation. The tests compare both.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import spglib
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from deeprelax_ase.crystal import Crystal

SYMPREC = 1e-3
"""Tolerance within which the input is symmetric, Å."""
_VACUUM = 20.0
_MOST_ATOMS = 1000
_SMALL = 40
_HALVINGS = 4
_STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])


@dataclass(frozen=True)
class SpaceGroup:
    """Operations `scaled -> rotation @ scaled + translation` that map a crystal onto itself.

    The group is the product of the pure translations, which come first, and of one operation
    for each further rotation.

    Attributes:
        basis: Reduced cell that the fractional coordinates refer to, Å.
        rotations: In fractional coordinates.
        translations: In fractional coordinates.
        images: Atom that each operation takes each atom to.
        num_translations: How many of the operations are pure translations.
    """

    basis: Float[np.ndarray, "3 3"]
    rotations: Int[np.ndarray, "operations 3 3"]
    translations: Float[np.ndarray, "operations 3"]
    images: Int[np.ndarray, "operations atoms"]
    num_translations: int

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
    basis = spglib.niggli_reduce(crystal.cell)
    basis = crystal.cell if basis is None else basis
    scaled = crystal.positions @ np.linalg.inv(basis)
    for _ in range(_HALVINGS):
        rotations = _lattice_rotations(basis, symprec)
        group = _find_operations(basis, scaled, crystal.numbers, rotations, symprec)
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
    inverse = np.linalg.inv(group.basis)
    split = group.num_translations
    relaxed = (crystal.positions + displacements) @ inverse
    relaxed = _average(group, slice(0, split), relaxed)
    # The identity stands for the translations, which have been averaged over.
    cosets = np.r_[0, split : len(group.rotations)]
    relaxed = _average(group, cosets, relaxed)
    stretched = group.basis @ deformation
    rotations = group.rotations[cosets]
    metric = np.einsum("kba,bc,kcd->ad", rotations, stretched @ stretched.T, rotations)
    squares, axes = np.linalg.eigh(inverse @ (metric / len(rotations)) @ inverse.T)
    symmetric = (axes * np.sqrt(squares)) @ axes.T
    projector, identity = crystal.strain_projector(), np.eye(3)
    symmetric = identity + projector @ (symmetric - identity) @ projector
    return relaxed @ group.basis - crystal.positions, symmetric


def _average(
    group: SpaceGroup, operations: slice | Int[np.ndarray, " some"], scaled: np.ndarray
) -> Float[np.ndarray, "atoms 3"]:
    """Mean over operations of the images of all atoms, each taken to its own atom."""
    images = group.images[operations]
    moved = np.einsum("kab,nb->kna", group.rotations[operations], scaled)
    moved += group.translations[operations][:, None, :]
    moved -= np.rint(moved - scaled[images])
    total = np.zeros_like(scaled)
    np.add.at(total, images.ravel(), moved.reshape(-1, 3))
    return total / len(images)


def _ask_spglib(crystal: Crystal, symprec: float) -> SpaceGroup | None:
    """Operations by spglib, and the atoms they permute by a search for the nearest."""
    scaled = crystal.positions @ np.linalg.inv(crystal.cell)
    dataset = spglib.get_symmetry_dataset((crystal.cell, scaled, crystal.numbers), symprec=symprec)
    if dataset is None or len(dataset.rotations) == 1:
        return None
    rotations = dataset.rotations
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
    return SpaceGroup(crystal.cell, rotations, translations, images, len(pure))


def _into_cell(scaled: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Fractional coordinates in [0, 1), rounding included."""
    inside = scaled - np.floor(scaled)
    return np.where(inside >= 1.0, 0.0, inside)


def _lattice_rotations(
    basis: Float[np.ndarray, "3 3"], symprec: float
) -> Int[np.ndarray, "rotations 3 3"]:
    """Isometries of a reduced lattice, identity first; their entries are -1, 0 and 1."""
    vectors = _STEPS @ basis
    lengths = np.linalg.norm(vectors, axis=1)
    own = np.linalg.norm(basis, axis=1)
    candidates = [np.flatnonzero(np.abs(lengths - length) < symprec) for length in own]
    dots = vectors @ vectors.T
    metric = basis @ basis.T

    def alike(k: int, m: int) -> Bool[np.ndarray, "first second"]:
        pair = dots[np.ix_(candidates[k], candidates[m])]
        return np.asarray(np.abs(pair - metric[k, m]) < symprec * (own[k] + own[m]))

    fits = alike(0, 1)[:, :, None] & alike(0, 2)[:, None, :] & alike(1, 2)[None, :, :]
    chosen = [candidates[k][index] for k, index in enumerate(np.nonzero(fits))]
    rows = np.stack([_STEPS[index] for index in chosen], axis=1)
    rotations = rows.transpose(0, 2, 1)
    return rotations[np.argsort((rotations != np.eye(3)).any(axis=(1, 2)), kind="stable")]


def _find_operations(
    basis: Float[np.ndarray, "3 3"],
    scaled: Float[np.ndarray, "atoms 3"],
    numbers: Int[np.ndarray, " atoms"],
    rotations: Int[np.ndarray, "rotations 3 3"],
    symprec: float,
) -> SpaceGroup:
    """Translations that go with the rotations: from one atom of the rarest element to others."""
    elements, counts = np.unique(numbers, return_counts=True)
    rare = np.flatnonzero(numbers == elements[counts.argmin()])
    turned = np.einsum("kab,b->ka", rotations, scaled[rare[0]])
    rotation = np.repeat(np.arange(len(rotations)), len(rare))
    translation = (scaled[rare][None, :, :] - turned[:, None, :]).reshape(-1, 3)

    def match(
        kept: Int[np.ndarray, " kept"], atoms: Int[np.ndarray, " some"]
    ) -> Int[np.ndarray, "kept some"]:
        """Atom that each operation takes each atom to, -1 where there is none."""
        moved = np.einsum("kab,nb->kna", rotations[rotation[kept]], scaled[atoms])
        moved += translation[kept][:, None, :]
        apart = moved[:, :, None, :] - scaled
        apart = (apart - np.rint(apart)) @ basis
        near = (apart * apart).sum(axis=-1) < symprec**2
        near &= numbers[atoms][:, None] == numbers
        return np.where(near.any(axis=-1), near.argmax(axis=-1), -1)

    kept = np.arange(len(rotation))
    # Most candidates fail on the last atoms already.
    kept = kept[(match(kept, np.arange(len(scaled))[-2:]) >= 0).all(axis=1)]
    is_translation = rotation[kept] == 0
    first_of_rotation = np.unique(rotation[kept], return_index=True)[1]
    images = np.full((len(kept), len(scaled)), -1)
    tried = is_translation.copy()
    tried[first_of_rotation] = True
    images[tried] = match(kept[tried], np.arange(len(scaled)))
    good = (images >= 0).all(axis=1)
    found = set(rotation[kept[good]].tolist())
    for index in np.flatnonzero(~tried):
        if int(rotation[kept[index]]) not in found:
            images[index] = match(kept[index : index + 1], np.arange(len(scaled)))[0]
            if (images[index] >= 0).all():
                found.add(int(rotation[kept[index]]))
    good = (images >= 0).all(axis=1) & (np.sort(images, axis=1) == np.arange(len(scaled))).all(1)
    kept, images = kept[good], images[good]
    order = np.argsort(rotation[kept], kind="stable")
    kept, images = kept[order], images[order]
    turns = rotations[rotation[kept]]
    # The translation that fits all atoms best, and that composes exactly.
    apart = scaled[images] - np.einsum("kab,nb->kna", turns, scaled)
    apart -= np.rint(apart - translation[kept][:, None, :])
    num_translations = int((rotation[kept] == 0).sum())
    identity_first = np.argsort((images[:num_translations] != np.arange(len(scaled))).any(axis=1))
    order = np.r_[identity_first, num_translations : len(kept)]
    return SpaceGroup(
        basis, turns[order], apart.mean(axis=1)[order], images[order], num_translations
    )


def _is_closed(rotations: Int[np.ndarray, "rotations 3 3"]) -> bool:
    """Whether the products of rotations are among them."""
    products = np.einsum("kab,mbc->kmac", rotations, rotations).reshape(-1, 9)
    code = 3 ** np.arange(9)
    return bool(np.isin(products @ code, rotations.reshape(-1, 9) @ code).all())


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
