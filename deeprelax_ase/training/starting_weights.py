"""What a training run starts from: random weights, or given ones."""

from deeprelax_ase.network.checkpoint import Weights
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.training.config import TrainConfig


def starting_network(config: TrainConfig, weights: Weights | None) -> PaEGNN:
    """Of random weights or of given ones; without gradients where it is frozen.

    Raises:
        ValueError: The weights are of another network.
    """
    network = PaEGNN(config.network)
    if weights is not None:
        if weights.network.config != config.network:
            theirs, ours = weights.network.config.model_dump(), config.network.model_dump()
            differing = [name for name, value in ours.items() if theirs[name] != value]
            msg = (
                f"{config.start_from} is of another network: it differs in "
                f"{', '.join(f'{name} ({theirs[name]}, not {ours[name]})' for name in differing)}"
            )
            raise ValueError(msg)
        network.load_state_dict(weights.network.state_dict())
    if config.freeze_trunk:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.split(".")[0].endswith("_head"))
    return network
