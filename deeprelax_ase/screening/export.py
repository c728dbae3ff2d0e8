"""Relaxed structures of a screening as files of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from deeprelax_ase.files.atomic_write import replace_text
from deeprelax_ase.files.handedness import right_handed
from deeprelax_ase.files.new_poscar import new_poscar_text
from deeprelax_ase.relaxation.result import SOUND
from deeprelax_ase.screening.output_formats import on_one_line, read_rows
from deeprelax_ase.screening.rows import structure_of_row

_LONGEST_NAME = 200


def export(
    results: Path, folder: Path, ending: str, *, trusted: bool = False, unique: bool = False
) -> int:
    """Write the relaxed structures of a parquet output as files of their own; how many.

    Args:
        results: What `deeprelax screen` wrote.
        folder: Where they go; made if need be. Files there are not overwritten.
        ending: `cif` or `vasp` (POSCAR).
        trusted: Only those whose expected error is within the limit of the screening.
        unique: Only the representatives of groups of duplicates.

    Raises:
        ValueError: It is no such output, knows neither, or a file is there already.
        OSError: A file cannot be written; those that were are removed.
    """
    chosen = _chosen(results, trusted=trusted, unique=unique)
    used: set[str] = set()
    names = [_file_name(row["id"], used) for row in chosen]
    taken = next((name for name in names if (folder / f"{name}.{ending}").exists()), None)
    if taken is not None:
        msg = f"{folder / f'{taken}.{ending}'} exists: name another folder"
        raise ValueError(msg)
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: name a folder"
        raise ValueError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        rows = _chosen(results, trusted=trusted, unique=unique)
        for name, row in zip(names, rows, strict=True):
            path = folder / f"{name}.{ending}"
            _write_structure(path, structure_of_row(row), on_one_line(row["id"]))
            written.append(path)
    except BaseException:
        for path in written:  # else they would be in the way of the same command
            path.unlink(missing_ok=True)
        raise
    return len(names)


def _chosen(results: Path, *, trusted: bool, unique: bool) -> Iterator[dict[str, Any]]:
    """Rows to be exported."""
    for row in read_rows(results):
        if row["status"] not in SOUND:
            continue
        for wanted, column, option in (
            (trusted, "trusted", "--max-error"),
            (unique, "representative", "--deduplicate"),
        ):
            if wanted and row["rank"] is not None and row[column] is None:
                msg = (
                    f"{results} was screened without {option}: give it to deeprelax merge with "
                    f"{option}"
                )
                raise ValueError(msg)
        if (row["trusted"] or not trusted) and (row["representative"] or not unique):
            yield row


def _write_structure(path: Path, structure: Structure, name: str) -> None:
    from pymatgen.io.cif import CifWriter

    if path.suffix == ".cif":
        text = str(CifWriter(right_handed(structure), significant_figures=8))
    else:
        text = new_poscar_text(structure, name)
    replace_text(path, text)


def _file_name(name: str, used: set[str]) -> str:
    """An id as the name of a file, of no other one in the folder."""
    plain = "".join(c if c.isalnum() or c in "-_.+[]" else "_" for c in name).lstrip(".") or "_"
    known = (".cif", ".vasp")
    plain = plain[: -len(Path(plain).suffix)] if Path(plain).suffix in known else plain
    plain = plain.encode()[:_LONGEST_NAME].decode(errors="ignore")
    unique, number = plain, 1
    while unique in used:
        number += 1
        unique = f"{plain}-{number}"
    used.add(unique)
    return unique
