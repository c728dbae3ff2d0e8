"""The linear algebra of one Gauss-Newton step: assemble and solve the normal equations.

Unknowns are the displacements of a crystal's atoms and the six components of its deformation.
Small crystals go through one batched Cholesky for each class of size, large ones through
conjugate gradients on a sparse matrix.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase.solver.normal_equations import Blocks, NormalEquations, assemble
from deeprelax_ase.solver.sparse import solve_sparse

_LARGEST_DENSE = 400
_GROWTH = 1.3


def solve_normal_equations(
    equations: NormalEquations,
) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 6"]]:
    """Change of displacements (Å) and of the deformation's components in one step.

    Differentiable, except for crystals of more than 400 atoms without gradients, which are
    solved sparse.
    """
    blocks = assemble(equations)
    # One crystal alone needs no padding and no sorting.
    if len(equations.sizes) == 1 and len(equations.batch) <= _LARGEST_DENSE:
        return _solve_one(equations, blocks)
    sizes = equations.sizes.tolist()
    sparse = set()
    if not blocks.atom.requires_grad:
        sparse = {crystal for crystal, size in enumerate(sizes) if size > _LARGEST_DENSE}
    atoms = torch.zeros_like(blocks.atom_right)
    corners = torch.zeros_like(blocks.corner_right)
    groups = _group_by_size([c for c in range(len(sizes)) if c not in sparse], sizes)
    starts = (equations.sizes.cumsum(0) - equations.sizes).to(blocks.atom.device)
    if groups:
        atoms, corners = _solve_dense(equations, blocks, groups, starts)
    for crystal in sparse:
        solve_sparse(equations, blocks, crystal, starts, atoms, corners)
    return atoms, corners


def _solve_one(equations: NormalEquations, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Changes of the single crystal of a batch, dense."""
    i, j = equations.pairs
    size = equations.batch.shape[0]
    own = torch.arange(size, device=i.device)
    where = torch.cat([own * (size + 1), i * size + j, j * size + i])
    matrix = blocks.atom.new_zeros(size * size, 3, 3)
    matrix = matrix.index_add(0, where, torch.cat([blocks.atom, blocks.pair, blocks.pair]))
    solved = _solve_bordered(
        matrix.view(size, size, 3, 3).transpose(1, 2).reshape(1, 3 * size, 3 * size),
        blocks.border.view(1, 3 * size, 6),
        blocks.corner,
        torch.cat([blocks.atom_right.view(1, 3 * size), blocks.corner_right], dim=1),
    )
    return solved[0, :-6].view(size, 3), solved[:, -6:]


def _group_by_size(crystals: list[int], sizes: list[int]) -> list[list[int]]:
    """Crystals of similar size together, so that little is padded."""
    groups: list[list[int]] = []
    for crystal in sorted(crystals, key=sizes.__getitem__):
        if groups and sizes[crystal] <= max(_GROWTH * sizes[groups[-1][0]], 8):
            groups[-1].append(crystal)
        else:
            groups.append([crystal])
    return groups


@dataclass(frozen=True)
class _Layout:
    """Where the crystals of each group lie among the padded atoms and blocks of a batch.

    Crystals of no group have the width 0; all of theirs goes to one place more, past the end.
    """

    groups: list[list[int]]
    sizes: list[int]  # atoms that each group's crystals are padded to
    first_place: Tensor  # (crystals,) among the padded atoms
    first_block: Tensor  # (crystals,) among the 3x3 blocks of the padded matrices
    width: Tensor  # (crystals,) atoms that the crystal is padded to
    num_places: int
    num_blocks: int


def _lay_out(groups: list[list[int]], num_atoms: list[int], device: torch.device) -> _Layout:
    sizes = [max(num_atoms[crystal] for crystal in group) for group in groups]
    places, blocks, widths = ([0] * len(num_atoms) for _ in range(3))
    num_places = num_blocks = 0
    for group, size in zip(groups, sizes, strict=True):
        for crystal in group:
            places[crystal], blocks[crystal], widths[crystal] = num_places, num_blocks, size
            num_places, num_blocks = num_places + size, num_blocks + size * size
    first_place, first_block, width = (
        torch.tensor(values, device=device) for values in (places, blocks, widths)
    )
    return _Layout(groups, sizes, first_place, first_block, width, num_places, num_blocks)


