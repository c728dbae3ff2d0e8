"""Inputs on which readers went wrong: each is read right, or refused in one sentence.

`cases/` holds one folder a fault.
"""

import re
import shutil
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import spglib
from test_screen import Inline
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.structures.read_structure import plain_crystal

CASES = Path(__file__).parent / "cases"
screen_cli = import_module("deeprelax_ase.cli.screen")  # the package has a function of its name
runner = CliRunner()


@pytest.fixture
def call(random_weights, tmp_path, monkeypatch):
    """Runs a command in a copy of a folder of cases."""
    pool = Inline(random_weights)
    pool.relaxer = Relaxer(random_weights, allow_unseen=True, always_move=True)
    monkeypatch.setattr(screen_cli, "_pool", lambda *_: nullcontext(pool))

    def command(case, name, *arguments, stdin=None, exit_code=0):
        (folder,) = CASES.glob(f"{case}-*")
        shutil.copytree(folder, tmp_path / "case", dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path / "case")
        options = ("--model", str(random_weights), "--allow-unseen", "--always-move")
        result = runner.invoke(app, [name, *map(str, arguments), *options], input=stdin)
        assert result.exit_code == exit_code, (result.output, result.exception)
        assert "Traceback" not in result.output
        if exit_code:
            errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
            assert len(errors) == 1
        return result

    return command


def crystal(path):
    (structure,) = read_structures(Path(path)).structures
    return plain_crystal(structure)


def group(path):
    found = crystal(path)
    scaled = found.positions @ np.linalg.inv(found.cell)
    return spglib.get_symmetry_dataset((found.cell, scaled, found.numbers), symprec=1e-3).number


def formula(path):
    (structure,) = read_structures(Path(path)).structures
    return (
        structure.get_chemical_formula()
        if hasattr(structure, "get_chemical_formula")
        else structure.formula
    )


@pytest.mark.parametrize("output", [None, "out.extxyz", "out.vasp", "out.cif", "POSCAR"])
def test_a_left_handed_crystal_is_not_mirrored(call, output):
    named = () if output is None else ("-o", output)
    call("01", "relax", "quartz.vasp", *named)
    assert group("quartz.vasp") == 152
    assert group(output or "quartz_relaxed.vasp") == 152
    if output == "out.extxyz":
        call("01", "relax", "out.extxyz", "-o", "again.vasp")
        assert group("again.vasp") == 152


def test_a_left_handed_crystal_is_not_mirrored_by_the_other_commands(call):
    call("01", "relax", "quartz.vasp", "-o", "left.extxyz")
    call("01", "screen", "left.extxyz", "-o", "out.parquet")
    assert runner.invoke(app, ["export", "out.parquet", "out", "--format", "poscar"]).exit_code == 0
    assert group(next(Path("out").iterdir())) == 152
    call("01", "vasp", "left.extxyz")
    assert group("left/POSCAR") == 152
    counts = Path("left/POSCAR").read_text().splitlines()[5:7]
    assert counts == ["Si O", "3 6"]


def test_the_scale_of_a_poscar_stays(call):
    call("02", "vasp", "run")
    lines = Path("run/POSCAR").read_text().splitlines()
    before = Path("run/POSCAR.unrelaxed").read_text().splitlines()
    assert lines[:2] == before[:2] == ["MgO strained", "4.50"]
    assert lines[2:5] != before[2:5]


@pytest.mark.parametrize("name", ["pw.in", "a.pwi"])
def test_a_pw_input_is_written_as_one(call, name):
    call("07", "relax", name)
    stem, suffix = name.split(".")
    text, before = Path(f"{stem}_relaxed.{suffix}").read_text(), Path(name).read_text()
    assert text.startswith(before[: before.index("CELL_PARAMETERS")])
    assert "K_POINTS automatic\n4 4 4 0 0 0\n" in text
    assert ("Mg1 " in text) == ("Mg1 " in before)
    assert read_structures(Path(f"{stem}_relaxed.{suffix}")).format == "espresso-in"


def test_a_group_with_spaces_before_its_setting(call):
    assert formula(next(CASES.glob("08-*")) / "r_hex.cif") == "Bi6 Te9"
    call("08", "relax", "r_hex.cif")
    assert formula("r_hex_relaxed.cif") == "Bi6 Te9"


def test_lammps_types_are_no_elements(call):
    result = call("09", "relax", "mgo.lammps-data", exit_code=1)
    assert "the elements of its types 1 and 2: give them in order, --species Mg,O" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["mgo.lammps-data"]
    call("09", "relax", "mgo.lammps-data", "--species", "Mg,O", "-o", "out.extxyz")
    assert formula("out.extxyz") == "MgO"
    call("09", "screen", "mgo.lammps-data", "--species", "Mg,O", "-o", "out.parquet")
    words = ("--species Mg,O", "all but the structure would be lost in writing it")
    for arguments, word in zip(((), ("--species", "Mg,O")), words, strict=True):
        assert word in call("09", "relax", "mgo.lammps-data", *arguments, exit_code=1).stderr


