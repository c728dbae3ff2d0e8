"""The mean of the weights of stages of one training: better than each, at the cost of one."""

from collections.abc import Sequence
from pathlib import Path

import torch

from deeprelax_ase.network.checkpoint import load_weights, save_weights


def average(out: Path, files: Sequence[Path]) -> None:
    """Write the mean of weights; what is known of the first of them is known of it.

    Raises:
        ValueError: A file cannot be used, or they are not of one configuration.
    """
    known = [load_weights(path) for path in files]
    first = known[0]
    for weights in known:
        if weights.network.config != first.network.config:
            msg = f"{weights.name} and {first.name} are not of one configuration"
            raise ValueError(msg)
    states = [weights.network.state_dict() for weights in known]
    mean = {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in states[0]}
    first.network.load_state_dict(mean)
    record = dict(first.provenance)
    if len(known) > 1:
        record["average_of"] = [weights.sha256 for weights in known]
    save_weights(out, first.network, record)
