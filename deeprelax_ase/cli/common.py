"""Options and helpers that the commands share."""

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import typer

from deeprelax_ase.network.config import FUNCTIONALS
from deeprelax_ase.relaxation.devices import limit_torch
from deeprelax_ase.relaxation.options import RelaxOptions

Model = Annotated[str, typer.Option(help="Name of shipped weights, or a path to a weights file.")]

Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="Mean of all replicates of the weights.")
]

AlwaysMove = Annotated[
    bool, typer.Option("--always-move", help="Move whatever the probability of a gain.")
]

Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Relax also what the calculation around a structure says is not to be relaxed.",
    ),
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


FILE_OPTIONS = (
    "functional",
    "model",
    "device",
    "passes",
    "hold",
    "relax_cell",
    "vacuum",
    "allow_unseen",
    "ensemble",
    "min_gain",
    "always_move",
)
"""Options of the commands that relax files, by their names in `RelaxOptions`."""


def available_cores() -> int:
    """Cores this process may use: what SLURM or OpenMP's variable gives it, within its affinity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    given = [os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")]
    first = [value.partition(",")[0].strip() for value in given]  # of nested levels, the outer
    limits = [int(value) for value in first if value.isdecimal() and int(value)]
    return min([cores or 1, *limits])


def limit_threads() -> None:
    """Let torch use no more threads than this process was given, also where it comes later."""
    limit_torch(available_cores())


def words_of(error: Exception, place: Any) -> str:
    """An error in a sentence; one of the disk names the file, or at least the place."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or place}: {error.strerror or error}"


def stop(message: str) -> NoReturn:
    """End with a message and the exit code of a wrong call."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)


def with_relax_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each of these fields of `RelaxOptions`.

    The command gets them as one object, `options`, and `functional_given`: whether the user named
    a functional, which then goes before that of the calculation around a structure.
    """
    texts = {field.name: field.metadata["help"] for field in fields(RelaxOptions)}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            chosen = {name: given.pop(_name_on_line(name)) for name in names}
            if "relax_cell" in chosen:
                chosen["relax_cell"] = not chosen["relax_cell"]
            functional_given = chosen.get("functional") is not None
            if not functional_given:
                chosen.pop("functional", None)
            try:
                options = RelaxOptions(**chosen)
            except ValueError as error:
                stop(str(error))
            return command(**given, options=options, functional_given=functional_given)

        own = inspect.signature(command, eval_str=True)
        kept = [p for n, p in own.parameters.items() if n not in ("options", "functional_given")]
        added = [_parameter(name, texts[name]) for name in names]
        run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*kept, *added]}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _name_on_line(name: str) -> str:
    return "fixed_cell" if name == "relax_cell" else name


def _parameter(name: str, text: str) -> inspect.Parameter:
    """An option of the command line for a field of `RelaxOptions`."""
    default = RelaxOptions.__dataclass_fields__[name].default
    shown = _name_on_line(name)
    kind: Any = type(default)
    if isinstance(default, bool):
        option, default = typer.Option(f"--{shown.replace('_', '-')}", help=text), False
    else:
        option, kind = typer.Option(help=text), int if isinstance(default, int) else str
        if name == "functional":
            choices = ", ".join(FUNCTIONALS)
            option = typer.Option(
                help=f"{choices}; default: that of the calculation around a structure, or PBE."
            )
        if name in ("functional", "hold"):
            kind, default = str | None, None
        elif name == "min_gain":
            kind = float | None
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        shown, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
