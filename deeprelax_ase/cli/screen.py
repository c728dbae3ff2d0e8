"""`deeprelax screen`, `merge` and `export`."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deeprelax_ase.cli.common import (
    FILE_OPTIONS,
    Force,
    Format,
    Species,
    available_cores,
    stop,
    with_relax_options,
    words_of,
)
from deeprelax_ase.cli.shares import output_of_share, share_of
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.result import SOUND, STATUSES

if TYPE_CHECKING:
    from deeprelax_ase.screening.rank_and_deduplicate import Summary

_MANY_REASONS = 8

MaxError = Annotated[
    float | None,
    typer.Option(min=0, help="Trust what has at most this expected error, Å (column `trusted`)."),
]
Deduplicate = Annotated[
    bool, typer.Option("--deduplicate", help="Group what relaxed to the same structure.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File ending in .parquet, .extxyz or .db (ASE).")
]
Report = Annotated[
    Path | None, typer.Option(help="Write an HTML page with distributions and 3D views.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@with_relax_options(*FILE_OPTIONS)
def screen(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, 'patterns*': extxyz, .db, JSON, CSV, parquet, zip, or any file."
        ),
    ],
    output: Output,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of one thread each; default: the cores there are."),
    ] = None,
    memory: Annotated[
        int, typer.Option(min=1, help="MiB that a batch may take in each process.")
    ] = 48,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: the I-th of N shares, into NAME-I-of-N; slurm or slurm/N: that of the task."
        ),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: its address, or auto.")
    ] = None,
    max_error: MaxError = None,
    deduplicate: Deduplicate = False,
    report: Report = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Refuse to begin anew: go on with work that is there.")
    ] = False,
    overwrite: Overwrite = False,
    form: Format = None,
    species: Species = None,
    force: Force = False,
    *,
    options: RelaxOptions,
    functional_given: bool,
) -> None:
    """Relax any number of structures; killed, the same command goes on where it was.

    Every structure has a row in the output, in the order of the input: relaxed, refused or failed,
    with the reason.
    """
    from deeprelax_ase.files.file_formats import named_format
    from deeprelax_ase.files.surroundings import ReadOptions
    from deeprelax_ase.files.unnamed_species import parse_species
    from deeprelax_ase.screening.chunk import edges_within
    from deeprelax_ase.screening.screening import Screening
    from deeprelax_ase.screening.work_folder import has_work, work_path

    index, count = share_of(shard, os.environ)
    if ray is not None and not _has_ray():
        stop("Ray is not installed: pip install 'deeprelax-ase[ray]', or leave --ray out")
    if resume and overwrite:
        stop("--resume goes on with what is done, and --overwrite throws it away: leave one out")
    _check_report(report, output)
    started = time.monotonic()
    outputs = [output_of_share(output, number, count) for number in range(1, count + 1)]
    others = [*outputs, *map(work_path, outputs), *([] if report is None else [report])]
    try:
        options = options.changed(edges_per_batch=edges_within(memory))
        run = Screening(
            inputs,
            output_of_share(output, index, count),
            options,
            shard=index,
            shards=count,
            max_error=max_error,
            deduplicate=deduplicate,
            overwrite=overwrite,
            leave_out=others,
            how=ReadOptions(
                None if form is None else named_format(form),
                parse_species(species),
                options.functional if functional_given else None,
                force,
            ),
        )
        if run.is_finished:
            print(f"{run.output} is complete already: nothing to do")
            if report is not None and report.exists():
                print(f"{report} is left as it is: --overwrite makes it anew", file=sys.stderr)
            else:
                _write_report(report, run.output)
            return
        _check_is_free(report, overwrite)
        if resume and not has_work(run.output):
            stop(f"there is no work to resume for {run.output}: leave --resume out")
        summary = run.relax(lambda: _pool(options, workers, ray))
        _write_report(report, run.output)
    except KeyboardInterrupt:
        print("stopped: what is done is kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        _stop_at_disk(error, output)
    _print_summary(run.output, summary, max_error, time.monotonic() - started)
    if summary.count and not any(summary.statuses.get(status) for status in SOUND):
        raise typer.Exit(1)


def merge(
    shares: Annotated[list[Path], typer.Argument(help="Parquet outputs of all shares of a run.")],
    output: Output,
    max_error: MaxError = None,
    deduplicate: Deduplicate = False,
    report: Report = None,
    overwrite: Overwrite = False,
) -> None:
    """Put the shares of a screening together, in the order of the input.

    Also for a single output, to rank, split or deduplicate it in another way.
    """
    from deeprelax_ase.screening.merge_shards import merge
    from deeprelax_ase.screening.output_formats import run_of

    _check_report(report, output, shares)
    _check_is_free(report, overwrite)
    started = time.monotonic()
    try:
        summary = merge(
            shares, output, max_error=max_error, deduplicate=deduplicate, overwrite=overwrite
        )
        _write_report(report, output)
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        _stop_at_disk(error, output)
    run = run_of(shares[0])
    if max_error is None and run is not None:
        max_error = run["max_error"]
    _print_summary(output, summary, max_error, time.monotonic() - started)


def export(
    results: Annotated[Path, typer.Argument(help="Parquet output of a screening.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the files; made if need be.")],
    form: Annotated[
        Literal["cif", "poscar"], typer.Option("--format", help="Format of the files.")
    ] = "cif",
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Only within the limit of --max-error.")
    ] = False,
    unique: Annotated[
        bool, typer.Option("--unique", help="Only one of each group of duplicates.")
    ] = False,
) -> None:
    """Write the relaxed structures of a screening as files of their own."""
    from deeprelax_ase.screening.export import export

    ending = "cif" if form == "cif" else "vasp"
    try:
        count = export(results, folder, ending, trusted=trusted, unique=unique)
    except (ValueError, OSError) as error:
        stop(words_of(error, folder))
    print(f"{folder}: {count} structures")


def _has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def _pool(options: Any, workers: int | None, ray: str | None) -> Any:
    if ray is not None:
        from deeprelax_ase.screening.ray_pool import RayPool

        return RayPool(options, ray, workers)
    from deeprelax_ase.screening.process_pool import ProcessPool

    return ProcessPool(options, workers or available_cores())


def _check_report(report: Path | None, output: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse a report that could not be written in the end, before anything is done."""
    if report is None:
        return
    if output.suffix != ".parquet":
        stop(f"{output}: a report is made from a parquet output; end its name in .parquet")
    if not report.absolute().parent.is_dir():
        stop(f"there is no folder {report.parent} for the report: make it, or name another report")
    if os.path.realpath(report) == os.path.realpath(output):
        stop(f"{report} is the output as well: name another report")
    if any(os.path.realpath(report) == os.path.realpath(path) for path in inputs):
        stop(f"{report} is an input as well: name another report")


