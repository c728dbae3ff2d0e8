"""From the rows of single structures to a ranked whole: ranks, trust, duplicates and a summary."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase.screen.rows import RANKED, atoms_of_row

_LONG_REASON = 120
_LIGHT = ("status", "formula", "expected_error")


@dataclass(frozen=True)
class Overview:
    """What has to be known of all rows before the first can be written.

    Attributes:
        parts: Files of the rows, in order.
        lengths: Rows in each.
        expected_errors: Of every row, Å; NaN where it was not relaxed.
        ranks: 1 for the least expected error; 0 where it was not relaxed.
        max_error: Å; a higher expected error is not trusted.
        groups: Number of each row's group of duplicates; -1: not relaxed; None: not asked for.
        representatives: Whether a row stands for its group: its expected error is the least.
    """

    parts: Sequence[Path]
    lengths: Int[np.ndarray, " parts"]
    expected_errors: Float[np.ndarray, " rows"]
    ranks: Int[np.ndarray, " rows"]
    max_error: float | None
    groups: Int[np.ndarray, " rows"] | None
    representatives: Bool[np.ndarray, " rows"] | None

    def tables(self) -> Iterator[pa.Table]:
        """All rows with what the whole says of them, a part at a time."""
        first = 0
        for part, length in zip(self.parts, self.lengths.tolist(), strict=True):
            yield self._complete(pq.read_table(part), slice(first, first + length))
            first += length

    def _complete(self, table: pa.Table, rows: slice) -> pa.Table:
        ranks = self.ranks[rows]
        not_relaxed = ranks == 0
        trusted = None
        if self.max_error is not None:
            trusted = self.expected_errors[rows] <= self.max_error
        columns: tuple[np.ndarray | None, ...] = (
            ranks,
            trusted,
            None if self.groups is None else self.groups[rows],
            None if self.representatives is None else self.representatives[rows],
        )
        for name, values in zip(RANKED.names[-len(columns) :], columns, strict=True):
            kind = RANKED.field(name).type
            array = (
                pa.nulls(len(table), kind)
                if values is None
                else pa.array(values, kind, mask=not_relaxed)
            )
            table = table.append_column(name, array)
        return table


def overview(
    parts: Sequence[Path], max_error: float | None = None, *, deduplicate: bool = False
) -> Overview:
    """Rank all rows, and find duplicates if asked.

    Args:
        parts: Files of rows, in the order of the input.
        max_error: Å; a relaxed structure whose expected error is higher is not trusted.
        deduplicate: Group what StructureMatcher calls the same, at its defaults.
    """
    lengths, formulas, errors = [], [], []
    for part in parts:
        table = pq.read_table(part, columns=list(_LIGHT))
        relaxed = pc.equal(table["status"], "relaxed")
        error = pc.if_else(relaxed, pc.fill_null(table["expected_error"], np.inf), np.nan)
        errors.append(error.to_numpy())
        lengths.append(len(table))
        if deduplicate:
            formulas += table["formula"].to_pylist()
    expected = np.concatenate(errors) if errors else np.zeros(0)
    is_relaxed = ~np.isnan(expected)
    ranks = np.zeros(len(expected), dtype=np.int64)
    order = np.argsort(expected, kind="stable")[: is_relaxed.sum()]
    ranks[order] = np.arange(1, len(order) + 1)
    groups = representatives = None
    counts = np.array(lengths, dtype=np.int64)
    if deduplicate:
        by_formula: dict[str, list[int]] = defaultdict(list)
        for row in np.flatnonzero(is_relaxed).tolist():
            by_formula[formulas[row]].append(row)
        groups = _groups(parts, counts, by_formula, len(expected))
        best = sorted(np.flatnonzero(is_relaxed).tolist(), key=lambda row: ranks[row])
        first: dict[int, int] = {}
        for row in best:
            first.setdefault(int(groups[row]), row)
        representatives = np.zeros(len(expected), dtype=bool)
        representatives[list(first.values())] = True
    return Overview(parts, counts, expected, ranks, max_error, groups, representatives)


def _groups(
    parts: Sequence[Path],
    lengths: Int[np.ndarray, " parts"],
    by_formula: Mapping[str, Sequence[int]],
    count: int,
) -> Int[np.ndarray, " rows"]:
    """Numbers of groups, in the order in which their first members come."""
    same_as = np.full(count, -1, dtype=np.int64)
    matcher = StructureMatcher()
    for rows in by_formula.values():
        if len(rows) == 1:
            same_as[rows[0]] = rows[0]
            continue
        seen: list[tuple[int, Structure]] = []
        for row, structure in zip(rows, _structures(parts, lengths, rows), strict=True):
            twin = next((other for other, kept in seen if matcher.fit(kept, structure)), row)
            same_as[row] = twin
            if twin == row:
                seen.append((row, structure))
    heads = np.unique(same_as[same_as >= 0])
    groups = np.full(count, -1, dtype=np.int64)
    groups[same_as >= 0] = np.searchsorted(heads, same_as[same_as >= 0])
    return groups


def _structures(
    parts: Sequence[Path], lengths: Int[np.ndarray, " parts"], rows: Sequence[int]
) -> Iterator[Structure]:
    """Relaxed structures of some rows, which are given in order."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.searchsorted(starts, rows, side="right") - 1
    for place in np.unique(places):
        table = pq.read_table(parts[place])
        own = np.asarray(rows)[places == place] - starts[place]
        for row in table.take(own).to_pylist():
            yield AseAtomsAdaptor.get_structure(atoms_of_row(row, relaxed=True))


