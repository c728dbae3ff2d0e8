"""What the commands share."""

import sys
from typing import Annotated, NoReturn

import typer

Model = Annotated[str, typer.Option(help="Name of shipped weights, or a path to a weights file.")]

Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="Mean of all replicates of the weights.")
]

AlwaysMove = Annotated[
    bool, typer.Option("--always-move", help="Move also within the expected error.")
]

Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse files with rows that cannot be used.")
]

Limit = Annotated[int | None, typer.Option(min=1, help="At most so many crystals a file.")]


def stop(message: str) -> NoReturn:
    """End with a message and the exit code of a wrong call."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
