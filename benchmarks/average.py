"""Average the weights of several stages of one training: `python -m benchmarks.average OUT A B...`.

Networks that were trained on from the same weights lie in one basin, where the mean of their
weights is better than either. Calibration has to be fitted anew.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from deeprelax_ase.cli.common import stop
from deeprelax_ase.network.checkpoint import load_weights, save_weights


def average(
    out: Annotated[Path, typer.Argument(help="Weights file to write.")],
    weights: Annotated[list[str], typer.Argument(help="Names or paths; the last one's record.")],
) -> None:
    """Write the mean of several weights, with the record of how the last was trained."""
    try:
        known = [load_weights(name) for name in weights]
        if any(one.network.config != known[0].network.config for one in known):
            stop(f"{', '.join(weights)} are not of one configuration: average stages of one run")
        network = known[-1].network
        states = [one.network.state_dict() for one in known]
        mean = {
            key: torch.stack([state[key].double() for state in states]).mean(dim=0).to(value.dtype)
            for key, value in states[-1].items()
        }
        network.load_state_dict(mean)
        record = {**known[-1].provenance, "average_of": [one.sha256 for one in known]}
        save_weights(out, network, record, known[-1].calibration)
    except (ValueError, OSError) as error:
        stop(str(error))
    print(f"{out}: mean of {len(known)}")


if __name__ == "__main__":
    typer.run(average)
