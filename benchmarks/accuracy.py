"""How near to DFT every contender ends: the paper's measures (Eq. 25-28) and those of the field."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap
from tqdm import tqdm

from benchmarks import field
from benchmarks.cases import Case, Measured, Move, measure, move_of, relaxed_atoms, still
from benchmarks.rival import Rival, going_on
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import shared_relaxer
from deeprelax_ase.structures.read_structure import held_structure

_TITLES = {
    "coordinates": "coordinates / Å",
    "minimum_image": "minimum image / Å",
    "displacement": "displacement / Å",
    "bonds": "bonds / Å",
    "lattice": "lattice / Å",
    "volume": "volume / Å³",
}
INPUT, OURS = "input", "DeepRelax"
OWN_RELAXER = ", its own relaxer"


def compare(
    cases: Sequence[Case],
    rivals: Mapping[str, Rival],
    *,
    known: Mapping[str, Any] | None = None,
    own_relaxers: bool = True,
    judge: Rival | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Relax every case with every contender and summarise the errors.

    Args:
        cases: The pairs; each is relaxed by us to its own functional.
        rivals: By name. One whose process ends is left out; one that fails on a crystal counts as
            having left it as it was.
        known: Summaries that need not be made again, by contender.
        own_relaxers: Whether the relaxers of the rivals' packages take part, where there are any.
        judge: The potential whose energies are compared; none: no energies.
        keep: Called with everything found so far whenever a contender is done.

    Returns:
        For each contender, the input first, the number of crystals and of failures, and of every
        measure the mean with its 95 % interval, the median and the 90th percentile; RMSD,
        symmetry and energies as in `field`.
    """
    found: dict[str, Any] = {}

    def contend(label: str, relax: Callable[[], tuple[list[Move | None], dict[str, Any]]]) -> None:
        if known is not None and label in known:
            found[label] = known[label]
        else:
            with going_on():
                moves, more = relax()
                found[label] = {**summarise(cases, moves, judge), **more}
                keep(found)

    contend(INPUT, lambda: ([still(case) for case in cases], {}))
    contend(OURS, lambda: ([our_move(case) for case in cases], {}))
    for name, rival in rivals.items():
        contend(name, lambda rival=rival: _of_rival(rival, "relax", cases))  # type: ignore[misc]
        with going_on():
            if own_relaxers and rival.has_packaged:
                label = f"{name}{OWN_RELAXER}"
                contend(label, lambda rival=rival: _of_rival(rival, "packaged", cases))  # type: ignore[misc]
    return found


def our_move(case: Case, passes: int = 1) -> Move | None:
    """Our relaxation of a case to its own functional; None if it was refused."""
    functional: Any = case.pair.functional
    relaxer = shared_relaxer(RelaxOptions(functional=functional, allow_unseen=True, passes=passes))
    result = relaxer.relax(held_structure(case.pair.crystal))
    if not result.is_sound:
        return None
    atoms: Any = result.structure  # of what it was told to hold
    return move_of(case.pair, atoms.positions, np.array(atoms.cell))


def _of_rival(
    rival: Rival, how: str, cases: Sequence[Case]
) -> tuple[list[Move | None], dict[str, Any]]:
    """Moves of a rival, how many relaxations did not converge, and the median of the steps."""
    answers = [_ask(rival, how, case) for case in tqdm(cases, rival.name, file=sys.stderr)]
    moves = [_move(case, answer) for case, answer in zip(cases, answers, strict=True)]
    sound = [answer for answer in answers if "error" not in answer]
    steps = [answer["steps"] for answer in sound]
    return moves, {
        "not_converged": sum(not answer.get("converged", True) for answer in answers),
        "steps": float(np.median(steps)) if steps else None,
    }


def _ask(rival: Rival, how: str, case: Case) -> dict[str, Any]:
    if how == "packaged":
        return rival.ask("packaged", case.atoms)
    options = rival.options(case.pair.functional)
    return rival.relax(case.atoms, options=options, strains=case.strains)


def _move(case: Case, answer: Mapping[str, Any]) -> Move | None:
    if "error" in answer:
        return None
    return move_of(case.pair, np.array(answer["positions"]), np.array(answer["cell"]))


def summarise(
    cases: Sequence[Case], moves: Sequence[Move | None], judge: Rival | None = None
) -> dict[str, Any]:
    """Statistics of the errors of one contender; a crystal without a move stays as it is.

    Raises:
        RivalError: The process of the judge ended.
    """
    pairs = [case.pair for case in cases]
    made = [still(case) if m is None else m for case, m in zip(cases, moves, strict=True)]
    measured: Measured = measure(pairs, made)
    ends = [relaxed_atoms(pair, *move) for pair, move in zip(pairs, made, strict=True)]
    inputs, targets = [case.atoms for case in cases], [case.target for case in cases]
    entry = {
        "crystals": len(cases),
        "failures": sum(move is None for move in moves),
        "match_rate": 100 * float(measured.matched.mean()),
        **{name: _statistics(values) for name, values in measured.measures().items()},
        "symmetry": field.symmetry(ends, inputs, targets),
    }
    if all(atoms.pbc.all() for atoms in targets):  # long cells of sheets have no Niggli form
        entry["rmsd"] = field.rmsd(ends, targets)
    if judge is not None:
        entry["energy"] = field.energies(ends, targets, judge)
    return entry


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
        "RMSD",
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
        rmsd = f"{entry['rmsd']['mean']:.3f}" if "rmsd" in entry else ""
        rates = [f"{entry['match_rate']:.1f}", rmsd]
        rows.append([label, *cells, *rates, *counts])
    return markdown_table(header, rows)