@pytest.mark.parametrize(
    ("case", "name"),
    [("17", "bom.cif"), ("17", "global.cif"), ("18", "occ9999.cif"), ("18", "occ10001.cif")],
)
def test_valid_cifs(call, case, name):
    call(case, "relax", name)
    assert formula(name.replace(".cif", "_relaxed.cif")) == "Mg4 O4"


@pytest.mark.parametrize(
    ("name", "count"),
    [("alexandria.json", 2), ("cdvae.csv", 2), ("cse.json", 1), ("gen.zip", 2),
     ("jarvis.json", 1), ("optimade.json", 1), ("struct_json.parquet", 2)],
)  # fmt: skip
def test_containers(call, name, count):
    result = call("20", "screen", name, "-o", "out.parquet")
    assert re.search(rf"relaxed +{count}\n", result.stdout)
    if count > 1:
        assert "relax them with deeprelax screen" in call("20", "relax", name, exit_code=1).stderr
    else:
        call("20", "relax", name)
        assert formula(name.replace(".json", "_relaxed.json")) == "Mg1 O1"


def test_what_pymatgen_reads_by_name(call):
    assert formula(next(CASES.glob("21-*")) / "bestsqs.out") == "Cu2 Au2"
    assert (
        "can only be read: name an --output"
        in call("21", "relax", "bestsqs.out", exit_code=1).stderr
    )
    call("21", "relax", "bestsqs.out", "-o", "out.cif")
    assert formula("out.cif") == "Cu2 Au2"


def test_alat_by_the_parameter_a(call):
    call("22", "relax", "pw.in")
    call("22", "qe", "pw.in")
    text = Path("pw.in").read_text()
    assert text.replace("pw_relaxed", "pw") == Path("pw_relaxed.in").read_text()
    assert "A = 4.5" not in text


def test_a_poscar_keeps_groups_labels_and_numbers(call):
    notes = call("23", "relax", *sorted(path.name for path in CASES.glob("23-*/*"))).stderr
    assert "note: npt.vasp: lattice velocities and velocities are dropped" in notes
    lines = {path.name: path.read_text().splitlines() for path in Path().glob("*_relaxed.vasp")}
    assert lines["groups_relaxed.vasp"][5:7] == ["Ni Ni O", "4 4 8"]
    assert lines["pv_relaxed.vasp"][5] == "Fe_pv/9d9d3c9 O_s"
    assert [line.split()[-1] for line in lines["pv_relaxed.vasp"][9:]] == ["Fe1", "O1"]
    assert lines["fortran_relaxed.vasp"][1] == "0.44D+01"
    assert [line.split()[3:] for line in lines["fortran_relaxed.vasp"][8:]] == [
        ["!", "corner"],
        ["#", "centre"],
    ]
    assert len(lines["npt_relaxed.vasp"]) == 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("labels.xyz", "'Mg1' is no element: strip the numbers of labels"),
        ("natwrong.in", "nat is 3, and there are 2 positions"),
    ],
)
def test_messages_say_what_is_wrong(call, name, words):
    assert words in call("24", "relax", name, exit_code=1).stderr
    assert len(list(Path().iterdir())) == 2


def test_standard_input_and_output(call):
    text = next(CASES.glob("01-*/quartz.vasp")).read_text()
    result = call("01", "relax", "-", stdin=text)
    assert result.stdout.startswith("left handed quartz\n1.0\n")
    assert "standard input" in result.stderr
    assert "relaxed" in result.stderr
    assert call("01", "relax", "-", "--output-format", "cif", stdin=text).stdout.startswith("# gen")
    result = call("01", "relax", "-", "-o", "out.vasp", "--format", "vasp", stdin=text)
    assert result.stdout.startswith("file ")
    assert group("out.vasp") == 152
    files = sorted(Path().iterdir())
    result = call("01", "relax", "quartz.vasp", "-o", "-")
    assert result.stdout.startswith("left handed quartz\n1.0\n")
    assert "quartz.vasp" in result.stderr
    assert sorted(Path().iterdir()) == files
    result = call("01", "relax", "quartz.vasp", "out.vasp", "-o", "-", exit_code=2)
    assert "standard output (-) takes one: name a folder" in result.stderr
    assert "standard input is empty" in call("01", "relax", "-", stdin="", exit_code=1).stderr
    assert "in no format" in call("01", "relax", "-", stdin="nonsense", exit_code=1).stderr


def test_unknown_formats_list_the_known_ones(call):
    for option in ("--format", "--output-format"):
        result = call("01", "relax", "quartz.vasp", option, "foo", exit_code=2)
        assert "no format 'foo'" in result.stderr
        assert "poscar" in result.stderr