def _check_is_free(report: Path | None, overwrite: bool) -> None:
    """Refuse a report that is there."""
    if report is not None and report.exists() and not overwrite:
        stop(f"{report} exists: pass --overwrite to replace it, or name another report")


def _write_report(report: Path | None, output: Path) -> None:
    if report is None:
        return
    from deeprelax_ase.screening.html_report import write_page

    write_page(report, output)
    print(f"{report}: report", file=sys.stderr)


def _stop_at_disk(error: OSError, output: Path) -> None:
    stop(
        f"cannot write {words_of(error, output)}; what is done is kept: once that is mended, the "
        "same command goes on"
    )


def _print_summary(
    output: Path, summary: "Summary", max_error: float | None, seconds: float
) -> None:
    import numpy as np

    print(f"{output}: {summary.count:,} structures in {seconds:.1f} s")
    for status in STATUSES:
        print(f"  {status:<9} {summary.statuses.get(status, 0):>9,}")
        reasons = [(n, why) for (of, why), n in summary.reasons.items() if of == status]
        for count, why in sorted(reasons, reverse=True)[:_MANY_REASONS]:
            print(f"    {count:>7,}  {why}")
    errors = summary.expected_errors
    if len(errors):
        low, middle, high = np.quantile(errors, (0.1, 0.5, 0.9))
        print(
            f"  expected error / Å: 10 % {low:.3f}, median {middle:.3f}, 90 % {high:.3f}, "
            f"largest {errors[-1]:.3f}"
        )
    if summary.trusted is not None:
        print(f"  trusted (at most {max_error:g} Å): {summary.trusted:,}")
    if summary.groups is not None:
        print(f"  different structures: {summary.groups:,}")
