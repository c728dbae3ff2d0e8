"""From the rows of single structures to a ranked whole: ranks, trust, duplicates and a summary."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from deeprelax_ase.datasets.write_pairs import reduced_composition
from deeprelax_ase.relaxation.result import SOUND
from deeprelax_ase.screening.rows import RANKED, compact_structure_of_row

_LONG_REASON = 120
_STOL_BESIDE_VACUUM = 0.2
_LIGHT = ("status", "expected_error", "item")
_GEOMETRY = ("numbers", "pbc", "relaxed_cell", "relaxed_positions")
_COUNTED = ("status", "error", "note_codes", "rank", "expected_error", "trusted", "representative")


@dataclass(frozen=True)
class Overview:
    """What has to be known of all rows before the first can be written.

    Attributes:
        parts: Files of the rows, in order.
        entries: Entries of the input that the rows are of.
        lengths: Rows in each.
        expected_errors: Of every row, Å; NaN where nothing was predicted.
        ranks: 1 for the least expected error; 0 where it was not relaxed.
        max_error: Å; a higher expected error is not trusted.
        groups: Number of each row's group of duplicates; -1: not relaxed; None: not asked for.
        representatives: Whether a row stands for its group: its expected error is the least.
    """

    parts: Sequence[Path]
    entries: int
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
        not_ranked, not_grouped = ranks == 0, None
        trusted = groups = representatives = None
        if self.max_error is not None:
            trusted = self.expected_errors[rows] <= self.max_error
        if self.groups is not None and self.representatives is not None:
            groups, representatives = self.groups[rows], self.representatives[rows]
            not_grouped = groups < 0
        columns = {
            "rank": (ranks, not_ranked),
            "trusted": (trusted, not_ranked),
            "group": (groups, not_grouped),
            "representative": (representatives, not_grouped),
        }
        for name, (values, mask) in columns.items():
            kind = RANKED.field(name).type
            array = (
                pa.nulls(len(table), kind) if values is None else pa.array(values, kind, mask=mask)
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
        deduplicate: Group what StructureMatcher calls the same, at its defaults; sheets, wires and
            molecules apart, with little vacuum around and a stol of 0.2.
    """
    lengths, compositions, errors, sound, entries = [], [], [], [], 0
    for part in parts:
        table = pq.read_table(part, columns=[*_LIGHT, *(["numbers"] if deduplicate else [])])
        relaxed = pc.is_in(table["status"], pa.array(sorted(SOUND)))
        error = pc.if_else(relaxed, pc.fill_null(table["expected_error"], np.nan), np.nan)
        errors.append(error.to_numpy())
        sound.append(relaxed.to_numpy())
        lengths.append(len(table))
        entries += len(pc.unique(table["item"]))
        if deduplicate:
            lists = table["numbers"].to_pylist()
            compositions += [reduced_composition(np.array(n)) if n else "" for n in lists]
    expected = np.concatenate(errors) if errors else np.zeros(0)
    is_relaxed = ~np.isnan(expected)
    ranks = np.zeros(len(expected), dtype=np.int64)
    order = np.argsort(expected, kind="stable")[: is_relaxed.sum()]
    ranks[order] = np.arange(1, len(order) + 1)
    counts = np.array(lengths, dtype=np.int64)
    groups = representatives = None
    if deduplicate:
        by_composition: dict[str, list[int]] = defaultdict(list)
        is_sound = np.concatenate(sound) if sound else np.zeros(0, dtype=bool)
        for row in np.flatnonzero(is_sound).tolist():
            by_composition[compositions[row]].append(row)
        groups = _groups(parts, counts, by_composition, len(expected))
        representatives = np.zeros(len(expected), dtype=bool)
        # The surest first; what nothing is expected of last.
        best_first = np.argsort(expected, kind="stable")
        best_first = best_first[is_sound[best_first]]
        _, best = np.unique(groups[best_first], return_index=True)
        representatives[best_first[best]] = True
    return Overview(parts, entries, counts, expected, ranks, max_error, groups, representatives)


