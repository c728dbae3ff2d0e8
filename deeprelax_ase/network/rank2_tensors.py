"""The algebra of second-order features: how an atom's surroundings are stretched, along what.

Tensors are kept as `(atoms, 5, T)`, in e3nn's words `T x 2e`. The five components are those of a
symmetric traceless matrix in an orthonormal basis, which e3nn's Wigner 3j symbols are but for a
factor.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deeprelax_ase.network import tensor_basis

Tensors = Float[Tensor, "atoms 5 tensors"]

BASIS = torch.from_numpy(tensor_basis.BASIS)


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
