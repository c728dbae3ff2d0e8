"""Find the space group of an input, and average what a solve returns over it.

The network keeps the symmetry of an exactly symmetric input by construction. Real inputs are
symmetric to a few digits only; averaging over the space group makes the result symmetric to
machine precision. Operations of large crystals come from spglib; those of small ones are searched
in C where it is compiled, because spglib takes 20 ms for any face-centred crystal (2.5 to 2.8,
median of five), many times the rest of a relaxation. The tests compare both.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import spglib
import spglib.error
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from deeprelax_ase.compiled import IS_COMPILED
from deeprelax_ase.structures.boxes import in_box
from deeprelax_ase.structures.crystal import MAX_ATOMIC_NUMBER, Crystal
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.space_group import SpaceGroup

SYMPREC = 1e-3
"""Tolerance within which the input is symmetric, Å."""
_VACUUM = 20.0
MOST_SYMMETRIC = 1000
"""Atoms of the largest crystal whose symmetry is looked for."""
_SMALL = 200
_HALVINGS = 4
_spglib_lock = Lock()


def _forget_lock() -> None:
    """A forked process has none of the threads that may have held it."""
    global _spglib_lock  # noqa: PLW0603 - a lock is there once
    _spglib_lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def symmetry_notes(crystal: Crystal) -> tuple[Note, ...]:
    """What a user should know of a crystal whose symmetry is not looked for."""
    text = f"symmetry is not looked for in more than {MOST_SYMMETRIC} atoms"
    return (Note("symmetry_not_sought", text),) if len(crystal) > MOST_SYMMETRIC else ()


def find_space_group(crystal: Crystal, symprec: float = SYMPREC) -> SpaceGroup | None:
    """The symmetry of a crystal; None for P1, and for crystals of more than 1000 atoms.

    Args:
        crystal: Of any periodicity; vacuum is made around a sheet, wire or molecule.
        symprec: Å. Where the operations found within it form no group, it is halved.
    """
    if len(crystal) > MOST_SYMMETRIC:
        return None
    if crystal.fixed is not None:  # no operation takes a fixed atom to a free one
        numbers = crystal.numbers + MAX_ATOMIC_NUMBER * crystal.fixed
        crystal = replace(crystal, numbers=numbers)
    crystal = in_box(crystal, _VACUUM)
    if len(crystal) > _SMALL or not IS_COMPILED:
        return _ask_spglib(crystal, symprec)
    basis = reduced_cell(crystal.cell)
    for _ in range(_HALVINGS):
        group = _search(crystal, basis, symprec)
        if group is not None:
            return group if len(group.rotations) > 1 else None
        symprec /= 2
    return None


def _search(crystal: Crystal, basis: Float[np.ndarray, "3 3"], symprec: float) -> SpaceGroup | None:
    """The operations of a small crystal, in a reduced cell; None if they form no group."""
    from deeprelax_ase.compiled import core

    inverse = np.linalg.inv(basis)
    scaled, numbers = crystal.positions @ inverse, crystal.numbers.astype(np.int64)
    count, is_group, *found = core.find_operations(basis, scaled, numbers, symprec)
    if not is_group:
        return None
    rotations, translations = (np.frombuffer(part) for part in found[:2])
    return SpaceGroup(
        basis,
        inverse,
        rotations.reshape(-1, 3, 3),
        translations.reshape(-1, 3),
        np.frombuffer(found[2], dtype=np.int64).reshape(-1, len(crystal)),
        count,
    )


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
    if IS_COMPILED:
        from deeprelax_ase.compiled import core

        rotations, translations = group.rotations[operations], group.translations[operations]
        mean: np.ndarray = np.empty_like(scaled)
        core.average(rotations, translations, images, scaled, mean)
        return mean
    moved = scaled @ group.rotations[operations].transpose(0, 2, 1)
    moved += group.translations[operations][:, None, :]
    moved -= np.rint(moved - scaled[images])
    came_from = images.argsort(axis=1)
    return np.asarray(np.take_along_axis(moved, came_from[:, :, None], axis=1).mean(axis=0))


def ask_spglib(ask: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What spglib answers; None where it finds nothing.

    Its old way to tell of that warns whenever it is called, found or not; which way, is one for all
    threads.
    """
    with _spglib_lock:
        before = getattr(spglib.error, "OLD_ERROR_HANDLING", False)
        spglib.error.OLD_ERROR_HANDLING = False
        try:
            return ask(*arguments, **options)
        except spglib.error.SpglibError:
            return None
        finally:
            spglib.error.OLD_ERROR_HANDLING = before


def reduced_cell(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The Niggli cell of a lattice; the given one where spglib finds none."""
    reduced = ask_spglib(spglib.niggli_reduce, cell)
    return cell if reduced is None else np.asarray(reduced)


def _ask_spglib(crystal: Crystal, symprec: float) -> SpaceGroup | None:
    """Operations by spglib, and the atoms they permute by a search for the nearest."""
    scaled = crystal.positions @ np.linalg.inv(crystal.cell)
    cell = (crystal.cell, scaled, crystal.numbers)
    dataset = ask_spglib(spglib.get_symmetry_dataset, cell, symprec=symprec)
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
    # Those of spglib fit one atom; these fit all.
    apart = scaled[images] - (moved - translations[:, None, :])
    translations = (apart - np.rint(apart - translations[:, None, :])).mean(axis=1)
    inverse = np.linalg.inv(crystal.cell)
    return SpaceGroup(crystal.cell, inverse, rotations, translations, images, len(pure))


def _into_cell(scaled: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Fractional coordinates in [0, 1), rounding included."""
    inside = scaled - np.floor(scaled)
    return np.where(inside >= 1.0, 0.0, inside)
