"""The report of a screening: one page that needs nothing beside it, neither files nor network.

Distributions over all that was relaxed, and the most and the least certain structures in 3D,
before and after, with bonds coloured by their expected error (the paper's Fig. 5 d, e).
"""

import html
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from deeprelax_ase.files.atomic_write import replace_text
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import shared_relaxer
from deeprelax_ase.relaxation.result import SOUND
from deeprelax_ase.screening.output_formats import ROWS_IN_GROUP, run_of
from deeprelax_ase.screening.rank_and_deduplicate import Summary, summarise
from deeprelax_ase.screening.rows import atoms_of_row
from deeprelax_ase.structures.elements import chemical_symbols, covalent_radii, jmol_colors
from deeprelax_ase.structures.notes import MEANINGS
from deeprelax_ase.structures.read_structure import plain_crystal

SHOWN = 6
"""Structures at either end that are drawn."""
_MOST_ATOMS = 120
_BOND = 1.25
"""Bonds up to so many times the sum of the covalent radii are drawn."""
_COLORS = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")
"""Viridis: told apart with any kind of colour vision, and in grey."""
_QUANTITIES = ("expected_error", "gain_probability", "largest_displacement", "volume_change")
_BINS = 30
_LEAST_TOP = 0.01
"""Least error (Å) at the end of the colours: all may be zero."""


def write_page(path: Path, output: Path) -> None:
    """Write the report of a parquet output.

    Args:
        path: HTML file; one that is there is replaced.
        output: What `deeprelax screen` wrote.

    Raises:
        ValueError: The output is no parquet file of a screening.
        OSError: The page cannot be written.
    """
    run = run_of(output)
    if run is None:
        msg = f"{output}: a report is made from a parquet output; end its name in .parquet"
        raise ValueError(msg)
    summary = summarise(output)
    best, worst = _ends(output, len(summary.expected_errors))
    crystals = {
        name: [_crystal(row, run) for row in rows]
        for name, rows in (("best", best), ("worst", worst))
    }
    bonds = [bond for group in crystals.values() for c in group for bond in c["bonds"]]
    errors = [bond[-1] for bond in bonds if bond[-1] is not None]
    top = max(float(np.quantile(errors, 0.95)), _LEAST_TOP) if errors else 1.0
    data = {"colors": _COLORS, "top": top, **crystals}
    here = files(__package__)
    page = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"Screening: {output.name}"),
        subtitle=html.escape(
            f"{summary.count:,} structures, relaxed to {_functionals(output)} by the "
            f"weights {', '.join(run['weights_sha256'])}"
        ),
        statuses="".join(_status_rows(summary)),
        notes=_notes(summary),
        histograms="".join(_histograms(output)),
        gradient=", ".join(_COLORS),
        top=f"{top:.2f}",
        structures=json.dumps(data).replace("<", "\\u003c"),
        viewer=(here / "viewer.js").read_text(encoding="utf-8"),
    )
    replace_text(path, page)


def _functionals(output: Path) -> str:
    names = pc.unique(pq.read_table(output, columns=["functional"])["functional"].drop_null())
    return ", ".join(sorted(names.to_pylist())) or "nothing"


