"""Draw one crystal of a file of pairs before, as predicted, and as DFT relaxed it."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms

from deeprelax_ase import Relaxer
from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.structures.ase_adapter import atoms_of

mpl.use("Agg")
import matplotlib.pyplot as plt

_ROTATION = "-85x,20y,3z"
# Okabe and Ito: told apart by colour-blind eyes as well.
_COLORS = ["#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2"]


def draw(pair: Pair, out: Path) -> dict[str, float]:
    """Draw the three panels.

    Args:
        pair: What is relaxed.
        out: Picture to write.

    Returns:
        Mean displacement `before`, mean `error`, and what was `expected` of the bonds, Å.
    """
    before = atoms_of(pair.crystal)
    relaxer = Relaxer(functional=pair.functional)
    relaxer.relax(before)  # the first call takes longer
    result = relaxer.relax(before)
    after = atoms_of(pair.relaxed)
    error = np.linalg.norm(result.displacement - pair.displacements, axis=1).mean()
    move = np.linalg.norm(pair.displacements, axis=1).mean()
    panels = {
        f"unrelaxed\n{move:.2f} Å from DFT, {_off(before, after)}": before,
        f"predicted in {1000 * result.seconds:.0f} ms\n{error:.2f} Å from DFT, "
        f"{_off(result.structure, after)}": result.structure,
        f"relaxed by DFT\n{pair.functional}, the reference": after,
    }
    _draw(panels, before.get_chemical_formula(empirical=True), out)
    return {"before": move, "error": error, "expected": result.expected_error}


def _off(atoms: Atoms, truth: Atoms) -> str:
    return f"volume {100 * (atoms.get_volume() / truth.get_volume() - 1):+.0f} %"


def _draw(panels: dict[str, Atoms], formula: str, out: Path) -> None:
    symbols = sorted(set(panels[next(iter(panels))].symbols))
    palette = dict(zip(symbols, _COLORS, strict=False))
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.6), sharex=True, sharey=True)
    highest = np.zeros(2)
    for axis, (title, atoms) in zip(axes, panels.items(), strict=True):
        centered = atoms.copy()
        centered.wrap()
        colors = [palette[symbol] for symbol in centered.symbols]
        plot_atoms(centered, axis, rotation=_ROTATION, radii=0.45, show_unit_cell=2, colors=colors)
        axis.set_title(title, fontsize=12)
        axis.set_axis_off()
        axis.set_aspect("equal")
        highest = np.maximum(highest, [axis.get_xlim()[1], axis.get_ylim()[1]])
    axes[0].set(xlim=(0, highest[0]), ylim=(0, highest[1]))  # the axes are shared
    legend = [
        mpl.lines.Line2D([], [], marker="o", ls="", ms=9, mec="k", mfc=color, label=symbol)
        for symbol, color in palette.items()
    ]
    figure.legend(handles=legend, loc="lower center", ncols=len(legend), frameon=False)
    figure.suptitle(formula, fontsize=14)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(out, dpi=130)
    plt.close(figure)
