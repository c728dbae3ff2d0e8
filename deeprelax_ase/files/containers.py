"""Take files of many structures apart into entries: xyz, JSON, and lines of JSON.

An entry is read later, perhaps in another process. Lists are never held as a whole.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import StringIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ase.io import read as ase_read

from deeprelax_ase.files.ase_database import read_database
from deeprelax_ase.files.file_text import decode, open_unpacked, read_bytes
from deeprelax_ase.files.records import (
    ID_KEYS,
    EntryError,
    Item,
    Named,
    cannot_be_read,
    is_record,
    read_record,
    reason_of,
)
from deeprelax_ase.structures.validation import StructureError

_CHARACTERS_AT_ONCE = 1 << 20
_LISTS = ("entries", "data", "structures")
"""Keys under which Alexandria, OPTIMADE, the Materials Project and others put their structures."""
_LIST_FIRST = re.compile(r'\s*(?:\{\s*"entries"\s*:\s*)?\[')
_ENTRY = re.compile(r'"(?:\\.|[^"\\])*"|(?<!\S)([^\s="]+)=(?:"((?:\\.|[^"\\])*)"|(\S+))')
"""Key and value of the comment of an extxyz frame, or a text in quotes, which holds no entry."""
_AS_JSON = "_JSON "
"""What ASE begins a value with that is JSON."""


def items_of_xyz(label: str, path: Path) -> Iterator[Item]:
    """Frames of an (ext)xyz file; one that breaks off costs none but itself.

    Raises:
        StructureError: A frame does not begin with its number of atoms.
    """
    with text_of(path) as stream:
        lines = (line for line in stream)
        head = next(lines, None)
        number = 0
        while head is not None:
            if not head.strip():
                head = next(lines, None)
                continue
            if not head.strip().isdecimal():
                msg = f"a frame begins with its number of atoms, not with {head.strip()[:60]!r}"
                raise StructureError(msg)
            rest, following = _lines_of_frame(lines, int(head))
            name = _own_id(rest[0] if rest else "") or f"{label}[{number}]"
            if len(rest) <= int(head):
                message = f"{path}: frame {number} breaks off: {len(rest) - 1} of {int(head)} atoms"
                yield Item(name, partial(cannot_be_read, message))
            else:
                yield Item(name, partial(_read_frame, name, "".join((head, *rest))))
            number += 1
            head = next(lines, None) if following is None else following


def _lines_of_frame(lines: Iterator[str], atoms: int) -> tuple[list[str], str | None]:
    """Comment and atoms of a frame; and the head of the next one, where it came too early."""
    rest: list[str] = []
    for line in islice(lines, atoms + 1):
        if rest and line.strip().isdecimal():
            return rest, line
        rest.append(line)
    return rest, None


def _own_id(comment: str) -> str:
    """The id of a frame as it stands there: to ASE, 007 would be a number."""
    for found in _ENTRY.finditer(comment):
        if found[1] in ID_KEYS:
            value = re.sub(r"\\(.)", r"\1", found[2] or found[3] or "")
            if value.startswith(_AS_JSON):
                with suppress(ValueError):
                    return str(json.loads(value.removeprefix(_AS_JSON)))
            return value
    return ""


def _read_frame(name: str, text: str) -> list[Named]:
    try:
        return [(name, ase_read(StringIO(text), format="extxyz"))]
    except Exception as error:  # the parser raises whatever its code runs into
        raise EntryError(name, reason_of(error)) from error


def items_of_json_lines(label: str, path: Path) -> Iterator[Item]:
    """Lines of a file with one structure or record in JSON on each."""
    with text_of(path) as stream:
        lines = (line for line in stream if line.strip())
        for number, line in enumerate(lines):
            name = f"{label}[{number}]"
            yield Item(name, partial(_read_json, name, line))


def _read_json(name: str, text: str) -> list[Named]:
    return read_record(name, json.loads(text))


def items_of_json(label: str, path: Path) -> Iterator[Item]:
    """Take apart a JSON file: a structure, a list, an object with ids as keys, or with a list.

    Lists are read value by value, also those of Alexandria (`entries`). A database of ASE in JSON
    is left to ASE.

    Raises:
        StructureError: It holds none of these; the message names its keys.
    """
    with text_of(path) as stream:
        start = stream.read(_CHARACTERS_AT_ONCE)
        opening = _LIST_FIRST.match(start)
        if opening:
            for number, value in enumerate(_values_of_list(start[opening.end() :], stream)):
                name = f"{label}[{number}]"
                yield Item(name, partial(read_record, name, value))
            return
        whole = json.loads(start + stream.read())
    if isinstance(whole, dict) and "nextid" in whole:
        yield Item(label, partial(_read_json_database, label, path))
        return
    for name, value in _records_of(label, whole).items():
        yield Item(name, partial(read_record, name, value))


def _records_of(label: str, whole: Any) -> dict[str, Any]:
    """Records of a JSON value that is no list, by their names."""
    if not isinstance(whole, dict):
        msg = f"it holds {str(whole)[:40]!r}, which is no structure"
        raise StructureError(msg)
    inner = next((whole[key] for key in _LISTS if isinstance(whole.get(key), list | dict)), None)
    if is_record(whole):
        return {label: whole}
    if isinstance(inner, list):
        return {f"{label}[{number}]": value for number, value in enumerate(inner)}
    if is_record(inner):
        return {label: inner}
    if any(is_record(value) for value in whole.values()):
        return whole
    keys = ", ".join(map(repr, list(whole)[:12])) or "none"
    msg = (
        f"it holds no structure that is known here: its keys are {keys}; a structure of pymatgen, "
        "ASE, JARVIS or OPTIMADE is needed, or a list of them"
    )
    raise StructureError(msg)


def _read_json_database(name: str, path: Path) -> list[Named]:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        copy = Path(folder) / "database.json"
        copy.write_bytes(decode(read_bytes(path)).encode("utf-8", "surrogateescape"))
        frames = read_database(copy, "json")
    return [(name if len(frames) == 1 else f"{name}[{k}]", one) for k, one in enumerate(frames)]


@contextmanager
def text_of(path: Path) -> Iterator[TextIO]:
    """Open the text of a file as a stream, unpacked, without a byte order mark."""
    with open_unpacked(path) as raw:
        start = raw.read(4)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with (
        open_unpacked(path) as raw,
        TextIOWrapper(raw, encoding, errors="surrogateescape") as stream,
    ):
        yield stream


def _values_of_list(text: str, stream: Any) -> Iterator[Any]:
    """Values of a list whose opening bracket was read already."""
    decoder = json.JSONDecoder()
    early = "it ends early"
    while True:
        text = text.lstrip().removeprefix(",").lstrip()
        if text.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(text)
            if end == len(text):  # a number could go on
                raise json.JSONDecodeError(early, text, end)  # noqa: TRY301
        except json.JSONDecodeError as error:
            more = stream.read(max(_CHARACTERS_AT_ONCE, len(text)))
            if not more:
                msg = f"the list is not closed, or broken: {error.msg}"
                raise StructureError(msg) from None
            text += more
            continue
        yield value
        text = text[end:]
