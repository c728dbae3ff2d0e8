"""The programs that take an ASE optimizer: the same relaxation with a stock one and with ours.

Each runs its script under `examples/`, unchanged, in an environment of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.cases import Case
from benchmarks.environments import RivalError, interpreter, pinned_versions
from benchmarks.rival import going_on
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.weights_registry import weights_sha256

CLIENTS = {
    "matcalc": "matcalc",
    "pymatgen": "matcalc",
    "quacc": "quacc",
    "janus": "janus",
    "atomate2": "atomate2",
}
"""Clients, each with the environment it runs in."""
PACKAGES = {"janus": "janus-core"}
_CANNOT = {"pymatgen": ("symmetric",)}
OPTIMIZERS = ("FIRE", "BFGS", "LBFGS")
CELLS = {
    "free": {},
    "fixed": {"relax_cell": False},
    "symmetric": {"fix_symmetry": True},
}
"""What of a crystal is free, each with the options of the scripts; symmetric: FixSymmetry."""
SAME = 0.002
"""Final energies within so many eV/atom are of the same minimum."""
_ROOT = Path(__file__).resolve().parent.parent


class Way(NamedTuple):
    """How crystals are relaxed: a stock optimizer of ASE, and what is free."""

    optimizer: str = "FIRE"
    cell: str = "free"

    @property
    def both(self) -> tuple[str, str]:
        """The stock optimizer and ours."""
        return self.optimizer, f"DeepRelax{self.optimizer}"


USUAL = Way()


def run_client(
    name: str, cases: Sequence[Case], work: Path, way: Way = USUAL
) -> list[dict[str, Any]]:
    """Relax every crystal with either optimizer; answers that are kept are not asked for again.

    Raises:
        RivalError: There is no such client, its environment cannot be made, its process ended, or
            it has no such way.
    """
    if name not in CLIENTS:
        msg = f"no client {name!r}: choose from {', '.join(CLIENTS)}"
        raise RivalError(msg)
    if way.optimizer not in OPTIMIZERS or way.cell not in CELLS:
        msg = (
            f"no way {' '.join(way)!r}: optimizers are {', '.join(OPTIMIZERS)}, cells "
            f"{', '.join(CELLS)}"
        )
        raise RivalError(msg)
    if way.cell in _CANNOT.get(name, ()):
        msg = f"{name} has no option for {way.cell!r}"
        raise RivalError(msg)
    work = work.absolute()
    python = interpreter(f"clients/{CLIENTS[name]}", work)
    kept = work / "clients" / f"{name}.jsonl"
    answers = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    sha256 = weights_sha256("default")
    keys = {_key(case, way, sha256): case for case in cases}
    done = {(answer.get("key"), answer["optimizer"]) for answer in answers}
    missing = {k: case for k, case in keys.items() if {(k, one) for one in way.both} - done}
    if missing:
        answers += _ask(name, python, missing, kept, way)
    return [a for a in answers if a.get("key") in keys and a["optimizer"] in way.both]


def _key(case: Case, way: Way, sha256: str) -> str:
    """Of what an answer depends on, besides the optimizer: geometry, cell, and our weights."""
    atoms = case.atoms
    parts = [atoms.numbers.tolist(), atoms.cell[:].tolist(), atoms.positions.tolist()]
    text = json.dumps([*parts, way.cell, sha256])
    return hashlib.sha256(text.encode()).hexdigest()


def run_clients(
    names: Sequence[str],
    cases: Mapping[str, Sequence[Case]],
    work: Path,
    ways: Sequence[Way] = (USUAL,),
) -> dict[str, dict[str, Any]]:
    """Summaries by client with its way, and file; what cannot take part is left out, and named."""
    found = {}
    for name in names:
        for way in ways:
            with going_on():
                found[" ".join((name, *way))] = {
                    file: summarise(run_client(name, some, work, way), way)
                    for file, some in cases.items()
                }
    return found


def _ask(
    name: str, python: Path, cases: Mapping[str, Case], kept: Path, way: Way
) -> list[dict[str, Any]]:
    script = _ROOT / "examples" / f"{name}_relax.py"
    command = [str(python), str(Path(__file__).with_name("client_worker.py")), str(script)]
    folder = kept.with_suffix(".runs")
    folder.mkdir(parents=True, exist_ok=True)
    log = kept.with_suffix(".log")
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    answers = []
    with log.open("w") as errors, kept.open("a") as record:
        process = subprocess.Popen(  # noqa: S603
            [*command, json.dumps(CELLS[way.cell]), *way.both],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            for key, case in tqdm(cases.items(), name, file=sys.stderr):
                atoms = case.atoms
                crystal = {
                    "name": case.name,
                    "numbers": atoms.numbers.tolist(),
                    "cell": atoms.cell[:].tolist(),
                    "positions": atoms.positions.tolist(),
                }
                try:
                    print(json.dumps(crystal), file=process.stdin, flush=True)
                except BrokenPipeError:
                    break
                for _ in way.both:
                    line = process.stdout.readline()
                    if line:
                        answers.append({**json.loads(line), "key": key})
                        record.write(json.dumps(answers[-1]) + "\n")
                        record.flush()
            process.stdin.close()
    if len(answers) < 2 * len(cases):
        said = " ".join(log.read_text().split())[-300:]
        msg = f"{name}: its process ended: {said}"
        raise RivalError(msg)
    return answers


def summarise(answers: Sequence[dict[str, Any]], way: Way = USUAL) -> dict[str, Any]:
    """Calls of the calculator and seconds with either optimizer, and where they ended."""
    by_key: dict[str, dict[str, dict[str, Any]]] = {}
    for answer in answers:
        by_key.setdefault(answer["key"], {})[answer["optimizer"]] = answer
    stock, ours = way.both
    pairs = [(both[stock], both[ours]) for both in by_key.values() if len(both) == 2]
    sound = [(a, b) for a, b in pairs if "error" not in a and "error" not in b]
    summary: dict[str, Any] = {"crystals": len(sound), "failed": len(pairs) - len(sound)}
    for place, label in enumerate(("stock", "ours")):
        for key in ("calls", "seconds"):
            values = [pair[place][key] for pair in sound]
            summary[f"{key}_{label}"] = {
                "median": float(np.median(values)),
                "all": float(np.sum(values)),
            }
    apart = np.array([b["energy"] - a["energy"] for a, b in sound])
    summary["same"] = int((np.abs(apart) <= SAME).sum())
    summary["lower"] = int((apart < -SAME).sum())
    summary["higher"] = int((apart > SAME).sum())
    return summary


def table(found: dict[str, dict[str, Any]]) -> str:
    """One row a client and file."""
    head = [
        "client",
        "crystals (failed)",
        "calls of CHGNet, median: stock, ours",
        "all calls",
        "seconds, all",
        f"same energy within {1000 * SAME:g} meV/atom",
        "another minimum: lower, higher",
    ]
    rows = []
    for label, entry in found.items():
        name, *way = label.split()
        version = pinned_versions(f"clients/{CLIENTS[name]}")[PACKAGES.get(name, name)]
        for file, s in entry.items():
            pairs = [
                ", ".join(f"{s[f'{key}_{label}'][what]:,.0f}" for label in ("stock", "ours"))
                for key, what in (("calls", "median"), ("calls", "all"), ("seconds", "all"))
            ]
            rows.append(
                [
                    f"{name} {version}, {words(Way(*way))}, `{file}`",
                    f"{s['crystals']} ({s['failed']})",
                    *pairs,
                    str(s["same"]),
                    f"{s['lower']}, {s['higher']}",
                ]
            )
    return markdown_table(head, rows)


def words(way: Way) -> str:
    """Optimizer, and what of the crystal is held."""
    what = {"free": "", "fixed": ", cell fixed", "symmetric": ", FixSymmetry"}
    return f"{way.optimizer}{what[way.cell]}"
