"""Expected errors and gains on kinds of crystals that calibration never saw.

    python -m benchmarks.kinds DATA/*.parquet --model weights/default.safetensors --out kinds.json \
        --figures docs

One file of pairs is left out at a time, the others are fitted on, and what that fit says of the one
left out is compared with what came: the mean error of bonds, whether the move was a gain, and how
many crystals are harmed where the fit decides. Inputs and points nearly at the targets both count.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata, spearmanr

from deeprelax_ase.evaluation.evaluate import Evaluation, evaluate
from deeprelax_ase.evaluation.fit_calibration import (
    errors_and_signs,
    expected_errors,
    signs_of_gain,
)
from deeprelax_ase.evaluation.metrics import better
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import Weights, load_weights
from deeprelax_ase.relaxation.calibration import Calibration, fit_crystal, fit_gain

LIMIT = 400
_FARTHER, _FARTHER_BY, _VOLUME_BY = 1.2, 0.02, 0.015
"""Harm: displacements or bonds farther by this factor and Å, or the volume by this share."""


@dataclass(frozen=True)
class Kind:
    """What was measured of a file, every move made.

    Attributes:
        far: From its inputs.
        near: From points nearly at the targets.
    """

    far: Evaluation
    near: Evaluation


@dataclass(frozen=True)
class LeftOut:
    """What a fit on other kinds says of a kind, and what came; crystals with bonds only.

    Attributes:
        errors: Mean error of the bonds, Å.
        expected: What was expected, Å.
        probability: Of a gain; 0 where nothing moves.
        gained: Whether it was one.
        harmed: Whether the move did harm.
        given: Error of the bonds of the input, as `Errors` has it, Å.
        after: The same after the move.
    """

    errors: Float[np.ndarray, " crystals"]
    expected: Float[np.ndarray, " crystals"]
    probability: Float[np.ndarray, " crystals"]
    gained: Bool[np.ndarray, " crystals"]
    harmed: Bool[np.ndarray, " crystals"]
    given: Float[np.ndarray, " crystals"]
    after: Float[np.ndarray, " crystals"]

    @property
    def moved(self) -> Bool[np.ndarray, " crystals"]:
        """Which moves would be made."""
        return np.array(self.probability >= Calibration.least_gain)


def main() -> None:
    """Print the table, and write its numbers and figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path, help="folder for two figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = load_weights(options.model)
    found = measure_all(options.files, weights, options.split, options.limit, options.figures)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["kinds"]))
    print(found["all"])


def measure_all(
    files: Sequence[Path],
    weights: Weights,
    split: str = "val",
    limit: int = LIMIT,
    figures: Path | None = None,
) -> dict[str, Any]:
    """Leave out one file at a time.

    Args:
        files: Of pairs, one a kind.
        weights: The network; it is calibrated anew.
        split: `train`, `val` or `test`.
        limit: Most crystals of a file.
        figures: Folder for two figures.

    Returns:
        `kinds`, a row a file, and `all`, over all of them.
    """
    kinds = {path.stem: measure(path, weights, split, limit) for path in files}
    found = {name: leave_out(name, kinds) for name in kinds}
    if figures:
        from benchmarks.plots import plot_reliability, plot_risk

        plot_reliability(found, figures)
        plot_risk([far for far, _ in found.values()], figures)
    return {
        "all": total([far for far, _ in found.values()], [near for _, near in found.values()]),
        "kinds": {name: summary(*pair) for name, pair in found.items()},
        "made_with": {"weights": weights.sha256},
    }


def measure(path: Path, weights: Weights, split: str, limit: int) -> Kind:
    """Relax what a file holds, without a calibration."""
    plain = replace(weights, calibration={})
    far, near = (
        evaluate(path, plain, split, limit, always_move=True, nearly=nearly)
        for nearly in (False, True)
    )
    return Kind(far, near)


