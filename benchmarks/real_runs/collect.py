"""Collect the relaxations of `pairs.parquet` from unpacked packages.

It takes a folder of unpacked sdists, reads each by `deeprelax data` and writes the pairs and their
sources. Outputs that `deeprelax data` does not read by themselves (OUTCAR alone, pw.x, FHI-aims)
become ASE trajectories first. It downloads nothing.
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pyarrow.parquet as pq

from deeprelax_ase.datasets.import_pairs import Report, convert
from deeprelax_ase.datasets.importers.run_folders import runs
from deeprelax_ase.datasets.write_pairs import Row, write_pairs
from deeprelax_ase.files.vasp_calculation import functional_of, read_vasp_calculation

PACKAGES = {
    "aiida_vasp-5.1.0": "MIT",
    "parsevasp-3.4.0": "MIT",
    "phonopy-4.10.0": "BSD-3-Clause",
    "pychemia-0.24.2.3": "MIT",
    "qmpy-1.4.0": "MIT",
    "shakenbreak-3.4.4": "MIT",
}
"""Unpacked sdists with outputs of relaxations, and the licence in their LICENSE file.

Of two copies of a run, the first counts.
"""
NO_RELAXATIONS = {
    "phonopy-4.10.0/test/spectrum": "molecular dynamics, XDATCAR alone",
    "phonopy-4.10.0/test/interface": "molecular dynamics, XDATCAR alone",
}
"""Folders that `deeprelax data` takes for relaxations and that are none, seen by eye."""
_OUTPUTS = {"OUTCAR*": "vasp-out", "*.out": "", "*.castep": "castep-castep"}
_ENDED = {
    "vasp-out": ("reached required accuracy - stopping structural energy minimisation",),
    "espresso-out": ("End of BFGS Geometry Optimization", "bfgs converged in"),
    "aims-output": ("Present geometry is converged", "Have a nice day"),
    "castep-castep": ("Geometry optimization completed successfully",),
}
_CODES = {
    "vasp-out": "VASP",
    "espresso-out": "Quantum ESPRESSO pw.x",
    "aims-output": "FHI-aims",
    "castep-castep": "CASTEP",
}
_XC = {"PBESOL": "PBEsol", "PBE": "PBE"}
_LEAST_MOVE = 1e-4


def main() -> None:
    """Write the pairs and their sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unpacked", type=Path, help="folder of unpacked sdists")
    parser.add_argument("out", type=Path, help="folder for pairs.parquet and sources.json")
    parser.add_argument(
        "--trained", type=Path, nargs="*", default=[], help="files of pairs of the training"
    )
    arguments = parser.parse_args()
    trained = {key for path in arguments.trained for key in _keys_of_file(path)}
    rows: list[Row] = []
    found: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    seen: set[tuple[Any, ...]] = set()
    for sdist, license_name in PACKAGES.items():
        folder = arguments.unpacked / sdist
        name, _, version = sdist.partition("-")
        for row, code, stated in _all_rows(folder, left_out):
            key, reason = _key(row), ""
            move = np.linalg.norm(row.pair.displacements, axis=1).max()
            if max(move, abs(np.log(np.linalg.det(row.pair.deformation)))) < _LEAST_MOVE:
                reason = "nothing moved"
            elif key[:3] in trained:
                reason = "in the training of the shipped weights"
            elif key in seen:
                reason = "the same run elsewhere"
            elif f"{sdist}/{row.id}" in NO_RELAXATIONS:
                reason = NO_RELAXATIONS[f"{sdist}/{row.id}"]
            if reason:
                left_out[reason] += 1
                continue
            seen.add(key)
            case = replace(row, id=f"{sdist}/{row.id}", source=name, split="test")
            rows.append(case)
            found[case.id] = {
                "package": name,
                "version": version,
                "path": row.id,
                "license": license_name,
                "code": code,
                "functional": stated or row.pair.functional,
                "held": _held(row),
                "kind": _kind(row),
            }
    print(f"{write_pairs(arguments.out / 'pairs.parquet', rows)} pairs")
    (arguments.out / "sources.json").write_text(json.dumps(found, indent=1) + "\n")
    for reason, count in left_out.most_common():
        print(f"  {count} left out: {reason}")


