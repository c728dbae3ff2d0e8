"""Measure what is out of date: what was made with other weights, crystals or versions of rivals.

Each result is kept as soon as it is known, so that a run goes on where the last one stopped, and
runs for different rivals can work side by side. What keeps a rival out is printed.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import accuracy, clients, dft, kinds, picture, plan, real, speed, steps, store
from benchmarks.cases import Case, choose_cases, spaced
from benchmarks.environments import RivalError
from benchmarks.plan import Set
from benchmarks.rival import Rival, going_on, start_rivals
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.evaluation.evaluate import evaluate
from deeprelax_ase.evaluation.tables import as_json
from deeprelax_ase.network.checkpoint import load_weights

_ROOT = Path(__file__).parent.parent
_EVALUATIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "val": ("val", {"match": True}),
    "test": ("test", {"match": True}),
    "test-3-passes": ("test", {"passes": 3}),
}


@dataclass
class Bench:
    """Where everything is.

    Attributes:
        data: Folder of the files of pairs.
        work: Folder of the rivals' environments and of their answers.
        weights: Files or folders of the weights of rivals.
        only: Rivals that may be asked; all if empty.
        is_trial: Whether to say what is out of date and leave it at that.
        results: Folder of the results.
    """

    data: Path
    work: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    only: Sequence[str] = ()
    is_trial: bool = False
    results: Path = store.RESULTS
    _started: dict[tuple[str, bool], Rival | None] = field(default_factory=dict)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Those rivals that may be asked."""
        return [name for name in names if not self.only or name in self.only]

    def rivals(self, names: Iterable[str], *, recorded: bool = True) -> dict[str, Rival]:
        """Those rivals that are wanted and can be started."""
        found = {name: self.rival(name, recorded=recorded) for name in self.wanted(names)}
        return {name: rival for name, rival in found.items() if rival is not None}

    def rival(self, name: str, *, recorded: bool = True) -> Rival | None:
        """A rival, started once; None, and a word why, if it cannot be."""
        if (name, recorded) not in self._started:
            started = start_rivals(
                [name], self.work, self.weights, recorded=recorded, is_quick=recorded
            )
            self._started[name, recorded] = started.get(name)
        return self._started[name, recorded]

    def identity(self, name: str) -> dict[str, str]:
        """What answers of a rival depend on."""
        return store.of_rival(name, self.weights.get(name))

    def cases(self, one: Set) -> list[Case]:
        """Crystals of a set; none, and a word why, where the data lack them."""
        try:
            return one.cases(self.data)
        except ValueError as error:
            print(f"left out: {one}: {error}", file=sys.stderr)
            return []

    def close(self) -> None:
        """End the processes of the rivals."""
        for rival in self._started.values():
            if rival is not None:
                rival.close()


def _said(what: str, bench: Bench) -> bool:
    """Say what is out of date; whether to go on and measure it."""
    print(f"out of date: {what}", file=sys.stderr)
    return not bench.is_trial


def update_accuracy(bench: Bench) -> None:
    """Every contender on every set."""
    for one in (*plan.DFT_SETS, *plan.TAUGHT_SETS):
        cases = bench.cases(one)
        if not cases:
            continue
        known_to = plan.TAUGHT_SETS.get(one, tuple(plan.KNOWN))
        names = bench.wanted(name for name in known_to if one.functional in plan.KNOWN[name])
        is_judged = one in plan.JUDGED
        common = {"cases": store.of_cases(cases), "judge": plan.JUDGE if is_judged else None}
        made_with: dict[str, dict[str, Any]] = {
            accuracy.INPUT: common,
            accuracy.OURS: {**common, "weights": store.shipped()["default"]},
            **{name: {**common, **bench.identity(name)} for name in names},
        }
        known = {
            label: entry
            for label, entry in store.read("accuracy", bench.results).get(str(one), {}).items()
            if entry[store.MADE_WITH] == made_with.get(label)
        }
        missing = [label for label in made_with if label not in known]
        if not missing or not _said(f"accuracy of {', '.join(missing)} on {one}", bench):
            continue
        judge = bench.rival(plan.JUDGE) if is_judged else None
        if is_judged and judge is None:
            continue
        rivals = bench.rivals(names)

        def keep(found: dict[str, Any], one: Set = one, made: Any = made_with) -> None:
            everything = store.read("accuracy", bench.results)
            entries = everything.setdefault(str(one), {})
            for label, entry in found.items():
                entries[label] = {**entry, store.MADE_WITH: made[label]}
            store.write("accuracy", everything, bench.results)

        accuracy.compare(cases, rivals, known=known, own_relaxers=False, judge=judge, keep=keep)


def update_steps(bench: Bench) -> None:
    """Steps of the rivals from the input and from our prediction."""
    for one in plan.STEP_SETS:
        cases = bench.cases(one)
        digest = store.of_cases(cases)
        for name in bench.wanted(plan.STEP_RIVALS) if cases else ():
            made_with = {
                "cases": digest,
                "weights": store.shipped()["default"],
                **{f"rival {key}": value for key, value in bench.identity(name).items()},
            }
            before = store.read("steps", bench.results).get(str(one), {}).get(name, {})
            if before.get(store.MADE_WITH) == made_with:
                continue
            if not _said(f"steps of {name} on {one}", bench):
                continue
            rival = bench.rival(name)
            if rival is None:
                continue
            with going_on():
                entry = {**steps.compare(cases, rival), store.MADE_WITH: made_with}
                everything = store.read("steps", bench.results)
                everything.setdefault(str(one), {})[name] = entry
                store.write("steps", everything, bench.results)


