"""Normal equations of one large crystal: conjugate gradients on a sparse matrix."""

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from deeprelax_ase.solver.normal_equations import Blocks, NormalEquations


def solve_sparse(
    equations: NormalEquations,
    blocks: Blocks,
    crystal: int,
    starts: Tensor,
    atoms: Tensor,
    corners: Tensor,
) -> None:
    """Solve one large crystal by conjugate gradients and a Schur complement; fill it in."""
    first, count = int(starts[crystal]), int(equations.sizes[crystal])
    inside = slice(first, first + count)
    mask = (equations.crystals == crystal).cpu()
    i, j = (equations.pairs.cpu()[:, mask] - first).numpy()
    pair = blocks.pair.detach().cpu()[mask].numpy()
    diagonal = blocks.atom[inside].detach().cpu().numpy()
    own = np.arange(count)
    rows, columns = np.concatenate([own, i, j]), np.concatenate([own, j, i])
    values = np.concatenate([diagonal, pair, pair])
    axes = np.arange(3)
    shape = values.shape
    matrix = scipy.sparse.coo_array(
        (
            values.ravel(),
            (
                np.broadcast_to(3 * rows[:, None, None] + axes[:, None], shape).ravel(),
                np.broadcast_to(3 * columns[:, None, None] + axes, shape).ravel(),
            ),
        ),
        shape=(3 * count, 3 * count),
    ).tocsr()
    inverses = np.linalg.inv(diagonal)

    def precondition(vector: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", inverses, vector.reshape(count, 3)).ravel()

    preconditioner = LinearOperator(matrix.shape, matvec=precondition, dtype=matrix.dtype)
    border = blocks.border[inside].detach().cpu().numpy().reshape(3 * count, 6)
    right = blocks.atom_right[inside].detach().cpu().numpy().ravel()
    columns_solved = [
        cg(matrix, column, rtol=1e-10, maxiter=2000, M=preconditioner)[0]
        for column in (right, *border.T)
    ]
    plain, through = columns_solved[0], np.stack(columns_solved[1:], axis=1)
    corner = blocks.corner[crystal].detach().cpu().numpy()
    corner_right = blocks.corner_right[crystal].detach().cpu().numpy()
    components = np.linalg.solve(corner - border.T @ through, corner_right - border.T @ plain)
    corners[crystal] = torch.from_numpy(components).to(corners)
    atoms[inside] = torch.from_numpy((plain - through @ components).reshape(count, 3)).to(atoms)
