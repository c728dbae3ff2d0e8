"""How the features of a module transform, in e3nn's words."""

from typing import Any, NamedTuple

from torch import nn


class Multiplicities(NamedTuple):
    """How many scalars, vectors and second-order tensors there are of an atom."""

    scalars: int
    vectors: int = 0
    tensors: int = 0


class Equivariant(nn.Module):
    """A module whose features turn with the crystal.

    Args:
        features_in: What it takes.
        features_out: What it gives; the same if None.
    """

    def __init__(
        self, features_in: Multiplicities, features_out: Multiplicities | None = None
    ) -> None:
        super().__init__()
        self._features = features_in, features_out or features_in

    @property
    def irreps_in(self) -> Any:
        """`e3nn.o3.Irreps` of what it takes."""
        return _irreps(self._features[0])

    @property
    def irreps_out(self) -> Any:
        """`e3nn.o3.Irreps` of what it gives."""
        return _irreps(self._features[1])


def _irreps(features: Multiplicities) -> Any:
    # e3nn imports the compiler of torch, for a second, and prediction needs neither.
    from e3nn import o3

    return o3.Irreps([(n, irrep) for n, irrep in zip(features, ("0e", "1o", "2e"), strict=True)])
