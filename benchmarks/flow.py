"""Draw the jobs of atomate2's DoubleRelaxMaker with the one-shot move in front of it.

    python -m benchmarks.flow OUT.png

Needs `pip install "deeprelax-ase[jobflow]" atomate2 matplotlib`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import networkx as nx
from atomate2.vasp.flows.core import DoubleRelaxMaker
from pymatgen.core import Lattice, Structure

from deeprelax_ase.interfaces.jobflow import precondition

mpl.use("Agg")
import matplotlib.pyplot as plt

_OURS, _THEIRS = "#56B4E9", "#DDDDDD"


def main() -> None:
    """Draw the jobs in the order they run, and what goes from one to the next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    graph = precondition(DoubleRelaxMaker()).make(structure).graph
    order = list(nx.topological_sort(graph))
    places = {node: (2.0 * number, 0.0) for number, node in enumerate(order)}
    figure, axes = plt.subplots(figsize=(7.5, 1.6))
    for start, end, facts in graph.edges(data=True):
        (x, y), target = places[start], places[end]
        arrow = {"arrowstyle": "-|>", "shrinkA": 38, "shrinkB": 38}
        axes.annotate("", target, (x, y), arrowprops=arrow)
        carried = facts["properties"]
        text = carried if isinstance(carried, str) else "\n".join(carried)
        axes.text(x + 1, 0.06, text, ha="center", va="bottom", fontsize=9)
    for node, (x, y) in places.items():
        name = graph.nodes[node]["job"].name
        box = {"boxstyle": "round,pad=0.6", "fc": _OURS if name == "deeprelax" else _THEIRS}
        axes.text(x, y, name, ha="center", va="center", bbox=box)
    axes.set(xlim=(-0.6, 2.0 * len(order) - 1.4), ylim=(-0.3, 0.5))
    axes.axis("off")
    figure.savefig(out, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
