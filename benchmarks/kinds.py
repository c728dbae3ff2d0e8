"""Expected errors on kinds of crystals that calibration never saw: one file left out at a time.

    python -m benchmarks.kinds DATA/*.parquet --model weights/default.safetensors --out kinds.json

For each file: the mean error of bonds, the expected one over it where the file is among those that
are fitted on and where it is left out, their rank correlation then, and how many crystals end
farther from their target than they began, as the weights decide and with every move made.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr

from deeprelax_ase.evaluation.evaluate import evaluate
from deeprelax_ase.evaluation.fit_calibration import errors_and_signs
from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import Weights, load_weights
from deeprelax_ase.relaxation.calibration import Calibration, fit_crystal

_HARM = 1e-3
"""An error that grows by more than this (Å) is harm."""


@dataclass(frozen=True)
class Kind:
    """What was measured of a file.

    Attributes:
        errors: Mean error of the bonds of each crystal, Å, with every move made.
        signs: What tells of it.
        scales: Of the bonds of each.
        harmed: Share of crystals that end farther away, in per cent, as the weights decide.
        harmed_always: The same with every move made.
    """

    errors: Float[np.ndarray, " crystals"]
    signs: Float[np.ndarray, "crystals signs"]
    scales: tuple[Float[np.ndarray, " _"], ...]
    harmed: float
    harmed_always: float

    def expected(self, calibration: Calibration) -> Float[np.ndarray, " crystals"]:
        """Expected errors with a calibration, Å."""
        rows = zip(self.scales, self.signs, strict=True)
        return np.array([calibration.expected_error(scales, signs) for scales, signs in rows])


def main() -> None:
    """Print the table, and write its numbers."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = load_weights(options.model)
    kinds = {
        path.stem: measure(path, weights, options.split, options.limit) for path in options.files
    }
    found = leave_out(kinds)
    if options.out:
        options.out.write_text(json.dumps({"sha256": weights.sha256, "kinds": found}, indent=1))
    print(table(found))


def measure(path: Path, weights: Weights, split: str, limit: int) -> Kind:
    """Relax the inputs of a file, once as the weights decide, once with every move made."""
    plain = replace(weights, calibration={})
    always = evaluate(path, plain, split, limit, always_move=True)
    decided = evaluate(path, weights, split, limit)
    errors, signs = errors_and_signs(always)
    harmed = [
        100 * float((run.errors.bonds - run.dummy.bonds > _HARM).mean())
        for run in (decided, always)
    ]
    return Kind(errors, signs, tuple(s for s in always.bond_scales if len(s)), *harmed)


def leave_out(kinds: Mapping[str, Kind]) -> dict[str, dict[str, float]]:
    """Expected over actual errors, with each kind among those fitted on and left out."""
    found = {}
    everything = _fit(list(kinds.values()))
    for name, kind in kinds.items():
        others = _fit([other for key, other in kinds.items() if key != name])
        expected = kind.expected(others)
        actual = kind.errors.mean()
        found[name] = {
            "crystals": len(kind.errors),
            "error": float(actual),
            "ratio": float(kind.expected(everything).mean() / actual),
            "ratio_left_out": float(expected.mean() / actual),
            "spearman_left_out": float(spearmanr(expected, kind.errors).statistic),
            "harmed": kind.harmed,
            "harmed_always": kind.harmed_always,
        }
    return found


def _fit(kinds: Sequence[Kind]) -> Calibration:
    return Calibration(crystal=fit_crystal([k.errors for k in kinds], [k.signs for k in kinds]))


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The numbers as Markdown."""
    header = [
        "",
        "crystals",
        "error / Å",
        "expected / actual, fitted on it",
        "left out",
        "Spearman, left out",
        "harmed / %",
        "with `always_move`",
    ]
    rows = [
        [
            f"`{name}`",
            str(int(entry["crystals"])),
            f"{entry['error']:.3f}",
            f"{entry['ratio']:.2f}",
            f"{entry['ratio_left_out']:.2f}",
            f"{entry['spearman_left_out']:.2f}",
            f"{entry['harmed']:.0f}",
            f"{entry['harmed_always']:.0f}",
        ]
        for name, entry in found.items()
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
