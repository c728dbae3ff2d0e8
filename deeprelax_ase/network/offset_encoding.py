"""Unit cell offset encoding, UCOE (Eq. 2 and 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class OffsetEncoding(nn.Module):
    """Sinusoidal code of the cell that an edge leads to.

    Offsets beyond +-2 are clamped: the code has 125 places.
    """

    def __init__(self, num_channels: int = 128) -> None:
        super().__init__()
        self.num_channels = num_channels
        places = torch.arange(125)[:, None]
        halves = torch.arange(num_channels // 2)[None, :]
        angles = places * 10_000.0 ** (-2.0 * halves / num_channels)
        codes = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(125, num_channels)
        self.register_buffer("codes", codes)
        self.codes: Tensor

    def forward(self, offsets: Int[Tensor, "edges 3"]) -> Float[Tensor, "edges channels"]:
        """Code of each offset."""
        clamped = offsets.clamp(-2, 2) + 2
        place = clamped @ clamped.new_tensor([1, 5, 25])
        return self.codes.index_select(0, place)
