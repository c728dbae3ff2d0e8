"""What the commands share."""

import os
import sys
from typing import Annotated, NoReturn

import typer

Model = Annotated[str, typer.Option(help="Name of shipped weights, or a path to a weights file.")]

Functional = Annotated[
    str, typer.Option(help="Functional to relax to: PBE, PBEsol, r2SCAN, optB88-vdW, unknown.")
]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]

Vacuum = Annotated[
    str, typer.Option(help="auto: never strain across a gap over 8 Å; none: strain all.")
]

FixedCell = Annotated[bool, typer.Option("--fixed-cell", help="Move atoms only.")]

AllowUnseen = Annotated[
    bool, typer.Option("--allow-unseen", help="Go on with elements the weights never saw.")
]

Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="Mean of all replicates of the weights.")
]

AlwaysMove = Annotated[
    bool, typer.Option("--always-move", help="Move also within the expected error.")
]

Format = Annotated[
    str | None, typer.Option("--format", help="Format to read, if the name of a file misleads.")
]

Species = Annotated[
    str | None,
    typer.Option(help="Elements of types that a file does not name, in their order: Mg,O."),
]

Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse files with rows that cannot be used.")
]

Limit = Annotated[int | None, typer.Option(min=1, help="At most so many crystals a file.")]


def available_cores() -> int:
    """Cores this process may use: what SLURM or OpenMP's variable gives it, within its affinity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    given = [os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")]
    limits = [int(value) for value in given if value.isdecimal() and int(value)]
    return min([cores or 1, *limits])


def limit_threads() -> None:
    """Let torch use no more threads than this process was given."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def stop(message: str) -> NoReturn:
    """End with a message and the exit code of a wrong call."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
