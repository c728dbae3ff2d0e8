"""`deeprelax data`: files of pairs from published data sets, own runs and relaxed crystals."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeprelax_ase.cli.common import stop

if TYPE_CHECKING:
    from deeprelax_ase.datasets.write_pairs import Row

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


class _ConvertByDefault(typer.core.TyperGroup):
    """`data SOURCE OUT` is short for `data convert SOURCE OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["convert", *args]
        return super().parse_args(ctx, args)


data = typer.Typer(
    cls=_ConvertByDefault,
    no_args_is_help=True,
    help="Make files of pairs to train on: `deeprelax data SOURCE OUT.parquet`.",
)


@data.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published data set, VASP runs, a trajectory.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    functional: Annotated[
        str | None, typer.Option(help="Of all targets; default: what the source says.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a source with a pair that cannot be used.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a source into pairs of one schema, cleaned up.

    Knows X-Mn-O (Cryslator), MPF.2021.2.8, C2DB, the defects of DefiNet, VASP run folders and ASE
    trajectories.
    """
    from deeprelax_ase.datasets.import_pairs import Report, convert, kinds_left_out

    report = Report()
    try:
        written = _write(out, convert(source, report, functional, strict=strict), overwrite)
        print(f"{out}: {written} pairs of {report.read}, {report.num_skipped} left out")
        unnamed = _count_unnamed(out)
        if unnamed:
            print(
                f"note: {unnamed} pairs are of no functional that is known: name it with "
                "--functional, if you know it",
                file=sys.stderr,
            )
        for kind in kinds_left_out(source):
            print(
                f"note: {source} also holds a {kind}, which was not read: give it alone",
                file=sys.stderr,
            )
    finally:
        for reason, count in report.skipped.most_common():
            print(f"  {count}: {reason}", file=sys.stderr)
        if report.first:
            print(f"  the first: {report.first}", file=sys.stderr)


def _count_unnamed(path: Path) -> int:
    import pyarrow.parquet as pq

    named = pq.read_table(path, columns=["functional"])["functional"].to_pylist()
    return sum(name == "unknown" for name in named)


@data.command()
def substitute(
    relaxed: Annotated[Path, typer.Argument(help="Parquet file of relaxed crystals.")],
    out: Annotated[
        Path | None, typer.Argument(help="Parquet file to write; default: beside RELAXED.")
    ] = None,
    neighbors: Annotated[int, typer.Option(min=1, help="Pairs a crystal at most.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random choice of neighbours.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Isostructural substitution pairs: each crystal from its neighbours' structures."""
    from deeprelax_ase.datasets.substitution import substitute

    out = out or relaxed.with_name(f"{relaxed.stem}_substitution.parquet")
    print(f"{out}: {_write(out, substitute(relaxed, neighbors, seed, workers), overwrite)} pairs")


def _write(out: Path, rows: "Iterable[Row]", overwrite: bool) -> int:
    from deeprelax_ase.datasets.write_pairs import write_pairs

    if out.suffix != ".parquet":
        stop(f"{out} is to be a parquet file: end its name in .parquet")
    if out.exists() and not overwrite:
        stop(f"{out} exists: pass --overwrite to replace it, or name another file")
    if not out.absolute().parent.is_dir():
        stop(f"there is no folder {out.parent}: make it, or name another file")
    try:
        return write_pairs(out, rows)
    except (ValueError, OSError) as error:
        stop(str(error))
