"""One step of the joint solve for one small crystal, in numpy; see `network/numpy_layers.py`."""

import math

import numpy as np
from jaxtyping import Float
from scipy.linalg.lapack import dposv

from deeprelax_ase.network.numpy_forward import OneCrystal, Output
from deeprelax_ase.solver.status import LEAST_STRETCH, TINY
from deeprelax_ase.structures.crystal import LEAST_DISTANCE, exp_symmetric
from deeprelax_ase.structures.held import COMPONENTS

_LARGEST_STRAIN = -math.log(LEAST_STRETCH)


def one_step(
    one_crystal: OneCrystal, output: Output
) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]] | None:
    """Displacements (Å) and deformation after the step of `gauss_newton.solve_joint`.

    Returns:
        None where that would not end in this step, or not be sound.
    """
    crystal, freedom, first, second, vectors, lengths = one_crystal
    if not np.linalg.norm(output.strain) < _LARGEST_STRAIN:
        return None
    moves, deformation = output.displacements, exp_symmetric(output.strain)
    count, weights = len(moves), output.distance_weights
    undeformed = vectors + moves[second] - moves[first]
    deformed = undeformed @ deformation
    old = np.sqrt(np.einsum("pa,pa->p", deformed, deformed))
    units = deformed / old[:, None]
    by_displacement = units @ deformation
    dyads = (undeformed[:, :, None] * units[:, None, :]).reshape(-1, 9)
    jacobian = np.zeros((len(old), count + 2, 3))
    rows = np.arange(len(old))
    jacobian[rows, first] -= by_displacement
    jacobian[rows, second] += by_displacement
    free = np.ones(count)
    if crystal.fixed is not None:
        free[crystal.fixed] = 0.0
        jacobian[:, :count] *= free[:, None]
    by_strain = dyads @ (COMPONENTS.T @ (COMPONENTS @ freedom @ COMPONENTS.T))
    jacobian[:, count:] = by_strain.reshape(-1, 2, 3)
    flat = jacobian.reshape(len(old), -1)
    weighted = flat * weights[:, None]
    matrix = flat.T @ weighted
    diagonal = np.repeat(output.displacement_weights * free + (1.0 - free), 3)
    matrix.ravel()[:: len(matrix) + 1] += np.append(diagonal, np.full(6, output.strain_weight))
    residuals = output.distances - old
    _, solved, info = dposv(matrix, residuals @ weighted)
    if info != 0:
        return None
    new_moves = crystal.settled(moves + solved[:-6].reshape(-1, 3))
    change = (freedom @ (COMPONENTS.T @ solved[-6:])).reshape(3, 3)
    new_deformation = deformation + change
    new = (vectors + new_moves[second] - new_moves[first]) @ new_deformation
    new_lengths = np.sqrt(np.einsum("pa,pa->p", new, new))
    before = float(weights @ residuals**2)
    after = float(weights @ (output.distances - new_lengths) ** 2)
    after += float(output.displacement_weights @ ((new_moves - moves) ** 2).sum(axis=1))
    after += output.strain_weight * float((change**2).sum())
    # As `solver.state.check`; a comparison with what is not finite is false.
    near = np.minimum(old, new_lengths)
    is_sound = (
        after <= before + TINY
        and not ((near < LEAST_DISTANCE) & (near < lengths)).any()
        and np.linalg.eigvalsh(new_deformation)[0] > LEAST_STRETCH
    )
    return (new_moves, new_deformation) if is_sound else None
