"""Second-order features: how the surroundings of an atom are stretched, and along what.

Tensors are kept as `(atoms, 5, T)`, in e3nn's words `T x 2e`. The five components are those of a
symmetric traceless matrix in an orthonormal basis, which e3nn's Wigner 3j symbols are but for a
factor.
"""

import math

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

Tensors = Float[Tensor, "atoms 5 tensors"]

_BASIS = math.sqrt(5.0) * o3.wigner_3j(1, 1, 2, dtype=torch.float64).reshape(9, 5)


def quadrupoles(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 5"]:
    """Dyads of unit vectors less their trace: spherical harmonics times the root of 2/3."""
    dyads = directions[:, :, None] * directions[:, None, :]
    return dyads.flatten(1) @ _BASIS.to(directions)


def matrices_of(tensors: Float[Tensor, "n 5 T"]) -> Float[Tensor, "n 3 3 T"]:
    """The symmetric traceless matrices that have these components."""
    return (_BASIS.to(tensors) @ tensors).unflatten(1, (3, 3))


def components_of(matrices: Float[Tensor, "n 3 3 T"]) -> Float[Tensor, "n 5 T"]:
    """Components of the symmetric traceless part of matrices."""
    components: Tensor = _BASIS.to(matrices).T @ matrices.flatten(1, 2)
    return components


class TensorUpdate(nn.Module):
    """Exchange between the scalars, the vectors and the tensors of one atom.

    Tensors turn vectors, vectors make tensors of their dyads, and the scalars learn how tensors lie
    to each other and to the vectors: angles between the neighbours that sums of directions lose.
    """

    def __init__(self, num_features: int, num_tensors: int) -> None:
        super().__init__()
        self.irreps_in = o3.Irreps(f"{num_features}x0e + {num_features}x1o + {num_tensors}x2e")
        self.irreps_out = self.irreps_in
        self.mix = nn.Linear(num_tensors, 2 * num_tensors, bias=False)
        self.down = nn.Linear(num_features, 2 * num_tensors, bias=False)
        self.up = nn.Linear(num_tensors, num_features, bias=False)
        self.widths = [num_features, num_features, num_tensors, num_tensors]
        self.gates = nn.Sequential(
            nn.Linear(num_features + 3 * num_tensors, num_features),
            nn.SiLU(),
            nn.Linear(num_features, sum(self.widths)),
        )

    def forward(
        self,
        scalars: Float[Tensor, "atoms features"],
        vectors: Float[Tensor, "atoms 3 features"],
        tensors: Tensors,
    ) -> tuple[
        Float[Tensor, "atoms features"],
        Float[Tensor, "atoms 3 features"],
        Tensors,
    ]:
        """New scalars, vectors and tensors, the residual included."""
        first, second = self.mix(tensors).chunk(2, dim=-1)
        one, other = self.down(vectors).chunk(2, dim=-1)
        dyads = components_of(one[:, :, None] * other[:, None, :])
        turned = (matrices_of(first) * one[:, None]).sum(dim=2)
        norms = torch.sqrt((second * second).sum(dim=1) + 1e-8)
        signs = [scalars, norms, (first * second).sum(dim=1), (first * dyads).sum(dim=1)]
        gates = self.gates(torch.cat(signs, dim=1)).split(self.widths, dim=1)
        constant, vector, tensor, dyad = gates
        return (
            scalars + constant / math.sqrt(2.0),
            torch.addcmul(vectors, vector[:, None], self.up(turned)),
            tensors + tensor[:, None] * first + dyad[:, None] * dyads,
        )
