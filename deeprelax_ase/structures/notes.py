"""Notes: what a person should know of a structure or a result, as data that can be counted."""

from collections.abc import Iterable
from typing import NamedTuple


class Note(NamedTuple):
    """A short code, the same for every structure of a kind, and a sentence about this one."""

    code: str
    text: str


def sentences(notes: Iterable[Note]) -> str:
    """The sentences of notes in one line."""
    return "; ".join(note.text for note in notes)
