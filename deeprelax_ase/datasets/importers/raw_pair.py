"""Pairs as they stand in the files of a source, and what reads them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deeprelax_ase.files.read_files import read_structures

Structure = Any
"""Whatever `structure.read_structure` takes."""


@dataclass(frozen=True)
class Found:
    """A pair as it stands in the files.

    Attributes:
        id: Name of the pair.
        before: Reads the unrelaxed structure; raises ValueError where it cannot.
        after: Reads the relaxed one.
        functional: None where the source does not say.
        split: None where the source has no splits.
    """

    id: str
    before: Callable[[], Structure]
    after: Callable[[], Structure]
    functional: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of source.

    Attributes:
        kind: Its name.
        layout: What it looks like, for a message.
        functional: That it is known for.
        knows: Whether a path is such a source.
        read: Its pairs.
    """

    kind: str
    layout: str
    functional: str
    knows: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Found]]


def file_reader(path: Path) -> Callable[[], Structure]:
    """Reads the structure of a file of one."""
    return lambda: read_structures(path).structures[0]


def ends(
    name: str, functional: str | None, read: Callable[..., Sequence[Structure]], *arguments: Any
) -> Found:
    """The first and the last of several snapshots."""

    def snapshot(place: int) -> Structure:
        snapshots = read(*arguments)
        if len(snapshots) <= 1:
            msg = f"{len(snapshots)} snapshots: a pair needs a first and a last one"
            raise ValueError(msg)
        return snapshots[place]

    return Found(name, partial(snapshot, 0), partial(snapshot, -1), functional)
