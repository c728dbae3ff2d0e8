"""How near to DFT every contender ends: the paper's measures (Eq. 25-28) on files of pairs."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap
from tqdm import tqdm

from benchmarks.cases import Case, Measured, Move, measure, move_of
from benchmarks.rival import Rival, going_on
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import shared_relaxer

_TITLES = {
    "coordinates": "coordinates / Å",
    "minimum_image": "minimum image / Å",
    "displacement": "displacement / Å",
    "bonds": "bonds / Å",
    "lattice": "lattice / Å",
    "volume": "volume / Å³",
}
INPUT, OURS = "input", "DeepRelax"


def compare(cases: Sequence[Case], rivals: Mapping[str, Rival]) -> dict[str, Any]:
    """Relax every case with every contender and summarise the errors.

    Args:
        cases: The pairs; each is relaxed by us to its own functional.
        rivals: By name. One whose process ends is left out; one that fails on a crystal counts as
            having left it as it was.

    Returns:
        For each contender, the input first, the number of crystals and of failures, and of every
        measure the mean with its 95 % interval, the median and the 90th percentile.
    """
    pairs = [case.pair for case in cases]
    still = [(np.zeros_like(pair.displacements), np.eye(3)) for pair in pairs]
    found = {INPUT: summarise(measure(pairs, still), 0)}
    ours = [our_move(case) for case in cases]
    failures = sum(move is None for move in ours)
    found[OURS] = summarise(measure(pairs, _or_still(ours, still)), failures)
    for name, rival in rivals.items():
        for how in ("relax", "packaged"):
            label = name if how == "relax" else f"{name}, its own relaxer"
            with going_on():
                if how == "packaged" and not rival.has_packaged:
                    continue
                answers = [_ask(rival, how, case) for case in tqdm(cases, label, file=sys.stderr)]
                moves = [_move(case, answer) for case, answer in zip(cases, answers, strict=True)]
                failures = sum(move is None for move in moves)
                found[label] = summarise(measure(pairs, _or_still(moves, still)), failures)
                found[label]["not_converged"] = sum(
                    not answer.get("converged", True) for answer in answers
                )
    return found


def our_move(case: Case) -> Move | None:
    """Our relaxation of a case to its own functional; None if it was refused."""
    relaxer = shared_relaxer(RelaxOptions(functional=case.pair.functional, allow_unseen=True))
    result = relaxer.relax(case.atoms)
    if not result.is_sound:
        return None
    return move_of(case.pair, result.structure.positions, np.array(result.structure.cell))


def _ask(rival: Rival, how: str, case: Case) -> dict[str, Any]:
    return rival.relax(case.atoms) if how == "relax" else rival.ask("packaged", case.atoms)


def _move(case: Case, answer: Mapping[str, Any]) -> Move | None:
    if "error" in answer:
        return None
    return move_of(case.pair, np.array(answer["positions"]), np.array(answer["cell"]))


def _or_still(moves: Sequence[Move | None], still: Sequence[Move]) -> list[Move]:
    return [stay if move is None else move for move, stay in zip(moves, still, strict=True)]


def summarise(measured: Measured, failures: int) -> dict[str, Any]:
    """Statistics of the errors of one contender."""
    return {
        "crystals": len(measured.matched),
        "failures": failures,
        "match_rate": 100 * float(measured.matched.mean()),
        **{name: _statistics(values) for name, values in measured.measures().items()},
    }


def _statistics(values: Float[np.ndarray, " crystals"]) -> dict[str, Any]:
    interval = [float(values.mean())] * 2
    if np.ptp(values) > 0:
        found = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0))
        interval = [float(bound) for bound in found.confidence_interval]
    return {
        "mean": float(values.mean()),
        "interval": interval,
        "median": float(np.median(values)),
        "percentile_90": float(np.percentile(values, 90)),
    }


def table(found: Mapping[str, Any]) -> str:
    """Mean with its 95 % interval, and the median, of every contender."""
    header = [
        "mean (95 % interval), median",
        *_TITLES.values(),
        "match rate / %",
        "not converged",
        "failures",
    ]
    rows = []
    for label, entry in found.items():
        cells = [
            "{mean:.3f} ({0:.3f} to {1:.3f}), {median:.3f}".format(
                *entry[name]["interval"], **entry[name]
            )
            for name in _TITLES
        ]
        counts = [str(entry.get("not_converged", "")), str(entry["failures"])]
        rows.append([label, *cells, f"{entry['match_rate']:.1f}", *counts])
    return markdown_table(header, rows)