def _ends(output: Path, relaxed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The most certain and the least certain rows; none in both."""
    low = min(SHOWN, (relaxed + 1) // 2)
    high = max(relaxed - SHOWN, low)
    found = {}
    for batch in pq.ParquetFile(output).iter_batches(ROWS_IN_GROUP):
        for place, rank in enumerate(batch["rank"].to_pylist()):
            if rank is not None and (rank <= low or rank > high):
                found[rank] = batch.slice(place, 1).to_pylist()[0]
    ranks = sorted(found)
    return [found[r] for r in ranks if r <= low], [found[r] for r in reversed(ranks) if r > high]


def _bonds(atoms: Any, row: dict[str, Any], run: Any) -> list[list[Any]]:
    """Bonds of the relaxed structure, with their expected errors where these can be had.

    They are not stored: the structure is relaxed once more, and where that does not end in what is
    stored, because more was held or the weights are gone, nobody knows the errors.
    """
    if len(atoms) > _MOST_ATOMS:
        return []
    radii = covalent_radii[atoms.numbers]
    try:
        relaxer = shared_relaxer(RelaxOptions(**run["options"] | {"functional": row["functional"]}))
        result = relaxer.relax(atoms)
    except (ValueError, OSError):
        result = None
    is_same = (
        result is not None
        and result.weights.sha256 == row["weights_sha256"]
        and np.isclose(result.expected_error, row["expected_error"], rtol=1e-3, atol=1e-5)
    )
    if result is not None and result.bonds is not None and is_same:
        i, j = result.bonds.edge_index
        offsets, lengths = result.bonds.offsets, result.bonds.lengths
        errors: list[Any] = result.bonds.uncertainties.round(4).tolist()
    else:
        relaxed = plain_crystal(atoms_of_row(row, relaxed=True))
        i, j, offsets, _, lengths = relaxed.pairs_within(2 * _BOND * float(radii.max()))
        errors = [None] * len(i)
    near = lengths < _BOND * (radii[i] + radii[j])
    table = np.column_stack([i, j, offsets]).tolist()
    return [[*bond, error] for bond, error, kept in zip(table, errors, near, strict=True) if kept]


def _crystal(row: dict[str, Any], run: Any) -> dict[str, Any]:
    """What the viewer needs of a structure."""
    atoms = atoms_of_row(row, relaxed=False)
    note = f"; {row['note']}" if row["note"] else ""
    return {
        "title": f"{row['id']}: {row['formula']}",
        "facts": (
            f"expected error {row['expected_error']:.3f} Å, a gain with a probability of "
            f"{row['gain_probability']:.2f}, volume "
            f"{100 * row['volume_change']:+.1f} %, largest move "
            f"{row['largest_displacement']:.2f} Å{note}"
        ),
        "atoms": [
            {
                "symbol": chemical_symbols[z],
                "color": _color(z),
                "radius": round(float(covalent_radii[z]), 3),
            }
            for z in atoms.numbers
        ],
        "bonds": _bonds(atoms, row, run),
        "before": _frame(atoms),
        "after": _frame(atoms_of_row(row, relaxed=True)),
    }


def _frame(atoms: Any) -> dict[str, Any]:
    return {"cell": atoms.cell[:].round(4).tolist(), "positions": atoms.positions.round(4).tolist()}


def _color(number: int) -> str:
    return "#" + "".join(f"{int(255 * part):02x}" for part in jmol_colors[number])


def _status_rows(summary: Summary) -> Iterator[str]:
    rows = [(summary.statuses.get(status, 0), status) for status in ("relaxed", "unchanged")]
    if summary.trusted is not None:
        rows.append((summary.trusted, "of these trusted"))
    if summary.groups is not None:
        rows.append((summary.groups, "different structures among them"))
    ordered = sorted(summary.reasons.items(), key=lambda entry: -entry[1])
    rows += [(count, f"{status}: {reason}") for (status, reason), count in ordered]
    for count, text in rows:
        yield _row(count, text)


def _row(count: int, text: str) -> str:
    return f'<tr><td class="number">{count:,}</td><td>{html.escape(text)}</td></tr>'


def _notes(summary: Summary) -> str:
    """A card of the notes, in words, with how many structures have each."""
    if not summary.notes:
        return ""
    ordered = sorted(summary.notes.items(), key=lambda entry: -entry[1])
    rows = "".join(_row(count, MEANINGS.get(code, code)) for code, count in ordered)
    return f'<section class="card"><h3>What to know of them</h3><table>{rows}</table></section>'


def _histograms(output: Path) -> Iterator[str]:
    table = pq.read_table(output, columns=["status", *_QUANTITIES])
    relaxed = table.filter(pc.is_in(table["status"], pa.array(sorted(SOUND))))
    shown: Sequence[tuple[str, str, Callable[[Any], Any]]] = (
        ("expected_error", "expected error / Å", lambda v: v),
        ("gain_probability", "probability of a gain", lambda v: v),
        ("largest_displacement", "largest move of an atom / Å", lambda v: v),
        ("volume_change", "change of volume / %", lambda v: 100 * v),
    )
    for column, label, scaled in shown:
        values = relaxed[column].drop_null().to_numpy()
        if len(values):
            yield f'<section class="card"><h3>{label}</h3>{_histogram(scaled(values))}</section>'


def _histogram(values: Float[np.ndarray, " some"]) -> str:
    """Bars, as SVG; what lies beyond the outer hundredths is counted in the outer bars."""
    low, high = np.quantile(values, (0.01, 0.99))
    low = min(0.0, low) if low < high / 2 else low
    high = high if high > low else low + 1e-3
    counts, _ = np.histogram(np.clip(values, low, high), _BINS, (low, high))
    width, height, left = 360, 150, 8
    step = (width - 2 * left) / _BINS
    tallest = counts.max()
    bars = "".join(
        f'<rect x="{left + k * step:.1f}" y="{height - count / tallest * (height - 20):.1f}" '
        f'width="{step - 1:.1f}" height="{count / tallest * (height - 20):.1f}"/>'
        for k, count in enumerate(counts)
    )
    marks = "".join(
        f'<text x="{left + share * (width - 2 * left):.0f}" y="{height + 18}" '
        f'text-anchor="{anchor}">{low + share * (high - low):.3g}</text>'
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    median = float(np.median(values))
    return (
        f'<svg viewBox="0 0 {width} {height + 26}" role="img" aria-label="histogram">'
        f'<text x="{width - left}" y="13" text-anchor="end">median {median:.3g}; highest bar '
        f"{tallest:,}</text>{bars}"
        f'<line x1="{left}" y1="{height}" x2="{width - left}" y2="{height}"/>{marks}</svg>'
    )
