"""Options of a training run, as one frozen and validated model.

One YAML or JSON file makes one `TrainConfig`. No defaults live anywhere else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from deeprelax_ase.datasets.config import NoiseConfig, SourceConfig
from deeprelax_ase.network.config import FUNCTIONALS, FrozenModel, NetworkConfig


class LossConfig(FrozenModel):
    """Weights of the terms of the loss."""

    nll: float = Field(default=0.3, ge=0, description="Laplace likelihood of the heads, Eq. 11-15")
    beta: float = Field(default=0.5, ge=0, le=1, description="0: plain likelihood, 1: as L1")
    displacement: float = Field(default=1.0, ge=0, description="after the solve, per Å")
    strain: float = Field(default=1.5, ge=0, description="after the solve, Frobenius norm")
    volume: float = Field(default=0.5, ge=0, description="after the solve, log of the volume")

    @model_validator(mode="after")
    def _something_counts(self) -> "LossConfig":
        if not any((self.nll, self.displacement, self.strain, self.volume)):
            msg = "every term of the loss weighs nothing: give one of them a weight"
            raise ValueError(msg)
        return self


class TrainConfig(FrozenModel):
    """One training run."""

    name: str
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    start_from: Path | None = Field(default=None, description="weights to go on from")
    freeze_trunk: bool = Field(default=False, description="train the heads alone")
    strict: bool = Field(default=False, description="refuse files with rows that cannot be used")
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    denoising: NoiseConfig = NoiseConfig()
    augmentation: NoiseConfig | None = None
    own_outputs: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of steps after which what the averaged network makes of the batch is "
        "trained on too, as inputs of the same targets",
    )
    unknown_functional: float = Field(
        default=0.0, ge=0, le=1, description="share of pairs whose functional is not told"
    )
    own_passes: int = Field(default=2, ge=1, description="at most so many passes ahead")
    steps: int = Field(default=20_000, ge=1)
    edges_per_batch: int = Field(default=9_000, ge=100, description="both directions counted")
    schedule: Literal["cosine", "plateau"] = Field(
        default="cosine", description="decay; plateau: shrink when the validation stands still"
    )
    plateau_factor: float = Field(default=0.8, gt=0, lt=1)
    plateau_patience: int = Field(default=5, ge=0, description="validations without a gain")
    learning_rate: float = Field(default=1.5e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    warmup_steps: int = Field(default=300, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    clip_norm: float = Field(default=5.0, gt=0)
    seed: int = 0
    validate_every: int = Field(default=2_000, ge=1)
    log_every: int = Field(default=100, ge=1, description="steps")
    validation_limit: int = Field(default=400, ge=1, description="crystals a file")
    checkpoint_minutes: float = Field(default=3.0, gt=0)
    threads: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=0, description="processes that build graphs ahead")
    compile: bool = Field(default=False, description="torch.compile; needs a C++ compiler")
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _functionals_can_be_asked_for(self) -> "TrainConfig":
        for name in self.network.functionals:
            if name not in FUNCTIONALS:
                msg = f"network.functionals has {name!r}: choose from {', '.join(FUNCTIONALS)}"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _a_frozen_trunk_needs_weights(self) -> "TrainConfig":
        if self.freeze_trunk and self.start_from is None:
            msg = "freeze_trunk trains heads on a trunk of random weights: name start_from (--from)"
            raise ValueError(msg)
        return self


class _TwiceError(ValueError):
    """An entry has two values."""


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of its entries, of which none stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        msg = f"{twice!r} stands there twice: leave one of them"
        raise _TwiceError(msg)
    return found


class _OnceLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is not typed
    """YAML whose mappings name an entry once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML does, and refuse an entry that stands there twice."""
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        _once([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return found


def read_config(path: Path, data: Path | None = None, **changes: Any) -> TrainConfig:
    """Read a training run from JSON or YAML.

    Args:
        path: The file.
        data: Folder that relative paths of sources start from; that of the file if None. The
            `start_from` of the file is beside the file.
        changes: Entries that replace those of the file.

    Raises:
        ValueError: No such file, or not a valid configuration; every wrong entry is named.
    """
    if not path.is_file():
        msg = f"no configuration {path}"
        raise ValueError(msg)
    try:
        text = path.read_text()
        try:
            entries = json.loads(text, object_pairs_hook=_once)  # tabs and 1e1 are no YAML
        except json.JSONDecodeError:
            entries = yaml.load(text, _OnceLoader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from error
    except _TwiceError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    if not isinstance(entries, dict):
        msg = f"{path} holds no configuration"
        raise ValueError(msg)
    config = checked_config(entries | changes, str(path))
    folder = data or path.parent
    places: dict[str, Any] = {
        "sources": tuple(s.model_copy(update={"path": folder / s.path}) for s in config.sources)
    }
    if config.start_from is not None and "start_from" not in changes:
        places["start_from"] = path.parent / config.start_from
    return config.model_copy(update=places)


def checked_config(entries: dict[str, Any], where: str) -> TrainConfig:
    """A training run of its entries.

    Args:
        entries: Of a `TrainConfig`.
        where: They stand, for the message.

    Raises:
        ValueError: They are no valid configuration; every wrong entry is named.
    """
    try:
        return TrainConfig.model_validate(entries)
    except ValidationError as error:
        msg = f"{where}: {'; '.join(_complaints(error))}"
        raise ValueError(msg) from error


def _complaints(error: ValidationError) -> Iterator[str]:
    """What is wrong with each entry; not also with what contains it."""
    problems = error.errors(include_url=False)
    places = [problem["loc"] for problem in problems]
    for problem, place in zip(problems, places, strict=True):
        if any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue
        name = ".".join(map(str, place))
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            yield f"{name} is no option"
        elif problem["type"] == "missing":
            yield f"{name} is missing"
        elif name:
            yield f"{name} is {problem['input']!r}: {reason[0].lower()}{reason[1:]}"
        else:
            yield reason
