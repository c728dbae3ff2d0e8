"""Options of a network: its architecture, and the functionals it can be told to relax to.

Frozen and validated; the `NetworkConfig` travels with the weights.
"""

from pydantic import BaseModel, ConfigDict, Field, field_validator

FUNCTIONALS = ("unknown", "PBE", "PBEsol", "r2SCAN", "optB88-vdW", "PBE-D3")
"""Exchange-correlation functionals that files of pairs and users may name."""

SOLVER_METHODS = ("joint", "bed")
"""How predicted distances become a structure, see `solver.solve`."""

EDGES_PER_BATCH = 32_000
"""Directed edges that are computed at once unless another number is given: about 50 MB on a CPU."""
RELATIVE_SPAN = (0.5, 2.8)
"""Distances over sums of radii that the relative Gaussians span."""
MEAN_PAIRS_PER_ATOM = 11.0
"""Sums over neighbours are scaled by it."""
MIN_LOG_SCALE, MAX_LOG_SCALE = -5.0, 2.0
"""Range of the logarithm of a Laplace scale."""
LOG_SCALE_START = -2.0
"""Logarithm of the Laplace scale that a head's raw zero stands for."""
PAIR_START, MOVE_START, STRAIN_START = -3.0, 0.5, 4.0
"""Logarithm, but for the softplus, of the certainty that a head's raw zero stands for."""
LEAST_WEIGHT = 1e-3
"""Of a term of the solve."""
_CUTOFF_MARGIN = 1e-4


class FrozenModel(BaseModel):
    """Options that cannot change and take no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NetworkConfig(FrozenModel):
    """Architecture of a `PaEGNN` and of the graph and the solve it was trained with."""

    num_features: int = Field(default=96, ge=8, description="F: scalars and vectors an atom")
    num_tensors: int = Field(default=32, ge=0, description="T: tensors of order 2 an atom")
    num_layers: int = Field(default=3, ge=1)
    cutoff: float = Field(default=6.0, gt=0, description="Å")
    max_neighbors: int = Field(default=12, ge=1, description="whole shells are kept beyond it")
    num_radial: int = Field(default=32, ge=2, description="Gaussians of the distance")
    num_relative: int = Field(default=24, ge=0, description="Gaussians of distance / radii")
    envelope_exponent: int = Field(default=5, ge=2)
    edge_features: int = Field(default=64, ge=4, description="width of the edge head")
    ucoe: bool = Field(default=False, description="unit cell offset encoding, Eq. 2-3")
    solver_steps: int = Field(default=1, ge=0, description="Gauss-Newton steps; 0: heads only")
    functionals: tuple[str, ...] = Field(
        default=FUNCTIONALS, description="that it can be told to relax to; the place is the token"
    )

    @field_validator("functionals")
    @classmethod
    def _has_unknown_first(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names[:1] != ("unknown",) or len({*names}) < len(names):
            msg = "functionals start with 'unknown' and hold every name once"
            raise ValueError(msg)
        return names

    @property
    def reach(self) -> float:
        """How far (Å) pairs are searched for.

        Those at just the cutoff, where they weigh nothing, are left out: many a lattice has a shell
        at 6 Å sharp, and rounding would decide which of its pairs are there.
        """
        return self.cutoff - _CUTOFF_MARGIN
