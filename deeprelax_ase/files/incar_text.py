"""The text of an INCAR: its tags, and the numbers and logicals that are their values.

As VASP reads it: https://www.vasp.at/wiki/INCAR.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from monty.io import zopen
from monty.os.path import zpath

from deeprelax_ase.files.file_text import decode, fortran_float, is_binary, read_bytes
from deeprelax_ase.structures.validation import StructureError

DECISIVE = ("NSW", "IBRION", "ISIF", "PSTRESS", "LATTICE_CONSTRAINTS", "IMAGES", "ICHAIN")
"""Tags that decide what moves."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d{1,2})?")
_QUOTED = re.compile(r"(?<==)[ \t]*\"[^\"]*\"")
_NOT_IN_TEXT = str.maketrans(dict.fromkeys('\n;#!="', " "))
_LOGICALS = {"T": True, "F": False}


def text_of(path: Path) -> str | None:
    """Text of a file, which may be compressed, with the ending of that; None without one."""
    packed = path.with_name(f"{path.name}.xz")  # of which monty knows nothing
    if not os.path.lexists(path) and packed.exists():
        return decode(read_bytes(packed))
    found = Path(zpath(str(path)))
    if not os.path.lexists(found):
        return None
    try:
        with zopen(found, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError) as error:
        msg = f"{found} cannot be read: {error}"
        raise StructureError(msg) from error
    if is_binary(data):
        msg = f"{found} cannot be read: it is no text"
        raise StructureError(msg)
    return decode(data)


def joined_lines(text: str) -> str:
    """The text with lines that go on, behind a backslash, in one."""
    return re.sub(r"\\[ \t]*\n", " ", text.replace("\r", ""))


def read_tags(
    text: str, incar: Path = Path("INCAR"), decisive: Collection[str] = DECISIVE
) -> dict[str, str]:
    """Tags of an INCAR in capitals, with the text of their values.

    Args:
        text: Of the INCAR.
        incar: Its name in messages.
        decisive: Tags that have to be plain.

    Raises:
        StructureError: A tag that decides what moves stands there twice with other values, or
            without an equals sign.
    """
    tags: dict[str, str] = {}
    joined = joined_lines(text)
    # A text in quotes, as of WANNIER90_WIN, goes over several lines and holds no tags.
    joined = _QUOTED.sub(lambda found: found[0].translate(_NOT_IN_TEXT), joined)
    for line in joined.split("\n"):
        for statement in re.split(r"[#!]", line, maxsplit=1)[0].split(";"):
            name, equals, value = statement.partition("=")
            name, value = name.strip().upper(), value.strip()
            first = (name.split() or [""])[0]
            if not equals and first in decisive:
                msg = f"{incar} has the line {statement.strip()!r}: put = after {first}"
                raise StructureError(msg)
            if not equals:
                continue
            if name in decisive and tags.get(name, value) != value:
                msg = f"{incar} has {name} = {tags[name]} and {name} = {value}: keep one of them"
                raise StructureError(msg)
            tags.setdefault(name, value)
    return tags


def number_of_tag(incar: Path, tags: Mapping[str, str], name: str, default: float) -> float:
    """Number that a tag of an INCAR has; the default where it has none.

    Raises:
        StructureError: Its value is no number, or several.
    """
    words = tags.get(name, "").split()
    if not words:
        return default
    # VASP reads one number, and takes words behind it for a comment: NSW = 9 number of steps.
    if not _NUMBER.fullmatch(words[0]) or (len(words) > 1 and _NUMBER.fullmatch(words[1])):
        msg = f"{incar}: {name} = {tags[name]} has to be one number"
        raise StructureError(msg)
    return fortran_float(words[0])


def integer_of_tag(incar: Path, tags: Mapping[str, str], name: str, default: int) -> int:
    """The same where it has to be a whole number.

    Raises:
        StructureError: Its value is none, or several.
    """
    value = number_of_tag(incar, tags, name, float(default))
    if value != int(value):
        msg = f"{incar}: {name} = {tags[name]} has to be a whole number"
        raise StructureError(msg)
    return int(value)


def logical(word: str) -> bool | None:
    """A Fortran logical, or None."""
    return _LOGICALS.get(word.strip().lstrip(".")[:1].upper())