def update_evaluations(bench: Bench) -> None:
    """Our own errors on the validation and test splits, and on what was taught."""
    files = [bench.data / f"{name}.parquet" for name in plan.TEST_FILES]
    wanted = {name: (files, *what) for name, what in _EVALUATIONS.items()}
    wanted["taught"] = (_taught_files(), "test", {})
    for name, (paths, split, options) in wanted.items():
        if store.is_current(store.read(name, bench.results)):
            continue
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            print(f"left out: {name}: no {missing[0]}", file=sys.stderr)
            continue
        if not _said(f"evaluation {name}", bench):
            continue
        found = as_json([evaluate(path, split=split, **options) for path in paths])
        for entry in found.values():
            del entry["elements"]
        made_with = {"weights": store.shipped()["default"]}
        store.write(name, {**found, store.MADE_WITH: made_with}, bench.results)


def update_kinds(bench: Bench) -> None:
    """Expected errors and gains of kinds that are left out of the fit."""
    if store.is_current(store.read("kinds", bench.results)):
        return
    files = [bench.data / f"{name}.parquet" for name in plan.KIND_FILES]
    if not all(path.is_file() for path in files) or not _said("kinds", bench):
        return
    files += _taught_files()
    weights = load_weights("default")
    found = kinds.measure_all(files, weights, figures=_ROOT / "docs")
    store.write("kinds", found, bench.results)


def update_picture(bench: Bench) -> None:
    """The crystal that the manual opens with."""
    name, wanted = plan.PICTURED
    path = bench.data / f"{name}.parquet"
    if store.is_current(store.read("picture", bench.results)) or not path.is_file():
        return
    if not _said("picture", bench):
        return
    file = PairFile(path, "val")
    row = next(row for row in range(len(file)) if file.id(row) == wanted)
    found = picture.draw(file[row], _ROOT / "docs" / "relaxation.png")
    made_with = {"weights": store.shipped()["default"]}
    store.write("picture", {**found, store.MADE_WITH: made_with}, bench.results)


def update_real_runs(bench: Bench) -> None:
    """Relaxations that others made."""
    before = store.read("real_runs", bench.results)
    if not store.is_current(before) and _said("real_runs", bench):
        found = real.relax_cases(choose_cases(real.PAIRS, None, "test"))
        store.write("real_runs", found, bench.results)


def _taught_files() -> list[Path]:
    return sorted((_ROOT / "recipes" / "data").glob("*.parquet"))


def update_clients(bench: Bench) -> None:
    """Programs that take an ASE optimizer."""
    if store.is_current(store.read("clients", bench.results)):
        return
    if bench.only or not _said("clients", bench):
        return
    cases = {one.file: spaced(bench.cases(one), plan.CLIENT_CRYSTALS) for one in plan.CLIENT_SETS}
    found: dict[str, Any] = {}
    for name, optimizers in plan.CLIENT_OPTIMIZERS.items():
        ways = [clients.Way(optimizer) for optimizer in optimizers]
        found |= clients.run_clients([name], cases, bench.work, ways)
    if len(found) == sum(map(len, plan.CLIENT_OPTIMIZERS.values())):
        pins = sorted({f"clients/{environment}" for environment in clients.CLIENTS.values()})
        made_with = store.of_this_run(pins)
        store.write("clients", {"clients": found, store.MADE_WITH: made_with}, bench.results)


def update_speed(bench: Bench) -> None:
    """Times, with nothing else running."""
    before = store.read("speed", bench.results)
    if store.is_current(before) and set(before["ratios"]) >= set(plan.SPEED_RIVALS):
        return
    if bench.only or not _said("speed", bench):
        return
    cases = bench.cases(plan.DFT_SETS[0])
    least, most = plan.SPEED_ATOMS
    fitting = [case for case in cases if least <= len(case.atoms) <= most]
    rivals = bench.rivals(plan.SPEED_RIVALS, recorded=False)
    found = speed.measure(spaced(fitting, plan.SPEED_CRYSTALS), rivals)
    silent = [name for name in plan.SPEED_RIVALS if name not in found["ratios"]]
    if silent:  # the pages need all of them
        print(f"left out: speed: no answer of {', '.join(silent)}", file=sys.stderr)
        return
    store.write("speed", {**found, store.MADE_WITH: store.of_this_run(rivals)}, bench.results)


def update_dft(bench: Bench) -> None:
    """Energies and steps by GPAW: hours."""
    before = store.read("dft", bench.results)
    before = before if store.is_current(before) else {}
    if before.get("whole"):
        return
    if (bench.only and dft.RIVAL not in bench.only) or not _said("dft", bench):
        return
    rival = bench.rival(dft.RIVAL)
    if rival is None:
        return
    made_with = store.of_this_run([dft.RIVAL])

    def keep(found: dict[str, Any]) -> None:
        store.write("dft", {**found, store.MADE_WITH: made_with}, bench.results)

    with suppress(RivalError):
        dft.measure(bench.data, rival, keep, before)


UPDATES: Mapping[str, Callable[[Bench], None]] = {
    "evaluations": update_evaluations,
    "kinds": update_kinds,
    "picture": update_picture,
    "real_runs": update_real_runs,
    "accuracy": update_accuracy,
    "steps": update_steps,
    "clients": update_clients,
    "speed": update_speed,
    "dft": update_dft,
}
"""By name, in the order they are made in."""