def _groups(
    parts: Sequence[Path],
    lengths: Int[np.ndarray, " parts"],
    by_composition: Mapping[str, Sequence[int]],
    count: int,
) -> Int[np.ndarray, " rows"]:
    """Numbers of groups, in the order in which their first members come."""
    same_as = np.full(count, -1, dtype=np.int64)
    # An atom on a surface is elsewhere at half of the distance that makes two crystals differ.
    matchers = {False: StructureMatcher(), True: StructureMatcher(stol=_STOL_BESIDE_VACUUM)}
    for rows in by_composition.values():
        if len(rows) == 1:
            same_as[rows[0]] = rows[0]
            continue
        seen: dict[bool, list[tuple[int, Structure]]] = {False: [], True: []}
        for row, (structure, has_vacuum) in zip(
            rows, _structures(parts, lengths, rows), strict=True
        ):
            known, matcher = seen[has_vacuum], matchers[has_vacuum]
            twin = next((other for other, kept in known if _fit(matcher, kept, structure)), row)
            same_as[row] = twin
            if twin == row:
                known.append((row, structure))
    heads = np.unique(same_as[same_as >= 0])
    groups = np.full(count, -1, dtype=np.int64)
    groups[same_as >= 0] = np.searchsorted(heads, same_as[same_as >= 0])
    return groups


def _fit(matcher: StructureMatcher, one: Structure, other: Structure) -> bool:
    """Whether two structures match; those that the matcher cannot handle match none."""
    try:
        return bool(matcher.fit(one, other, skip_structure_reduction=True))
    except Exception:  # noqa: BLE001 - reductions of odd cells raise all kinds
        return False


def _reduced(structure: Structure) -> Structure:
    """Once what the matcher would do in every comparison; as it is where that fails."""
    try:
        niggli = structure.get_reduced_structure(reduction_algo="niggli")
        return niggli.get_primitive_structure()
    except Exception:  # noqa: BLE001 - as above
        return structure


def _structures(
    parts: Sequence[Path], lengths: Int[np.ndarray, " parts"], rows: Sequence[int]
) -> Iterator[tuple[Structure, bool]]:
    """Structures of rows, given in order, as they are compared, and whether they have vacuum."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.searchsorted(starts, rows, side="right") - 1
    for place in np.unique(places):
        table = pq.read_table(parts[place], columns=list(_GEOMETRY))
        own = np.asarray(rows)[places == place] - starts[place]
        for row in table.take(own).to_pylist():
            structure, has_vacuum = compact_structure_of_row(row)
            yield _reduced(structure), has_vacuum


@dataclass(frozen=True)
class Summary:
    """What came of a screening.

    Attributes:
        statuses: How many were relaxed, left unchanged, refused, failed.
        notes: How many have a note of each code.
        reasons: Why the others were refused or failed, without their numbers and names.
        expected_errors: Of what was relaxed, Å, sorted.
        trusted: How many, or None.
        groups: Groups of duplicates, or None.
    """

    statuses: Mapping[str, int]
    notes: Mapping[str, int]
    reasons: Mapping[tuple[str, str], int]
    expected_errors: Float[np.ndarray, " relaxed"]
    trusted: int | None
    groups: int | None

    @property
    def count(self) -> int:
        """All structures."""
        return sum(self.statuses.values())


class Tally:
    """Counts rows on their way."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._notes: Counter[str] = Counter()
        self._errors: list[Float[np.ndarray, " some"]] = []
        self._trusted: int | None = None
        self._groups = 0

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables, counted as they pass."""
        for table in tables:
            self._count(table)
            yield table

    def _count(self, table: pa.Table) -> None:
        statuses, errors = table["status"].to_pylist(), table["error"].to_pylist()
        self._statuses.update(statuses)
        pairs = zip(statuses, errors, strict=True)
        self._reasons.update(
            (status, general(error)) for status, error in pairs if status not in SOUND
        )
        for codes in table["note_codes"].drop_null().to_pylist():
            self._notes.update(set(codes))
        ranked = table.filter(pc.is_valid(table["rank"]))
        self._errors.append(ranked["expected_error"].to_numpy())
        trusted = ranked["trusted"].drop_null()
        if len(trusted):
            self._trusted = (self._trusted or 0) + pc.sum(trusted).as_py()
        self._groups += pc.sum(pc.fill_null(table["representative"], False)).as_py() or 0

    def summary(self) -> Summary:
        """What passed."""
        return Summary(
            dict(self._statuses),
            dict(self._notes),
            dict(self._reasons),
            np.sort(np.concatenate([np.zeros(0), *self._errors])),
            self._trusted,
            self._groups or None,
        )


def summarise(output: Path) -> Summary:
    """Count the rows of a finished parquet output."""
    tally = Tally()
    for batch in pq.ParquetFile(output).iter_batches(columns=list(_COUNTED)):
        for _ in tally.watch([pa.Table.from_batches([batch])]):
            pass
    return tally.summary()


def general(error: str | None) -> str:
    """A reason without the names and numbers of a single structure, so that they can be counted."""
    text = re.sub(r"\S*[/\\]\S*|'[^']*'", "…", error or "")
    text = re.sub(r"[-+]?\d[\d.e+-]*", "…", text)
    return text.split(": ", 1)[0] if len(text) > _LONG_REASON else text
