"""A chunk of a screening: some entries of the input, read and relaxed, as a table of rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import count, islice
from typing import Any, NamedTuple

import pyarrow as pa

from deeprelax_ase.files.records import Item, one_line
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening.rows import ROWS, failed_row, result_row

CHUNK_SIZE = 256
"""Entries of the input that are read, relaxed and written together."""


_BYTES_PER_EDGE = 1_500
"""Memory that a batch takes for each of its directed edges; measured: 1,000 to 1,250 on a CPU."""


def edges_within(memory: int) -> int:
    """Directed edges of a batch that fits so many MiB."""
    return max(1, memory * 2**20 // _BYTES_PER_EDGE)


def identity(options: RelaxOptions) -> dict[str, Any]:
    """What results depend on, by more than their rounding."""
    facts = asdict(options)
    del facts["device"], facts["edges_per_batch"]
    return facts


class Chunk(NamedTuple):
    """Entries of the input, with their places there, and the chunk's own place among all."""

    number: int
    items: Sequence[tuple[int, Item]]


def chunks(items: Iterable[Item], shard: int = 1, shards: int = 1) -> Iterator[Chunk]:
    """Chunks of every `shards`-th entry of an input, from the `shard`-th on (counted from 1)."""
    own = islice(enumerate(items), shard - 1, None, shards)
    for number in count():
        some = list(islice(own, CHUNK_SIZE))
        if not some:
            return
        yield Chunk(number, some)


def relax_chunk(relaxer: Any, chunk: Chunk) -> pa.Table:
    """Rows of a chunk, in order; what cannot be read or relaxed has a row that says why."""
    entries = [entry for place, item in chunk.items for entry in _read(place, item)]
    results = relaxer.relax_many([s for _, _, s, _ in entries if s is not None])
    rows = [
        failed_row(name, place, error)
        if structure is None
        else result_row(name, place, structure, next(results))
        for name, place, structure, error in entries
    ]
    return pa.Table.from_pylist(rows, ROWS)


def _read(place: int, item: Item) -> list[tuple[str, int, Any, str]]:
    """Id, place and structure of each in an entry; or None and why it cannot be read."""
    try:
        return [(name, place, structure, "") for name, structure in item.read()]
    except Exception as error:  # noqa: BLE001 - the parsers raise whatever their code runs into
        return [(getattr(error, "entry", item.id), place, None, one_line(error))]


def failed_chunk(chunk: Chunk, error: str) -> pa.Table:
    """Rows of a chunk that nothing could be made of."""
    rows = [failed_row(item.id, place, error) for place, item in chunk.items]
    return pa.Table.from_pylist(rows, ROWS)