@dataclass(frozen=True)
class Summary:
    """What came of a screening.

    Attributes:
        statuses: How many were relaxed, refused, failed.
        unmoved: Relaxed ones that were left as they were.
        reasons: Why the others were refused or failed, without their numbers and names.
        expected_errors: Of what was relaxed, Å, sorted.
        trusted: How many, or None.
        groups: Groups of duplicates, or None.
    """

    statuses: Mapping[str, int]
    unmoved: int
    reasons: Mapping[tuple[str, str], int]
    expected_errors: Float[np.ndarray, " relaxed"]
    trusted: int | None
    groups: int | None

    @property
    def count(self) -> int:
        """All structures."""
        return sum(self.statuses.values())


class Tally:
    """Counts rows on their way to the output."""

    def __init__(self, whole: Overview) -> None:
        self._whole = whole
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._unmoved = 0

    def watch(self) -> Iterator[pa.Table]:
        """The tables of the whole, counted as they pass."""
        for table in self._whole.tables():
            statuses, errors = table["status"].to_pylist(), table["error"].to_pylist()
            self._statuses.update(statuses)
            pairs = zip(statuses, errors, strict=True)
            self._reasons.update(
                (status, general(error)) for status, error in pairs if status != "relaxed"
            )
            still = pc.match_substring(pc.fill_null(table["note"], ""), "left as it was")
            self._unmoved += pc.sum(still).as_py() or 0
            yield table

    def summary(self) -> Summary:
        """What passed."""
        whole = self._whole
        errors = np.sort(whole.expected_errors[whole.ranks > 0])
        limit, groups = whole.max_error, whole.groups
        return Summary(
            dict(self._statuses),
            self._unmoved,
            dict(self._reasons),
            errors,
            None if limit is None else int((errors <= limit).sum()),
            None if groups is None else len(np.unique(groups[groups >= 0])),
        )


def general(error: str | None) -> str:
    """A reason without the names and numbers of a single structure, so that they can be counted."""
    text = re.sub(r"\S*[/\\]\S*|'[^']*'", "…", error or "")
    text = re.sub(r"[-+]?\d[\d.e+-]*", "…", text)
    return text.split(": ", 1)[0] if len(text) > _LONG_REASON else text