def _all_rows(folder: Path, left_out: Counter[str]) -> Iterator[tuple[Row, str, str]]:
    """Rows of a package, with the code that made each and the functional that it states."""
    if runs(folder):
        report = Report()
        for row in convert(folder, report):
            yield row, "VASP", ""
        left_out.update(report.skipped)
    for pattern, known in _OUTPUTS.items():
        for path in sorted(folder.rglob(pattern)):
            text = path.read_text(errors="replace") if path.is_file() else ""
            reader = known or _reader_of(text)
            if not reader or not all(mark in text for mark in _ENDED[reader]):
                continue
            reason = _refusal(path, text, reader)
            if reason:
                left_out[reason] += 1
                continue
            functional, stated = _functional(text, reader)
            with tempfile.TemporaryDirectory() as work:
                trajectory = Path(work, "run.traj")
                try:
                    ase.io.write(trajectory, ase.io.read(path, ":", format=reader))
                except Exception as error:  # noqa: BLE001 - whatever ASE meets in an output
                    left_out[f"ASE cannot read it ({type(error).__name__}): {path.name}"] += 1
                    continue
                report = Report()
                for row in convert(trajectory, report, functional):
                    place = str(path.relative_to(folder))
                    yield replace(row, id=place), _CODES[reader], stated
                left_out.update(report.skipped)


def _reader_of(text: str) -> str:
    """ASE's name for the format of an output, or nothing."""
    if "Program PWSCF" in text[:2000]:
        return "espresso-out"
    return "aims-output" if "FHI-aims" in text[:3000] else ""


def _refusal(path: Path, text: str, reader: str) -> str:
    """Say why an output is no relaxation at zero pressure; nothing if it is."""
    if reader == "vasp-out":
        if any(path.parent.glob("vasprun.xml*")) and path.name == "OUTCAR":
            return "read from vasprun.xml beside it"
        if int(_tag(text, "IBRION") or -1) not in (1, 2, 3) or int(_tag(text, "NSW") or 0) <= 1:
            return "no relaxation"
        if "image of a path" in read_vasp_calculation(path.parent).refusal:
            return "an image of a path"
    if reader == "castep-castep":
        given = re.search(r"External pressure/stress \(GPa\)\s*([-\d.\s]+)", text)
        if given and any(float(value) for value in given[1].split()):
            return "under an external pressure"
    return ""


def _functional(text: str, reader: str) -> tuple[str, str]:
    """Functional as the weights know it, and as the output states it."""
    if reader == "vasp-out":
        hybrid = (_tag(text, "LHFCALC") or "F").strip(".").upper().startswith("T")
        names = ("GGA", "METAGGA", "IVDW")
        tags = {name: (_tag(text, name) or "").replace("F", "") for name in names}
        is_pbe = all("PAW_PBE" in line for line in re.findall(r"TITEL.*", text))
        known = functional_of({**tags, "LHFCALC": hybrid}) if is_pbe else "unknown"
        screened = hybrid and float(_tag(text, "HFSCREEN") or 0) > 0
        return known, ("HSE06" if screened else "hybrid") if hybrid else known
    if reader == "espresso-out":
        stated = re.search(r"Exchange-correlation\s*=\s*(\S+)", text)
    elif reader == "aims-output":
        stated = re.search(r"^\s*xc\s+(\S+)", text, re.MULTILINE)
    else:
        stated = re.search(r"using functional\s*:\s*(.+)", text)
    name = stated[1].strip() if stated else "unknown"
    return _XC.get(name.upper(), "unknown"), _XC.get(name.upper(), name)


def _tag(text: str, name: str) -> str | None:
    """A tag that VASP writes back into its OUTCAR."""
    found = re.search(rf"^\s*{name}\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def _held(row: Row) -> str:
    """What the importer read as held."""
    crystal = row.pair.crystal
    parts = ["cell"] if len(crystal.held_strain) else []
    parts += [f"{int(crystal.fixed.sum())} atoms"] if crystal.fixed is not None else []
    return ", ".join(parts) or "nothing"


def _kind(row: Row) -> str:
    """Bulk, sheet or slab, or defect: a supercell of which a site is missing."""
    crystal = row.pair.crystal
    if not crystal.pbc.all():
        return "sheet or slab"
    return "defect" if re.search(r"(^|/)(v|vac|Va)_", row.id) and len(crystal) > 40 else "bulk"


def _key(row: Row) -> tuple[Any, ...]:
    """What is equal of two copies of a run: species, volumes and the mean move."""
    pair = row.pair
    before = abs(np.linalg.det(pair.crystal.cell))
    after = before * np.linalg.det(pair.deformation)
    mean = np.linalg.norm(pair.displacements, axis=1).mean()
    species = tuple(sorted(pair.crystal.numbers.tolist()))
    return species, round(float(before), 1), round(float(after), 1), round(float(mean), 2)


def _keys_of_file(path: Path) -> Sequence[tuple[Any, ...]]:
    """Species and volumes of the pairs of a training file."""
    columns = ["numbers", "cell", "relaxed_cell"]
    if "relaxed_cell" not in pq.read_schema(path).names:
        return []
    rows = pq.read_table(path, columns=columns).to_pylist()
    return [
        (
            tuple(sorted(row["numbers"])),
            *(
                round(float(abs(np.linalg.det(np.reshape(row[name], (3, 3))))), 1)
                for name in columns[1:]
            ),
        )
        for row in rows
    ]


if __name__ == "__main__":
    main()
