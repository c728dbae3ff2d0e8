"""The command line, put together."""

import errno
import os
import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from deeprelax_ase.cli.data import data
from deeprelax_ase.cli.prepare import qe, vasp
from deeprelax_ase.cli.relax import relax
from deeprelax_ase.cli.screen import export, merge, screen
from deeprelax_ase.cli.weights import calibrate, evaluate, info, train

app = typer.Typer(no_args_is_help=True, add_completion=False)


def _print_version(is_asked: bool) -> bool:
    if is_asked:
        print(version("deeprelax-ase"))
        raise typer.Exit
    return is_asked


@app.callback()
def _plainly(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Relax crystal structures in one pass."""
    # A line each, without the place in the code that gave them.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


def main() -> None:
    """Run the command line, on terminals and in files that know no Å, and where output fails."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # What could not be printed is not tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


app.command()(relax)
app.command()(vasp)
app.command()(qe)
app.command()(screen)
app.command()(merge)
app.command()(export)
app.command()(info)
app.add_typer(data, name="data")
app.command()(train)
app.command()(evaluate)
app.command()(calibrate)
