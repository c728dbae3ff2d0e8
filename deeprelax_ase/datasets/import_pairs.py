"""Published data sets and a user's own runs, as pairs.

The readers find the unrelaxed and the relaxed structures as they stand in the files; here all of
them go through `cleanup.make_pair`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.importers.raw_pair import Found, Reader
from deeprelax_ase.datasets.importers.registry import READERS
from deeprelax_ase.datasets.match_sites import make_pair
from deeprelax_ase.datasets.write_pairs import Row, split_of
from deeprelax_ase.network.config import FUNCTIONALS
from deeprelax_ase.structures.read_structure import read_structure

_LONGEST_REASON = 80


@dataclass
class Report:
    """What became of a source.

    Attributes:
        read: Pairs that were read, used or not.
        skipped: Why pairs were left out, and how many.
        first: The first that was left out, with its reason.
    """

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def num_skipped(self) -> int:
        """How many were left out."""
        return sum(self.skipped.values())


def convert(
    source: Path, report: Report, functional: str | None = None, *, strict: bool = False
) -> Iterator[Row]:
    """Pairs of a source, cleaned up.

    Args:
        source: What one of `readers.READERS` knows.
        report: Is filled while the rows are drawn.
        functional: Of all targets; None: what the source says, or the one it is known for.
        strict: Refuse a source with a pair that cannot be used, instead of leaving it out.

    Raises:
        ValueError: Not such a source, or with `strict` a pair that cannot be used.
    """
    if functional is not None and functional not in FUNCTIONALS:
        msg = f"unknown functional {functional!r}: choose from {', '.join(FUNCTIONALS)}"
        raise ValueError(msg)
    reader = find_reader(source)
    for found in _all_found(reader, source):
        report.read += 1
        try:
            pair = _pair(found, functional or found.functional or reader.functional)
        except Exception as error:  # whatever a parser meets in one pair, the rest go on
            reason = " ".join(_sentence(error).split())
            if strict:
                msg = f"{source}: pair {found.id}: {reason}"
                raise ValueError(msg) from error
            report.first = report.first or f"{found.id}: {reason}"
            report.skipped[reason.split(":")[0][:_LONGEST_REASON]] += 1
            continue
        split = found.split or split_of(pair.crystal.numbers)
        yield Row(found.id, reader.kind, split, pair)


def find_reader(source: Path) -> Reader:
    """The reader that knows a source.

    Raises:
        ValueError: There is no such file or folder, or none knows it.
    """
    if not source.exists():
        msg = f"no such file or folder: {source}"
        raise ValueError(msg)
    for reader in READERS:
        if reader.knows(source):
            return reader
    known = "; ".join(reader.layout for reader in READERS)
    msg = f"{source} is no source of pairs that is known: {known}"
    raise ValueError(msg)


def kinds_left_out(source: Path) -> list[str]:
    """Kinds of sources that a path holds besides the one that is read of it."""
    read = find_reader(source)
    return [reader.kind for reader in READERS if reader is not read and reader.knows(source)]


def _all_found(reader: Reader, source: Path) -> Iterator[Found]:
    try:
        yield from reader.read(source)
    except (ValueError, OSError):
        raise
    except Exception as error:
        msg = f"{source} cannot be read as {reader.kind}: {_sentence(error)}"
        raise ValueError(msg) from error


def _sentence(error: Exception) -> str:
    is_ours = isinstance(error, ValueError | OSError)
    return str(error) if is_ours else f"it cannot be read ({type(error).__name__}: {error})"


def _pair(found: Found, functional: str) -> Pair:
    structures = found.before(), found.after()
    before, after = (read_structure(structure).crystal for structure in structures)
    if before.pbc.tolist() != after.pbc.tolist():  # vacuum that closed or opened is none
        before, after = (read_structure(structure, "none").crystal for structure in structures)
    return make_pair(before, after, functional)
