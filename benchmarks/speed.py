"""How much faster we are than relaxing with a rival: side by side, in one run, on one thread."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from jaxtyping import Float
from tqdm import tqdm

from benchmarks.accuracy import OURS
from benchmarks.cases import Case
from benchmarks.parts import peak_of, time_parts
from benchmarks.rival import Rival, going_on
from deeprelax_ase import Relaxer
from deeprelax_ase.evaluation.tables import markdown_table

SHOWN = ("single", "single_total", "batched", "batched_total")
"""Ratios that are published and watched, see `ratios`."""
LONGEST = 30.0
"""A rival that takes so many seconds is asked for no larger crystal."""
_REPEATS = 5
_BLOCKS = 10
_REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 1000, 2000, 5000, 10_000)
"""Of the 2 atoms of rock salt."""


def compare(cases: Sequence[Case], rivals: Mapping[str, Rival]) -> dict[str, Any]:
    """Time every case with every contender, and all of them in batches, in turn.

    Each crystal is relaxed by us five times in a row (the median counts) and by every rival once;
    after every tenth of the crystals, all of them are relaxed by us in batches. First calls, which
    compile and trace, are not timed.

    Returns:
        `crystals` (name, atoms, seconds and steps by contender, and `batched`, its share of the
        seconds of a pass, median of all passes), the `parts` of our time, `peak_memory` in bytes.
    """
    torch.set_num_threads(1)
    relaxer = Relaxer()
    every = [case.atoms for case in cases]
    list(relaxer.relax_many(every))
    running = dict(rivals)
    _compile(running, every[:2])
    crystals, batched = [], []
    ends = np.linspace(0, len(cases), min(_BLOCKS, len(cases)) + 1).astype(int)[1:] - 1
    for number, case in enumerate(tqdm(cases, "crystals", file=sys.stderr)):
        seconds = {OURS: _ours(relaxer, case.atoms)}
        steps = {}
        for name, rival in list(running.items()):
            answer = _ask(rival, case.atoms, running)
            if answer is not None:
                seconds[name], steps[name] = answer["seconds"], answer["steps"]
        crystals.append(
            {"name": case.name, "atoms": len(case.atoms), "seconds": seconds, "steps": steps}
        )
        if number in ends:
            batched.append(_batched(relaxer, every))
    for entry, share in zip(crystals, np.median(batched, axis=0).tolist(), strict=True):
        entry["batched"] = share
    return {
        "crystals": crystals,
        "parts": {
            "single": time_parts(every, single=True),
            "batched": time_parts(every, single=False),
        },
        "peak_memory": {
            OURS: peak_of(every),
            **{name: rival.ask("hello")["peak_memory"] for name, rival in running.items()},
        },
    }


def _compile(running: dict[str, Rival], crystals: Sequence[Atoms]) -> None:
    """Make the first calls of the rivals, which are not timed; one that ends is left out."""
    for rival in list(running.values()):
        for atoms in crystals:
            if rival.name in running:
                _ask(rival, atoms, running)


def _ask(rival: Rival, atoms: Atoms, running: dict[str, Rival]) -> dict[str, Any] | None:
    """Answer of a rival; None where it failed. One whose process ended runs no more."""
    with going_on():
        answer = rival.relax(atoms)
        if "error" in answer:
            print(f"{rival.name}: {answer['error']}", file=sys.stderr)
            return None
        return answer
    del running[rival.name]
    return None


def _ours(relaxer: Relaxer, atoms: Atoms) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        relaxer.relax(atoms)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _batched(relaxer: Relaxer, crystals: Sequence[Atoms]) -> Float[np.ndarray, " crystals"]:
    """Seconds of a pass over all crystals, shared out as `RelaxResult.seconds` says."""
    started = time.perf_counter()
    shares = np.array([result.seconds for result in relaxer.relax_many(crystals)])
    return shares / shares.sum() * (time.perf_counter() - started)


def growth(rivals: Mapping[str, Rival], longest: float) -> dict[str, Any]:
    """Time by number of atoms, from 1 to 20,000: copper, and supercells of strained, rattled MgO.

    Args:
        rivals: By name. A rival whose relaxation takes longer than `longest` seconds is not asked
            for larger ones.
        longest: Seconds.

    Returns:
        `sizes`, `seconds` by contender (as far as it went), and our `peak_memory` in bytes.
    """
    torch.set_num_threads(1)
    relaxer = Relaxer()
    crystals = [bulk("Cu", a=3.7), *(_supercell(count) for count in _REPLICAS)]
    seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in rivals}}
    running = dict(rivals)
    _compile(running, crystals[:2])
    for atoms in tqdm(crystals, "sizes", file=sys.stderr):
        relaxer.relax(atoms)
        seconds[OURS].append(_ours(relaxer, atoms))
        for rival in list(running.values()):
            answer = _ask(rival, atoms, running)
            if answer is not None:
                seconds[rival.name].append(answer["seconds"])
            if answer is None or answer["seconds"] > longest:
                running.pop(rival.name, None)
    return {
        "sizes": [len(atoms) for atoms in crystals],
        "seconds": seconds,
        "peak_memory": [peak_of([atoms]) for atoms in crystals],
    }


def _supercell(count: int) -> Atoms:
    """So many primitive cells of rock salt, as near to a cube as their number allows."""
    repeats = [1, 1, 1]
    for prime in _factors(count):
        repeats[int(np.argmin(repeats))] *= prime
    atoms = bulk("MgO", "rocksalt", a=4.35) * repeats
    atoms.rattle(0.05, seed=0)
    return atoms


def _factors(count: int) -> list[int]:
    """Prime factors, the largest first."""
    found, divisor = [], 2
    while count > 1:
        while count % divisor == 0:
            found.append(divisor)
            count //= divisor
        divisor += 1
    return found[::-1]


def measure(
    cases: Sequence[Case], rivals: Mapping[str, Rival], longest: float = LONGEST
) -> dict[str, Any]:
    """Times of crystals, their growth with the number of atoms, and the ratios."""
    found = {**compare(cases, rivals), "growth": growth(rivals, longest)}
    return {**found, "ratios": ratios(found)}


def ratios(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By how much we are faster than each rival.

    Returns:
        For each rival, on the crystals it relaxed: `single` and `batched`, ratios of medians;
        `single_total` and `batched_total`, ratios of sums; `each`, the median of the ratios
        crystal by crystal, and their 5th and 95th percentiles.
    """
    crystals = found["crystals"]
    names = dict.fromkeys(name for c in crystals for name in c["seconds"] if name != OURS)
    result = {}
    for name in names:
        done = [c for c in crystals if name in c["seconds"]]
        theirs: Float[np.ndarray, " n"] = np.array([c["seconds"][name] for c in done])
        ours: Float[np.ndarray, " n"] = np.array([c["seconds"][OURS] for c in done])
        batched: Float[np.ndarray, " n"] = np.array([c["batched"] for c in done])
        result[name] = {
            "crystals": len(done),
            "median_seconds": float(np.median(theirs)),
            "single": float(np.median(theirs) / np.median(ours)),
            "single_total": float(theirs.sum() / ours.sum()),
            "batched": float(np.median(theirs) / np.median(batched)),
            "batched_total": float(theirs.sum() / batched.sum()),
            "each": float(np.median(theirs / ours)),
            "each_5": float(np.percentile(theirs / ours, 5)),
            "each_95": float(np.percentile(theirs / ours, 95)),
        }
    return result