def leave_out(name: str, kinds: Mapping[str, Kind]) -> tuple[LeftOut, LeftOut]:
    """What a fit on all kinds but one says of that one, far from its targets and near them."""
    others = [kind for key, kind in kinds.items() if key != name]
    fitted = Calibration(
        crystal=fit_crystal(*zip(*map(errors_and_signs, [k.far for k in others]), strict=True))
    )
    runs = [run for k in others for run in (k.far, k.near)]
    sets = [signs_of_gain(run, expected_errors(run, fitted)) for run in runs]
    fitted = replace(fitted, gain=fit_gain(sets))
    kind = kinds[name]
    return _judged(kind.far, fitted), _judged(kind.near, fitted)


def _judged(run: Evaluation, fitted: Calibration) -> LeftOut:
    known = np.array([len(errors) > 0 for errors in run.bond_errors])
    run = run.of(known, run.name)
    expected = expected_errors(run, fitted)
    pairs = zip(run.changes.tolist(), expected.tolist(), strict=True)
    probability = np.array([fitted.gain_probability(*pair) for pair in pairs])
    own, dummy = run.errors, run.dummy
    lengths = [(own.displacement, dummy.displacement), (own.bonds, dummy.bonds)]
    harmed = own.log_volume > dummy.log_volume + _VOLUME_BY
    for after, before in lengths:
        harmed |= (after > _FARTHER * before) & (after > before + _FARTHER_BY)
    return LeftOut(
        np.array([errors.mean() for errors in run.bond_errors]),
        expected,
        probability,
        run.gained,
        harmed,
        dummy.bonds,
        own.bonds,
    )


def summary(far: LeftOut, near: LeftOut) -> dict[str, float]:
    """Numbers of a kind; shares in per cent."""
    decided = np.where(far.moved, far.after, far.given)
    return {
        "crystals": len(far.errors),
        "error": float(far.errors.mean()),
        "ratio": float(far.expected.mean() / far.errors.mean()),
        "spearman": float(spearmanr(far.expected, far.errors).statistic),
        "said": float(far.probability.mean()),
        "gained": float(far.gained.mean()),
        "harmed_always": 100 * float(far.harmed.mean()),
        "harmed": 100 * float((far.harmed & far.moved).mean()),
        "near_harmed_always": 100 * float(near.harmed.mean()),
        "near_harmed": 100 * float((near.harmed & near.moved).mean()),
        "better_always": better(far.after.mean(), far.given.mean()),
        "better": better(decided.mean(), far.given.mean()),
    }


def total(far: Sequence[LeftOut], near: Sequence[LeftOut]) -> dict[str, float]:
    """Numbers of all kinds together: how well errors are ranked, and losses told from gains."""
    expected, errors = (
        np.concatenate([getattr(kind, name) for kind in far]) for name in ("expected", "errors")
    )
    probability, gained = (
        np.concatenate([getattr(kind, name) for kind in [*far, *near]])
        for name in ("probability", "gained")
    )
    return {
        "spearman": float(spearmanr(expected, errors).statistic),
        "auc": area_under_curve(probability, gained),
    }


def area_under_curve(scores: Float[np.ndarray, " n"], is_true: Bool[np.ndarray, " n"]) -> float:
    """Probability that one that is true has a higher score than one that is not."""
    ranks, positive = rankdata(scores), int(is_true.sum())
    above = ranks[is_true].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(scores) - positive)))


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The numbers as Markdown."""
    header = [
        "",
        "crystals",
        "error / Å",
        "expected / actual",
        "Spearman",
        "gain said / came",
        "bonds better by %, all moves / decided",
        "harmed %, all moves / decided",
        "nearly there: harmed %",
    ]
    body = [
        [
            f"`{name}`",
            str(int(row["crystals"])),
            f"{row['error']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['spearman']:.2f}",
            f"{row['said']:.2f} / {row['gained']:.2f}",
            f"{row['better_always']:.0f} / {row['better']:.0f}",
            f"{row['harmed_always']:.0f} / {row['harmed']:.0f}",
            f"{row['near_harmed_always']:.0f} / {row['near_harmed']:.0f}",
        ]
        for name, row in rows.items()
    ]
    return markdown_table(header, body)


if __name__ == "__main__":
    main()
