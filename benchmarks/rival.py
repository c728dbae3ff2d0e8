"""A rival at work: its environment, a process in it, and tasks that are answered one by one."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.environments import RivalError, interpreter

_HERE = Path(__file__).parent
_ADAPTERS = _HERE / "rivals"
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)
_LAST_LINES = 3
_TITLES = {
    "input": "unrelaxed input",
    "nequix": "Nequix-OAM-1",
    "tensornet": "TensorNet-MatPES",
    "m3gnet": "M3GNet",
    "chgnet": "CHGNet",
    "sevennet": "SevenNet-0",
    "gpaw": "GPAW, PBE",
}
FMAX = 0.05
"""eV/Å"""
MOST_STEPS = 500
FREE = (True,) * 6
"""Every component of the strain (Voigt) may change."""


def title(label: str) -> str:
    """How a contender is called in tables and figures."""
    first, comma, rest = label.partition(",")
    return _TITLES.get(first, first) + comma + rest


def known_rivals() -> list[str]:
    """Names of the rivals that have an adapter."""
    return sorted(path.stem for path in _ADAPTERS.glob("*.py") if path.stem != "__init__")


class Rival:
    """A process in a rival's environment, started at the first task.

    Args:
        name: One of `known_rivals()`.
        root: Folder of the environments, and of what the rivals print.
        weights: Folder or file of its weights; its package's own if None.
        record: File that answers are kept in, so that no task is carried out twice; none: nothing
            is kept.
        is_quick: Whether an adapter may use other code than its package's for the same numbers.

    Raises:
        RivalError: No such weights, or its environment cannot be made.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        weights: Path | None = None,
        record: Path | None = None,
        *,
        is_quick: bool = False,
    ) -> None:
        self.name = name
        self.is_quick = is_quick
        self._identity = (name, "" if weights is None else weights.name)
        self._record = record
        self._known = {} if record is None else _read_record(record)
        self._process: subprocess.Popen[str] | None = None
        if weights is not None and not weights.exists():
            msg = f"{name}: no weights in {weights}"
            raise RivalError(msg)
        python = interpreter(name, root)
        self._command = [str(python), str(_HERE / "worker.py"), str(_ADAPTERS / f"{name}.py")]
        if weights is not None:
            self._command.append(str(weights.resolve()))
        self._log = root / f"{name}.log"

    @property
    def has_packaged(self) -> bool:
        """Whether its package has a relaxer of its own."""
        return bool(self._hello["packaged"])

    def close(self) -> None:
        """End the process; the next task starts another."""
        if self._process is not None:
            with suppress(BrokenPipeError), self._process as process:
                process.kill()
            self._process = None

    def options(self, functional: str = "PBE") -> dict[str, Any] | None:
        """Options of its calculator for a functional: none where it has one model for all."""
        chosen: dict[str, Any] = {"quick": True} if self.is_quick and self._hello["quick"] else {}
        if functional in self._hello["functionals"]:
            chosen["functional"] = functional
        return chosen or None

    @cached_property
    def _hello(self) -> dict[str, Any]:
        return self.ask("hello")

    def relax(
        self,
        atoms: Atoms,
        optimizer: str = "FIRE",
        options: Mapping[str, Any] | None = None,
        strains: Sequence[bool] = FREE,
        fmax: float = FMAX,
        steps: int = MOST_STEPS,
    ) -> dict[str, Any]:
        """Relax atoms and cell to `fmax` in at most `steps` steps of an ASE optimizer.

        Args:
            atoms: What to relax; atoms under `FixAtoms` stay.
            optimizer: Of ASE.
            options: For the rival's calculator.
            strains: Which components (Voigt) of the strain are free.
            fmax: eV/Å.
            steps: Most of them.

        Returns:
            `seconds`, `steps`, `converged`, `energies` (eV, of every step), `positions` and `cell`
            (Å); or `error`.
        """
        settings: dict[str, Any] = {"fmax": fmax, "steps": steps}
        fixed = [index for one in atoms.constraints for index in one.get_indices().tolist()]
        if fixed:
            settings["fixed"] = fixed
        if tuple(strains) != FREE:
            settings["mask"] = list(strains)
        return self.ask("relax", atoms, optimizer=optimizer, options=options, **settings)

    def ask(self, do: str, atoms: Atoms | None = None, **settings: Any) -> dict[str, Any]:
        """Answer to a task; one that fails is answered with `error`, its reason.

        Raises:
            RivalError: The process cannot start, or it ended.
        """
        task = {"do": do, **settings}
        if atoms is not None:
            task |= {
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": np.array(atoms.cell).tolist(),
                "pbc": atoms.pbc.tolist(),
            }
        if self._record is None or do == "hello":
            return self._carry_out(task)
        key = hashlib.sha256(json.dumps([*self._identity, task]).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = self._carry_out(task)
            with self._record.open("a") as stream:
                print(json.dumps({"key": key, "answer": self._known[key]}), file=stream)
        return self._known[key]

    def _carry_out(self, task: Mapping[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(task), file=process.stdin, flush=True)
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            msg = f"{self.name}: its process ended: {self._last_words()}"
            raise RivalError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own worker
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=os.environ | _ONE_THREAD | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                )
        return self._process

    def _last_words(self) -> str:
        lines = self._log.read_text().strip().splitlines() if self._log.is_file() else []
        return " ".join(lines[-_LAST_LINES:]) or "it said nothing"


def _read_record(path: Path) -> dict[str, dict[str, Any]]:
    """Answers of earlier runs; a line that an interruption cut short is left out."""
    known = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                known[entry["key"]] = entry["answer"]
    return known


def start_rivals(
    names: Sequence[str],
    root: Path,
    weights: Mapping[str, Path],
    *,
    recorded: bool,
    is_quick: bool = False,
) -> dict[str, Rival]:
    """Those rivals that can be started; what keeps the others out is printed.

    Args:
        names: Of the rivals.
        root: Folder of environments and records.
        weights: Of those that have weights to name.
        recorded: Whether answers of earlier runs count.
        is_quick: As for `Rival`.

    Raises:
        ValueError: One of the names is none of a rival.
    """
    unknown = [name for name in names if name not in known_rivals()]
    if unknown:
        msg = f"no rival {unknown[0]!r}: choose from {', '.join(known_rivals())}"
        raise ValueError(msg)
    started = {}
    for name in names:
        record = root / f"{name}.jsonl" if recorded else None
        with going_on():
            rival = Rival(name, root, weights.get(name), record, is_quick=is_quick)
            rival.ask("hello")
            started[name] = rival
    return started


@contextmanager
def going_on() -> Iterator[None]:
    """What goes wrong with one rival is printed and does not stop the others."""
    try:
        yield
    except RivalError as error:
        print(f"error: {error}; the others go on", file=sys.stderr)
