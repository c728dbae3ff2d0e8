"""The algebra of second-order features: how an atom's surroundings are stretched, along what.

Tensors are kept as `(atoms, 5, T)`, in e3nn's words `T x 2e`. The five components are those of a
symmetric traceless matrix in an orthonormal basis, which e3nn's Wigner 3j symbols are but for a
factor.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Tensors = Float[Tensor, "atoms 5 tensors"]

_HALF, _SIXTH = math.sqrt(1 / 2), math.sqrt(1 / 6)
BASIS = torch.zeros(9, 5, dtype=torch.float64)
"""Flat matrices of the components; e3nn's are the root of 5 times `wigner_3j(1, 1, 2)`."""
BASIS[[2, 6], 0] = _HALF  # xz
BASIS[[1, 3], 1] = _HALF  # xy
BASIS[[0, 4, 8], 2] = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64) * _SIXTH
BASIS[[5, 7], 3] = _HALF  # yz
BASIS[[0, 8], 4] = torch.tensor([-1.0, 1.0], dtype=torch.float64) * _HALF  # zz less xx


def quadrupoles(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 5"]:
    """Dyads of unit vectors less their trace: spherical harmonics times the root of 2/3."""
    dyads = directions.unsqueeze(2) * directions.unsqueeze(1)
    return dyads.flatten(1) @ BASIS.to(directions)


def matrices_of(tensors: Float[Tensor, "n 5 T"]) -> Float[Tensor, "n 3 3 T"]:
    """The symmetric traceless matrices that have these components."""
    return (BASIS.to(tensors) @ tensors).unflatten(1, (3, 3))


def components_of(matrices: Float[Tensor, "n 3 3 T"]) -> Float[Tensor, "n 5 T"]:
    """Components of the symmetric traceless part of matrices."""
    components: Tensor = BASIS.to(matrices).T @ matrices.flatten(1, 2)
    return components
