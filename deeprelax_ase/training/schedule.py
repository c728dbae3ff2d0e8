"""Learning rates: warm-up, then cosine decay or the paper's reduction on plateaus."""

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from deeprelax_ase.training.config import TrainConfig


class Schedule:
    """Sets the learning rate of an optimizer before each step.

    Args:
        config: The run.
        optimizer: Its learning rate is set.
    """

    def __init__(self, config: TrainConfig, optimizer: torch.optim.Optimizer) -> None:
        self._config = config
        self._optimizer = optimizer
        # The plateau's own rate lives in an optimizer of nothing, untouched by the warm-up.
        self._reduced = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
        self._plateau = ReduceLROnPlateau(
            self._reduced,
            mode="max",
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            min_lr=config.final_learning_rate,
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        config = self._config
        reduced = float(self._reduced.param_groups[0]["lr"])
        highest = config.learning_rate if config.schedule == "cosine" else reduced
        if step < config.warmup_steps:
            return highest * (step + 1) / config.warmup_steps
        if config.schedule == "plateau":
            return highest
        done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
        swing = highest - config.final_learning_rate
        return config.final_learning_rate + swing * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def apply(self, step: int) -> None:
        """Set the learning rate of a step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step)

    def report(self, score: float) -> None:
        """Take note of a validation; higher is better."""
        self._plateau.step(score)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it."""
        entries = {
            name: value
            for name, value in self._plateau.state_dict().items()
            if isinstance(value, int | float | str | bool)
        }
        return entries | {"rate": self._reduced.param_groups[0]["lr"]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        state = dict(state)
        self._reduced.param_groups[0]["lr"] = state.pop("rate")
        self._plateau.load_state_dict(state)
