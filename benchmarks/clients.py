"""The programs that take an ASE optimizer: the same relaxation with a stock one and with ours.

Each runs its script under `examples/`, unchanged, in an environment of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.cases import Case
from benchmarks.environments import RivalError, interpreter, pinned_versions
from benchmarks.rival import going_on
from deeprelax_ase.report import markdown_table

CLIENTS = {
    "matcalc": "matcalc",
    "pymatgen": "matcalc",
    "quacc": "quacc",
    "janus": "janus",
    "atomate2": "atomate2",
}
"""Clients, each with the environment it runs in."""
PACKAGES = {"janus": "janus-core"}
STOCK, OURS = "FIRE", "DeepRelaxFIRE"
SAME = 0.002
"""Final energies within so many eV/atom are of the same minimum."""
_ROOT = Path(__file__).resolve().parent.parent


def run_client(name: str, cases: Sequence[Case], work: Path) -> list[dict[str, Any]]:
    """Relax every crystal with either optimizer; answers that are kept are not asked for again.

    Raises:
        RivalError: There is no such client, its environment cannot be made, or its process ended.
    """
    if name not in CLIENTS:
        msg = f"no client {name!r}: choose from {', '.join(CLIENTS)}"
        raise RivalError(msg)
    work = work.absolute()
    python = interpreter(f"clients/{CLIENTS[name]}", work)
    kept = work / "clients" / f"{name}.jsonl"
    answers = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(answer["name"], answer["optimizer"]) for answer in answers}
    missing = [case for case in cases if {(case.name, STOCK), (case.name, OURS)} - done]
    if missing:
        answers += _ask(name, python, missing, kept)
    wanted = {case.name for case in cases}
    return [answer for answer in answers if answer["name"] in wanted]


def run_clients(
    names: Sequence[str], cases: Mapping[str, Sequence[Case]], work: Path
) -> dict[str, dict[str, Any]]:
    """Summaries by client and file; a client that cannot take part is left out, with a word."""
    found = {}
    for name in names:
        with going_on():
            found[name] = {
                file: summarise(run_client(name, some, work)) for file, some in cases.items()
            }
    return found


def _ask(name: str, python: Path, cases: Sequence[Case], kept: Path) -> list[dict[str, Any]]:
    script = _ROOT / "examples" / f"{name}_relax.py"
    command = [str(python), str(Path(__file__).with_name("client_worker.py")), str(script)]
    folder = kept.with_suffix(".runs")
    folder.mkdir(parents=True, exist_ok=True)
    log = kept.with_suffix(".log")
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    answers = []
    with log.open("w") as errors, kept.open("a") as record:
        process = subprocess.Popen(  # noqa: S603
            [*command, STOCK, OURS],
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
            for case in tqdm(cases, name, file=sys.stderr):
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
                for _ in (STOCK, OURS):
                    line = process.stdout.readline()
                    record.write(line)
                    record.flush()
                    answers += [json.loads(line)] if line else []
            process.stdin.close()
    if len(answers) < 2 * len(cases):
        said = " ".join(log.read_text().split())[-300:]
        msg = f"{name}: its process ended: {said}"
        raise RivalError(msg)
    return answers


def summarise(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Calls of the calculator and seconds with either optimizer, and where they ended."""
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for answer in answers:
        by_name.setdefault(answer["name"], {})[answer["optimizer"]] = answer
    pairs = [(both[STOCK], both[OURS]) for both in by_name.values() if len(both) == 2]
    sound = [(a, b) for a, b in pairs if "error" not in a and "error" not in b]
    summary: dict[str, Any] = {"crystals": len(sound), "failed": len(pairs) - len(sound)}
    for place, label in enumerate(("stock", "ours")):
        for key in ("calls", "seconds"):
            values = [pair[place][key] for pair in sound]
            summary[f"{key}_{label}"] = {
                "median": float(np.median(values)),
                "all": float(np.sum(values)),
            }
    apart = np.array([ours["energy"] - stock["energy"] for stock, ours in sound])
    summary["same"] = int((np.abs(apart) <= SAME).sum())
    summary["lower"] = int((apart < -SAME).sum())
    summary["higher"] = int((apart > SAME).sum())
    return summary


def table(found: dict[str, dict[str, Any]]) -> str:
    """One row a client and file."""
    head = [
        "client",
        "crystals (failed)",
        f"calls of CHGNet, median: {STOCK}, {OURS}",
        "all calls",
        "seconds, all",
        f"same energy within {1000 * SAME:g} meV/atom",
        "another minimum: lower, higher",
    ]
    rows = []
    for name, entry in found.items():
        version = pinned_versions(f"clients/{CLIENTS[name]}")[PACKAGES.get(name, name)]
        for file, s in entry.items():
            pairs = [
                ", ".join(f"{s[f'{key}_{label}'][what]:,.0f}" for label in ("stock", "ours"))
                for key, what in (("calls", "median"), ("calls", "all"), ("seconds", "all"))
            ]
            rows.append(
                [
                    f"{name} {version}, `{file}`",
                    f"{s['crystals']} ({s['failed']})",
                    *pairs,
                    str(s["same"]),
                    f"{s['lower']}, {s['higher']}",
                ]
            )
    return markdown_table(head, rows)
