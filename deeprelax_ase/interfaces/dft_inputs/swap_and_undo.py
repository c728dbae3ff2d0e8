"""A predicted input put in the place of the one a user made, which is kept, and taken back."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deeprelax_ase.files.fingerprint import sha256_of

KEPT = ".unrelaxed"
"""Ending of the name under which the user's own file is kept."""


def kept_path(path: Path) -> Path:
    """Where the user's own file is kept."""
    return path.with_name(path.name + KEPT)


def record_path(path: Path) -> Path:
    """Where it is written what made the prediction."""
    return path.with_name(f"{path.name}.deeprelax.json")


def check_not_prepared(path: Path) -> None:
    """Refuse a file that was swapped before.

    Raises:
        ValueError: It was.
    """
    if os.path.lexists(kept_path(path)):
        msg = f"{path} is prepared already ({kept_path(path).name} is there): --undo restores it"
        raise ValueError(msg)
    if record_path(path).exists() and not _is_restored(path):
        msg = (
            f"{path} is a prediction already, and was made with its folder: remove "
            f"{record_path(path).name} to predict from there once more"
        )
        raise ValueError(msg)


def read_text(path: Path) -> str:
    """Text of a file that `swap` will rewrite.

    Lines end with a line feed, whatever ends them in the file. Bytes that are no UTF-8, such as an
    old comment in Latin-1, come back as they were.
    """
    return path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def swap(path: Path, text: str, facts: Mapping[str, Any]) -> None:
    """Put a text in the place of a file, and keep that file.

    Args:
        path: The file.
        text: What it is to hold, made of its `read_text`; lines will end as those of the file do.
        facts: What made the text, to be recorded.

    Raises:
        OSError: The folder cannot be written; the file is as it was.
    """
    beside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    copy = path.with_name(f".{os.getpid()}.kept.{path.name}")
    kept, record = kept_path(path), record_path(path)
    try:
        if b"\r\n" in path.read_bytes():
            text = text.replace("\n", "\r\n")
        beside.write_bytes(text.encode("utf-8", "surrogateescape"))
        shutil.copymode(path, beside)
        shutil.copy2(path, copy)  # bytes, also of a link
        facts = {**facts, "sha256_written": sha256_of(beside), "sha256_kept": sha256_of(copy)}
        if path.is_symlink():
            facts["link"] = os.readlink(path)  # noqa: PTH115 - as it is written there
        _link(copy, kept)  # whole or not at all, and never over one that is there
        record.write_text(json.dumps(facts, indent=1) + "\n")
        beside.replace(path)
    except FileExistsError:
        check_not_prepared(path)
        raise
    except BaseException:
        if _is_same(copy, kept):
            record.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)
        raise
    finally:
        for leftover in (beside, copy):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name that no file has yet."""
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileExistsError) or target.exists():
            raise
        source.rename(target)  # a file system without hard links


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


class NotPreparedError(ValueError):
    """An input is the user's own: there is nothing to undo."""


def undo(path: Path, *, force: bool = False, dry_run: bool = False) -> None:
    """Put the user's own file back.

    Args:
        path: The file that was swapped.
        force: Also where it was changed since.
        dry_run: Only check that it can be.

    Raises:
        NotPreparedError: It was never swapped.
        ValueError: It was changed since, or is missing, or what it was is.
        OSError: The folder cannot be written.
    """
    kept, record = kept_path(path), record_path(path)
    if not os.path.lexists(kept):
        if _is_restored(path):
            if not dry_run:
                record.unlink()
            return
        msg = f"{path} was not prepared: there is no {kept.name} to restore"
        if path.exists() and not record.exists():
            raise NotPreparedError(msg)
        raise ValueError(msg)
    facts = _read_record(record)
    is_ours = not path.exists() or sha256_of(path) in (facts.get("sha256_written"), sha256_of(kept))
    if not is_ours and not force:
        why = "was changed since it was prepared"
        if not record.exists():
            why = f"may have been changed since it was prepared ({record.name} is missing)"
        msg = f"{path} {why}: pass --force to put {kept.name} in its place all the same"
        raise ValueError(msg)
    if dry_run:
        return
    link = path.parent / str(facts.get("link", ""))
    if "link" in facts and link.is_file() and sha256_of(link) == sha256_of(kept):
        path.unlink(missing_ok=True)
        path.symlink_to(facts["link"])
        kept.unlink()
    else:
        kept.replace(path)
    record.unlink(missing_ok=True)


def _is_restored(path: Path) -> bool:
    """Whether a file is the user's own again, and its record is still there."""
    if os.path.lexists(kept_path(path)) or not path.is_file():
        return False
    facts = _read_record(record_path(path))
    return bool(facts) and facts.get("sha256_kept") == sha256_of(path)


def _read_record(record: Path) -> dict[str, Any]:
    """What was recorded; nothing, if the record is missing or damaged."""
    try:
        facts = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
