"""`python -m benchmarks all|publish|speed|accuracy|...`: DeepRelax beside its rivals."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import store
from benchmarks.environments import RivalError
from deeprelax_ase.cli.common import Strict, stop

app = typer.Typer(
    help="DeepRelax beside the potentials it stands in for: tables, JSON and figures.",
    no_args_is_help=True,
    add_completion=False,
)

Pairs = Annotated[
    list[Path], typer.Argument(help="Parquet files of pairs, in the schema of `deeprelax data`.")
]
Structures = Annotated[
    list[str],
    typer.Argument(help="A parquet file of pairs; or structure files, folders, 'patterns*'."),
]
Rivals = Annotated[
    list[str], typer.Option("--rival", "-r", help="Which to run beside us; may be repeated.")
]
Root = Annotated[
    Path, typer.Option("--work", help="Folder of the rivals' environments and of their answers.")
]
RivalWeights = Annotated[
    list[str],
    typer.Option(
        "--weights",
        metavar="RIVAL=PATH",
        help="File or folder of a rival's weights, where its package has none; may be repeated.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of tables, JSON and figures.")]
Limit = Annotated[int, typer.Option(min=1, help="Crystals a file, evenly spaced.")]
Split = Annotated[str, typer.Option(help="train, val or test.")]
_DEFAULT_RIVALS = ["m3gnet", "chgnet"]
_ALL_RIVALS: list[str] = []
_NO_WEIGHTS: list[str] = []
_CHECK_RIVALS = ["chgnet"]
_DEFAULT_OPTIMIZERS, _DEFAULT_CELLS = ["FIRE"], ["free"]
_DEFAULT_ROOT = Path("benchmarks-work")
_DEFAULT_OUT = Path("benchmarks-out")


@app.command("all")
def everything(
    data: Annotated[Path, typer.Option(help="Folder of the files of pairs.")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measurements, of those that `--help` names; may be repeated."),
    ] = None,
    rivals: Rivals = _ALL_RIVALS,
    work: Root = _DEFAULT_ROOT,
    weights: RivalWeights = _NO_WEIGHTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is out of date, and measure nothing.")
    ] = False,
) -> None:
    """Measure what is out of date, and write it into README, manual and model card.

    The measurements are evaluations, kinds, picture, real_runs, accuracy, steps, clients, speed and
    dft. Out of date is what other weights, other crystals or other versions of a rival gave. Every
    answer of a rival is kept: a second call goes on where the first one stopped.
    """
    from benchmarks.update import UPDATES, Bench

    def run() -> None:
        unknown = [name for name in only or () if name not in UPDATES]
        if unknown:
            msg = f"no measurement {unknown[0]!r}: choose from {', '.join(UPDATES)}"
            raise ValueError(msg)
        if not data.is_dir():
            msg = f"no folder {data}: --data names the one of the files of pairs"
            raise ValueError(msg)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(data, work, _paths(weights), rivals, is_trial=dry_run)
        with closing(bench):
            for name in only or UPDATES:
                UPDATES[name](bench)
        if not dry_run:
            _publish()

    _guarded(run)


@app.command()
def publish() -> None:
    """Write the numbers of `benchmarks/results` into README, manual, model card and figures."""
    _guarded(_publish)


@app.command()
def speed(
    structures: Structures,
    rivals: Rivals = _DEFAULT_RIVALS,
    limit: Limit = 100,
    least: Annotated[int, typer.Option(help="Atoms of the smallest crystal.")] = 2,
    most: Annotated[int, typer.Option(help="Atoms of the largest crystal.")] = 40,
    longest: Annotated[
        float, typer.Option(help="Seconds after which a rival is asked for no larger crystal.")
    ] = 30.0,
    work: Root = _DEFAULT_ROOT,
    weights: RivalWeights = _NO_WEIGHTS,
    out: Out = _DEFAULT_OUT,
    split: Split = "val",
) -> None:
    """How much faster it is than relaxing with a rival, crystal by crystal and in batches."""
    from benchmarks import plots
    from benchmarks import speed as measure
    from benchmarks.cases import find_cases
    from benchmarks.rival import start_rivals

    def run() -> None:
        cases = find_cases(structures, limit, split, sizes=(least, most))
        started = start_rivals(rivals, work, _paths(weights), recorded=False)
        found = measure.measure(cases, started, longest)
        _write(out, "speed", found, measure.table(found), started)
        plots.plot_growth(found["growth"], out / "speed.png")

    _guarded(run)


@app.command()
def accuracy(
    pairs: Pairs,
    rivals: Rivals = _DEFAULT_RIVALS,
    limit: Limit = 200,
    work: Root = _DEFAULT_ROOT,
    weights: RivalWeights = _NO_WEIGHTS,
    out: Out = _DEFAULT_OUT,
    split: Split = "val",
    strict: Strict = False,
) -> None:
    """How near to DFT it comes, compared with rivals. Goes on where it was interrupted."""
    from benchmarks import accuracy as measure
    from benchmarks import plots
    from benchmarks.cases import choose_cases
    from benchmarks.rival import start_rivals
    from deeprelax_ase.datasets.pair_file import file_labels

    def run() -> None:
        files = dict(zip(file_labels(pairs), pairs, strict=True))
        chosen = {
            name: choose_cases(path, limit, split, strict=strict) for name, path in files.items()
        }
        started = start_rivals(rivals, work, _paths(weights), recorded=True)
        found = {name: measure.compare(cases, started) for name, cases in chosen.items()}
        tables = "\n\n".join(f"`{name}`:\n\n{measure.table(f)}" for name, f in found.items())
        _write(out, "accuracy", found, tables, started)
        plots.plot_accuracy(found, out / "accuracy.png")

    _guarded(run)


@app.command()
def steps(
    structures: Structures,
    rivals: Rivals = _DEFAULT_RIVALS,
    limit: Limit = 200,
    work: Root = _DEFAULT_ROOT,
    weights: RivalWeights = _NO_WEIGHTS,
    out: Out = _DEFAULT_OUT,
    split: Split = "val",
) -> None:
    """How many relaxation steps it saves when it goes first. Goes on where it was interrupted."""
    from benchmarks import plots
    from benchmarks import steps as measure
    from benchmarks.cases import find_cases
    from benchmarks.rival import going_on, start_rivals

    def run() -> None:
        cases = find_cases(structures, limit, split)
        started = start_rivals(rivals, work, _paths(weights), recorded=True)
        found: dict[str, Any] = {}
        for name, rival in started.items():
            with going_on():
                found[name] = measure.compare(cases, rival)
        _write(out, "steps", found, measure.table(found), found)
        plots.plot_steps(found, out / "steps.png")

    _guarded(run)


@app.command()
def clients(
    pairs: Pairs,
    only: Annotated[
        list[str] | None, typer.Option("--client", help="Which; may be repeated; default: all.")
    ] = None,
    optimizers: Annotated[
        list[str], typer.Option("--optimizer", help="FIRE, BFGS or LBFGS; may be repeated.")
    ] = _DEFAULT_OPTIMIZERS,
    cells: Annotated[
        list[str], typer.Option("--cell", help="free, fixed or symmetric; may be repeated.")
    ] = _DEFAULT_CELLS,
    limit: Limit = 20,
    work: Root = _DEFAULT_ROOT,
    out: Out = _DEFAULT_OUT,
) -> None:
    """The scripts under `examples/` with a stock optimizer and with ours, on CHGNet."""
    from benchmarks import clients as measure
    from benchmarks.cases import choose_cases

    def run() -> None:
        cases = {path.stem: choose_cases(path, limit, sizes=(1, 40)) for path in pairs}
        ways = [measure.Way(one, cell) for one in optimizers for cell in cells]
        found = measure.run_clients(only or list(measure.CLIENTS), cases, work, ways)
        pins = sorted({f"clients/{measure.CLIENTS[label.split()[0]]}" for label in found})
        _write(out, "clients", {"clients": found}, measure.table(found), pins)

    _guarded(run)


@app.command()
def check(
    pairs: Pairs,
    rivals: Rivals = _CHECK_RIVALS,
    update: Annotated[
        bool, typer.Option("--update", help="Make what is measured the new baseline.")
    ] = False,
    work: Root = _DEFAULT_ROOT,
    weights: RivalWeights = _NO_WEIGHTS,
) -> None:
    """Fail if one of our ratios is more than 20 % worse than in `baseline.json`.

    Speed is measured on 20 crystals of the first file, accuracy on 200 of each.
    """
    from benchmarks import check as measure
    from benchmarks.cases import choose_cases
    from benchmarks.rival import start_rivals

    def run() -> None:
        baseline = {} if update else measure.read_baseline()["ratios"]
        cases = {path.stem: choose_cases(path, 200) for path in pairs}
        timed = choose_cases(pairs[0], 20, sizes=(2, 40))
        started = start_rivals(rivals, work, _paths(weights), recorded=False)
        now = measure.measure(timed, cases, started)
        for name, value in now.items():
            print(f"{name}: {value:.3g}")
        if update:
            text = json.dumps({"ratios": now, **store.of_this_run(started)}, indent=1)
            measure.BASELINE.write_text(text + "\n")
        worse = measure.worsened(baseline, now)
        for sentence in worse:
            print(f"worse: {sentence}", file=sys.stderr)
        if worse:
            raise typer.Exit(1)

    _guarded(run)


def _publish() -> None:
    from benchmarks import figures
    from benchmarks import publish as pages

    pages.write_pages()
    figures.draw()


def _paths(weights: list[str]) -> dict[str, Path]:
    """Weights of rivals by name.

    Raises:
        ValueError: Not of the form RIVAL=PATH.
    """
    parts = [entry.partition("=") for entry in weights]
    for entry, (name, _, path) in zip(weights, parts, strict=True):
        if not name or not path:
            msg = f"--weights {entry}: give RIVAL=PATH, such as m3gnet=MP-2021.2.8-EFS"
            raise ValueError(msg)
    return {name: Path(path) for name, _, path in parts}


def _guarded(run: Callable[[], None]) -> None:
    """Run; what is wrong with the input or a rival is one sentence and the exit code 2."""
    try:
        run()
    except (ValueError, OSError, RivalError) as error:
        stop(str(error))


def _write(
    folder: Path, name: str, found: dict[str, Any], table: str, rivals: Iterable[str]
) -> None:
    """Print a table and write it, and everything that was found as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    print(table)
    (folder / f"{name}.md").write_text(table + "\n")
    store.write(name, {**found, store.MADE_WITH: store.of_this_run(rivals)}, folder)


if __name__ == "__main__":
    app()