def _solve_dense(
    equations: NormalEquations, blocks: Blocks, groups: list[list[int]], starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Scatter the blocks into one padded matrix for each crystal and solve them in groups."""
    layout = _lay_out(groups, equations.sizes.tolist(), starts.device)
    local = torch.arange(len(equations.batch), device=starts.device) - starts[equations.batch]
    is_grouped = layout.width > 0
    places = layout.first_place[equations.batch] + local
    places = torch.where(is_grouped[equations.batch], places, layout.num_places)
    matrix = _scatter_blocks(equations, blocks, layout, local)
    border = blocks.border.new_zeros(layout.num_places + 1, 3, 6)
    border = border.index_add(0, places, blocks.border)
    right = blocks.atom_right.new_zeros(layout.num_places + 1, 3)
    right = right.index_add(0, places, blocks.atom_right)
    empty = torch.ones_like(right).index_fill(0, places, 0.0)

    atoms, corners = [], []
    place = block = 0
    for group, size in zip(layout.groups, layout.sizes, strict=True):
        count, members = len(group), torch.tensor(group, device=starts.device)
        inside = slice(place, place + count * size)
        full = matrix[block : block + count * size * size].view(count, size, size, 3, 3)
        full = full.transpose(2, 3).reshape(count, 3 * size, 3 * size)
        full = full + torch.diag_embed(empty[inside].view(count, 3 * size))
        solved = _solve_bordered(
            full,
            border[inside].view(count, 3 * size, 6),
            blocks.corner[members],
            torch.cat([right[inside].view(count, 3 * size), blocks.corner_right[members]], 1),
        )
        atoms.append(solved[:, :-6].reshape(count * size, 3))
        corners.append(solved[:, -6:])
        place, block = inside.stop, block + count * size * size
    order = torch.tensor([c for group in groups for c in group], device=starts.device)
    in_order = torch.zeros_like(blocks.corner_right).index_add(0, order, torch.cat(corners))
    atoms.append(torch.zeros_like(right[:1]))
    return torch.cat(atoms).index_select(0, places), in_order


def _scatter_blocks(
    equations: NormalEquations, blocks: Blocks, layout: _Layout, local: Tensor
) -> Float[Tensor, "blocks 3 3"]:
    """The 3x3 blocks of all padded matrices; `local` counts atoms within their crystal."""

    def or_past_the_end(blocks_of: Tensor, crystals: Tensor) -> Tensor:
        return torch.where(layout.width[crystals] > 0, blocks_of, layout.num_blocks)

    base, width = layout.first_block[equations.crystals], layout.width[equations.crystals]
    i, j = local[equations.pairs[0]], local[equations.pairs[1]]
    own = layout.first_block[equations.batch] + local * (layout.width[equations.batch] + 1)
    where = torch.cat(
        [
            or_past_the_end(own, equations.batch),
            or_past_the_end(base + i * width + j, equations.crystals),
            or_past_the_end(base + j * width + i, equations.crystals),
        ]
    )
    matrix = blocks.atom.new_zeros(layout.num_blocks + 1, 3, 3)
    return matrix.index_add(0, where, torch.cat([blocks.atom, blocks.pair, blocks.pair]))


def _solve_bordered(
    full: Float[Tensor, "group n n"],
    side: Float[Tensor, "group n 6"],
    corner: Float[Tensor, "group 6 6"],
    right: Float[Tensor, "group n+6"],
) -> Float[Tensor, "group n+6"]:
    """Solve a group of crystals for their displacements, and at the end their deformations."""
    top = torch.cat([full, side], dim=2)
    bottom = torch.cat([side.transpose(1, 2), corner], dim=2)
    matrix = torch.cat([top, bottom], dim=1)
    if not matrix.requires_grad:
        return _factor_and_solve(matrix, right)[1]
    solved: Tensor = _CholeskySolve.apply(matrix, right)  # type: ignore[no-untyped-call]
    return solved


def _factor_and_solve(
    matrix: Float[Tensor, "group n n"], right: Float[Tensor, "group n"]
) -> tuple[Float[Tensor, "group n n"], Float[Tensor, "group n"]]:
    """Cholesky factors and solutions.

    A matrix that is not positive definite gives NaN, which the check on the result finds.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
    return factor, torch.where((info == 0).unsqueeze(1), solution, torch.nan)


class _CholeskySolve(torch.autograd.Function):
    """Solution of batched symmetric positive definite systems, by implicit differentiation."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Float[Tensor, "group n n"], right: Float[Tensor, "group n"]
    ) -> Float[Tensor, "group n"]:
        factor, solution = _factor_and_solve(matrix, right)
        ctx.save_for_backward(factor, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        factor, solution = ctx.saved_tensors
        by_right = torch.cholesky_solve(gradients[0].unsqueeze(2), factor).squeeze(2)
        return -by_right.unsqueeze(2) * solution.unsqueeze(1), by_right
