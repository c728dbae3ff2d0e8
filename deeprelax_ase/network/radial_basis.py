"""What an edge knows of its length: Gaussians of the distance under a smooth envelope."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deeprelax_ase.network.config import RELATIVE_SPAN

# Covalent radii in Å, Z = 1..96: B. Cordero et al., Dalton Trans. 2008, 2832 (Table 2; low-spin
# carbon sp3). Heavier elements take 1.5 Å. A start for a learned parameter, not a constant.
_COVALENT_RADII = (
    "0.31 0.28 1.28 0.96 0.84 0.76 0.71 0.66 0.57 0.58 1.66 1.41 1.21 1.11 1.07 1.05 1.02 1.06 "
    "2.03 1.76 1.70 1.60 1.53 1.39 1.39 1.32 1.26 1.24 1.32 1.22 1.22 1.20 1.19 1.20 1.20 1.16 "
    "2.20 1.95 1.90 1.75 1.64 1.54 1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 1.38 1.39 1.40 "
    "2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 1.96 1.94 1.92 1.92 1.89 1.90 1.87 1.87 1.75 "
    "1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 1.50 1.50 2.60 2.21 2.15 2.06 "
    "2.00 1.96 1.90 1.87 1.80 1.69"
)


def covalent_radii(num_elements: int) -> Float[Tensor, " elements"]:
    """Covalent radii by atomic number, Å; index 0 is unused."""
    radii = torch.full((num_elements,), 1.5)
    known = torch.tensor([float(word) for word in _COVALENT_RADII.split()])
    radii[1 : 1 + len(known)] = known
    return radii


def polynomial_envelope(
    distances: Float[Tensor, " pairs"], cutoff: float, exponent: int
) -> Float[Tensor, " pairs"]:
    """Fall from 1 to 0 at the cutoff with two vanishing derivatives (DimeNet, Eq. 8)."""
    p = exponent
    scaled = distances / cutoff
    falling = (
        1
        - (p + 1) * (p + 2) / 2 * scaled**p
        + p * (p + 2) * scaled ** (p + 1)
        - p * (p + 1) / 2 * scaled ** (p + 2)
    )
    return torch.where(scaled < 1, falling, torch.zeros_like(falling))


class RadialBasis(nn.Module):
    """Gaussians of the distance and of the distance over the sum of the two atoms' radii.

    The second set tells a stretched bond from a compressed one whatever the elements are; the
    radii start as covalent ones and are learned.
    """

    def __init__(
        self,
        num_radial: int,
        num_relative: int,
        cutoff: float,
        envelope_exponent: int,
        num_elements: int,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        self.num_basis = num_radial + num_relative
        self.radii = nn.Parameter(covalent_radii(num_elements))
        self.register_buffer("centers", torch.linspace(0.0, cutoff, num_radial))
        self.register_buffer("relative_centers", torch.linspace(*RELATIVE_SPAN, num_relative))
        self.inverse_width = num_radial / cutoff
        self.relative_inverse_width = num_relative / (RELATIVE_SPAN[1] - RELATIVE_SPAN[0])
        self.centers: Tensor
        self.relative_centers: Tensor

    def envelope(self, distances: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """The polynomial envelope at each distance."""
        return polynomial_envelope(distances, self.cutoff, self.envelope_exponent)

    def forward(
        self,
        distances: Float[Tensor, " pairs"],
        numbers_i: Int[Tensor, " pairs"],
        numbers_j: Int[Tensor, " pairs"],
    ) -> Float[Tensor, "pairs basis"]:
        """Basis functions of each pair, not yet under the envelope."""
        absolute = (distances.unsqueeze(1) - self.centers) * self.inverse_width
        touching = self.radii.index_select(0, numbers_i) + self.radii.index_select(0, numbers_j)
        relative = (distances / touching).unsqueeze(1) - self.relative_centers
        arguments = torch.cat([absolute, relative * self.relative_inverse_width], dim=1)
        # Past the clamp a Gaussian would be a denormal number, which costs fifty times as much.
        return torch.exp((-0.5 * arguments**2).clamp_min(-30.0))