def table(found: Mapping[str, Any]) -> str:
    """Times and ratios, then the parts of our time."""
    ours = 1000 * np.array([c["seconds"][OURS] for c in found["crystals"]])
    batched = 1000 * np.array([c["batched"] for c in found["crystals"]])
    rows = [
        [
            *(OURS, str(len(ours)), f"{np.median(ours):.2f}", f"{ours.mean():.2f}"),
            *([""] * 5),
            _mega(found["peak_memory"][OURS]),
        ],
        [
            *(f"{OURS}, in batches", str(len(ours))),
            *(f"{np.median(batched):.2f}", f"{batched.mean():.2f}"),
            *([""] * 6),
        ],
    ]
    for name, ratio in ratios(found).items():
        times = [c["seconds"][name] for c in found["crystals"] if name in c["seconds"]]
        rows.append(
            [
                name,
                str(len(times)),
                f"{1000 * np.median(times):.0f}",
                f"{1000 * np.mean(times):.0f}",
                f"{ratio['single']:.0f}",
                f"{ratio['single_total']:.0f}",
                f"{ratio['each']:.0f} ({ratio['each_5']:.0f} to {ratio['each_95']:.0f})",
                f"{ratio['batched']:.0f}",
                f"{ratio['batched_total']:.0f}",
                _mega(found["peak_memory"].get(name)),
            ]
        )
    header = [
        "one thread",
        "crystals",
        "median / ms",
        "mean / ms",
        "ratio of medians",
        "of totals",
        "crystal by crystal (5 to 95 %)",
        "in batches: of medians",
        "of totals",
        "peak memory / MB",
    ]
    parts = found["parts"]
    part_rows = [
        [name, *(f"{1000 * parts[how].get(name, 0.0):.2f}" for how in ("single", "batched"))]
        for name in dict.fromkeys([*parts["single"], *parts["batched"]])
    ]
    part_header = ["ms a crystal, mean", "one by one", "in batches"]
    return f"{markdown_table(header, rows)}\n\n{markdown_table(part_header, part_rows)}"


def _mega(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"
