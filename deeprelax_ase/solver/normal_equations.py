"""The normal equations of one Gauss-Newton step, and the blocks that they are made of."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class NormalEquations:
    """Jacobian, weights and residuals of a batch.

    Attributes:
        pairs: Atoms i and j of each pair.
        crystals: Crystal of each pair.
        sizes: Atoms of each crystal, on the processor.
        batch: Crystal of each atom.
        free: Whether each atom may move, 1 or 0.
        by_displacement: Derivative of a pair's length by the displacement of its j.
        by_deformation: Derivative of a pair's length by the components of the deformation, Å.
        weights: Of the pairs.
        residuals: Of the pairs, Å.
        atom_weights: Of the displacements.
        atom_residuals: Of the displacements, Å.
        crystal_weights: Of the deformations, Å^2.
        crystal_residuals: Of the deformations.
        strain_projectors: Onto the components that may change.
    """

    pairs: Int[Tensor, "2 pairs"]
    crystals: Int[Tensor, " pairs"]
    sizes: Int[Tensor, " crystals"]
    batch: Int[Tensor, " atoms"]
    free: Float[Tensor, " atoms"]
    by_displacement: Float[Tensor, "pairs 3"]
    by_deformation: Float[Tensor, "pairs 6"]
    weights: Float[Tensor, " pairs"]
    residuals: Float[Tensor, " pairs"]
    atom_weights: Float[Tensor, " atoms"]
    atom_residuals: Float[Tensor, "atoms 3"]
    crystal_weights: Float[Tensor, " crystals"]
    crystal_residuals: Float[Tensor, "crystals 6"]
    strain_projectors: Float[Tensor, "crystals 6 6"]


@dataclass(frozen=True)
class Blocks:
    """The pieces of the matrix and of the right-hand side, before they have a place."""

    atom: Tensor  # (atoms, 3, 3)
    pair: Tensor  # (pairs, 3, 3), the block of row i and column j
    border: Tensor  # (atoms, 3, 6)
    corner: Tensor  # (crystals, 6, 6)
    atom_right: Tensor  # (atoms, 3)
    corner_right: Tensor  # (crystals, 6)


def assemble(equations: NormalEquations) -> Blocks:
    """The blocks of the matrix and of the right-hand side."""
    i, j = equations.pairs
    a, h = equations.by_displacement, equations.by_deformation
    num_atoms = equations.batch.shape[0]
    weighted = equations.weights.unsqueeze(1) * a
    square = weighted.unsqueeze(2) * a.unsqueeze(1)
    mixed = weighted.unsqueeze(2) * h.unsqueeze(1)
    right = weighted * equations.residuals.unsqueeze(1)
    identity = torch.eye(3, dtype=a.dtype, device=a.device)
    atom = equations.atom_weights.view(-1, 1, 1) * identity
    atom = atom.index_add(0, torch.cat([i, j]), torch.cat([square, square]))
    # A pair of an atom and its own image moves as one: its blocks cancel.
    image = (i == j).to(a.dtype).view(-1, 1, 1)
    atom = atom.index_add(0, i, -2.0 * square * image)
    both = torch.cat([j, i])
    border = a.new_zeros(num_atoms, 3, 6).index_add(0, both, torch.cat([mixed, -mixed]))
    strains = equations.strain_projectors
    border = border @ strains.index_select(0, equations.batch)
    atom_right = equations.atom_weights.unsqueeze(1) * equations.atom_residuals
    atom_right = atom_right.index_add(0, both, torch.cat([right, -right]))
    weighted_h = equations.weights.unsqueeze(1) * h
    own = equations.crystal_weights.view(-1, 1, 1) * torch.eye(6).to(a)
    corner = torch.zeros_like(own)
    corner = corner.index_add(0, equations.crystals, weighted_h.unsqueeze(2) * h.unsqueeze(1))
    corner = own + strains @ corner @ strains
    corner_right = equations.crystal_weights.unsqueeze(1) * equations.crystal_residuals
    corner_right = corner_right.index_add(
        0, equations.crystals, weighted_h * equations.residuals.unsqueeze(1)
    )
    corner_right = (strains @ corner_right.unsqueeze(2)).squeeze(2)
    # A fixed atom's row says that it does not move, and no other row knows of it.
    free = equations.free.unsqueeze(1)
    both_free = (free.index_select(0, i) * free.index_select(0, j)).unsqueeze(2)
    return Blocks(
        atom=atom * free.unsqueeze(2) + (1.0 - free).unsqueeze(2) * identity,
        pair=-square * (1.0 - image) * both_free,
        border=border * free.unsqueeze(2),
        corner=corner,
        atom_right=atom_right * free,
        corner_right=corner_right,
    )
