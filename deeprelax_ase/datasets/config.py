"""Options of the files a network is trained on: what they are, and how crystals are disturbed."""

from pathlib import Path

from pydantic import Field

from deeprelax_ase.network.config import FrozenModel


class SourceConfig(FrozenModel):
    """One parquet file of a training mixture.

    `passes` is how often an epoch goes over it: 2 shows it twice, 0.2 a random fifth. A file of
    relaxed crystals (no `relaxed_cell` column) is turned into denoising pairs on the fly.
    """

    path: Path
    passes: float = Field(default=1.0, gt=0)
    share: float = Field(default=1.0, gt=0, le=1, description="of its rows, a fixed random choice")


class NoiseConfig(FrozenModel):
    """How crystals are disturbed: denoising pairs of relaxed ones, augmentation of the others."""

    max_rattle: float = Field(default=0.3, ge=0, description="largest root mean square, Å")
    max_log_volume: float = Field(default=0.25, ge=0)
    max_strain: float = Field(default=0.08, ge=0, description="largest component of shear")
    untouched: float = Field(default=0.2, ge=0, le=1, description="share left as it is")
    on_the_way: float = Field(
        default=0.0, ge=0, le=1, description="share of inputs first moved a random part of the way"
    )
