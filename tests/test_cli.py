import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.relaxation.relaxer import Relaxer

runner = CliRunner()


def run(*args):
    return runner.invoke(app, [str(arg) for arg in args])


@pytest.fixture
def poscar(tmp_path):
    path = tmp_path / "POSCAR"
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    structure.to(str(path), fmt="poscar")
    return path


def test_relaxes_a_poscar(poscar, random_weights):
    content = poscar.read_bytes()
    result = run("relax", poscar, "--model", random_weights)
    assert result.exit_code == 0, result.output
    header, line = result.stdout.splitlines()
    assert header.split() == [
        "file",
        "formula",
        "atoms",
        "volume",
        "move/Å",
        "error/Å",
        "gain",
        "status",
    ]
    assert line.split()[:3] == ["POSCAR", "MgO", "8"]
    assert line.endswith("relaxed")
    assert poscar.read_bytes() == content
    written = Structure.from_file(poscar.with_name("POSCAR_relaxed"))
    expected = Relaxer(random_weights).relax(Structure.from_file(poscar)).structure
    np.testing.assert_allclose(written.lattice.matrix, expected.lattice.matrix, atol=1e-8)
    np.testing.assert_allclose(written.frac_coords, expected.frac_coords, atol=1e-8)


def test_json_is_for_machines(poscar, random_weights):
    result = run("relax", poscar, "--model", random_weights, "--json")
    (line,) = result.stdout.splitlines()
    row = json.loads(line)
    assert row["status"] == "relaxed"
    assert row["formula"] == "MgO"
    assert row["output"].endswith("POSCAR_relaxed")
    assert row["expected_error"] > 0
    assert len(row["sha256"]) == 64


def test_several_files_and_frames(tmp_path, poscar, random_weights):
    frames = [bulk("MgO", "rocksalt", a=4.3), bulk("TiO", "rocksalt", a=4.3)]
    write(tmp_path / "two.extxyz", frames)
    out = tmp_path / "out"
    arguments = ("relax", poscar, tmp_path / "two.extxyz", "--model", random_weights, "-o", out)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [
        "POSCAR",
        "two.extxyz[0]",
        "two.extxyz[1]",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["POSCAR", "two.extxyz"]
    assert len(read(out / "two.extxyz", ":")) == 2


def test_a_name_with_a_slash_is_a_folder(tmp_path, poscar, random_weights):
    result = run("relax", poscar, "--model", random_weights, "-o", f"{tmp_path / 'new'}/")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["POSCAR"]


def test_nothing_is_overwritten_unasked(poscar, random_weights):
    target = poscar.with_name("POSCAR_relaxed")
    target.write_text("precious")
    result = run("relax", poscar, "--model", random_weights)
    assert result.exit_code == 1
    assert "exists: pass --overwrite" in result.stderr
    assert target.read_text() == "precious"
    assert run("relax", poscar, "--model", random_weights, "--overwrite").exit_code == 0
    assert target.read_text() != "precious"
    before = poscar.read_text()
    same = run("relax", poscar, "--model", random_weights, "-o", poscar)
    assert same.exit_code == 1
    assert poscar.read_text() == before
    arguments = ("relax", poscar, "--model", random_weights, "-o", poscar, "--overwrite")
    assert run(*arguments).exit_code == 0
    assert poscar.read_text() != before


def test_two_inputs_never_share_an_output(tmp_path, poscar, random_weights):
    other = tmp_path / "other" / "POSCAR"
    other.parent.mkdir()
    other.write_bytes(poscar.read_bytes())
    arguments = ("relax", poscar, other, "--model", random_weights, "--overwrite")
    result = run(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "was written for another input" in result.stderr
    assert run(*arguments).exit_code == 0


def test_nothing_is_written_where_all_is_refused(poscar, random_weights, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.relaxation.sanity_checks.LARGEST_LOG_VOLUME", -1.0)
    result = run("relax", poscar, "--model", random_weights)
    assert result.exit_code == 1
    assert "refused: input kept" in result.stderr
    assert not poscar.with_name("POSCAR_relaxed").exists()


def test_results_of_the_old_geometry_are_not_written(tmp_path, random_weights):
    atoms = bulk("MgO", "rocksalt", a=4.3)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((2, 3)))
    write(tmp_path / "a.extxyz", atoms)
    assert run("relax", tmp_path / "a.extxyz", "--model", random_weights).exit_code == 0
    assert read(tmp_path / "a_relaxed.extxyz").calc is None


def test_one_bad_file_does_not_stop_the_rest(tmp_path, poscar, random_weights):
    broken = tmp_path / "broken.cif"
    broken.write_text("")
    missing = tmp_path / "missing.cif"
    gold = tmp_path / "gold.extxyz"
    write(gold, bulk("Au"))
    result = run("relax", broken, missing, gold, poscar, "--model", random_weights)
    assert result.exit_code == 1
    assert f"{broken} is empty" in result.stderr
    assert f"no file {missing}" in result.stderr
    assert "never saw Au" in result.stderr
    assert result.stdout.splitlines()[-1].endswith("relaxed")
    assert not (tmp_path / "gold_relaxed.extxyz").exists()
    machines = run("relax", broken, "--model", random_weights, "--json")
    assert json.loads(machines.stdout)["status"] == "failed"


def test_a_bad_frame_among_good_ones_is_named_and_kept(tmp_path, random_weights):
    path = tmp_path / "two.extxyz"
    write(path, [bulk("MgO", "rocksalt", a=4.3), bulk("Au")])
    result = run("relax", path, "--model", random_weights)
    assert result.exit_code == 1
    assert "never saw Au" in result.stdout
    assert len(read(tmp_path / "two_relaxed.extxyz", ":")) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--functional", "B3LYP"), "choose from unknown, PBE"),
        (("--device", "abacus"), "choose 'auto'"),
        (("--model", "nonesuch"), "choose from"),
        (("--vacuum", "some"), "choose from auto, none"),
    ],
)
def test_bad_options(poscar, options, words):
    result = run("relax", poscar, *options)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert not poscar.with_name("POSCAR_relaxed").exists()


def test_unwritable_output(poscar, random_weights, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = run("relax", poscar, "--model", random_weights, "-o", blocked / "deeper" / "out.vasp")
    assert result.exit_code == 1
    assert "error:" in result.stderr
    several = run("relax", poscar, poscar, "--model", random_weights, "-o", blocked)
    assert several.exit_code == 2
    assert "name a folder" in several.stderr


def test_fixed_cell(poscar, random_weights):
    run("relax", poscar, "--model", random_weights, "--fixed-cell")
    written = Structure.from_file(poscar.with_name("POSCAR_relaxed"))
    np.testing.assert_allclose(written.lattice.abc, 4.4, atol=1e-9)


def test_info():
    result = run("info")
    assert result.exit_code == 0
    for word in ("sha256", "hypothetical", "elements", "torch", "parameters"):
        assert word in result.stdout
    facts = json.loads(run("info", "--json").stdout)
    assert len(facts["elements"]) > 80
    assert facts["versions"]["torch"]
    assert run("info", "--model", "nonesuch").exit_code == 2


def test_help_reads_well():
    for command in ((), ("relax",), ("info",), ("train",)):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_train_names_a_bad_configuration(tmp_path):
    config = tmp_path / "run.json"
    for content, words in (
        ("{", "neither JSON nor YAML"),
        ("[]", "holds no configuration"),
        ('{"epochs": 3, "epochs": 4}', "'epochs' stands there twice: leave one of them"),
        ("network: {blocks: 1, blocks: 2}", "'blocks' stands there twice: leave one of them"),
        ("!!map [1, 2]", "neither JSON nor YAML"),
        ('{"name": "a", "sources": [], "speed": 3}', "speed"),
        ('{"name": "a", "sources": [{"path": "none.parquet"}]}', "none.parquet"),
    ):
        config.write_text(content)
        result = run("train", config, "--folder", tmp_path / "run")
        assert result.exit_code == 2, content
        assert words in result.stderr
    assert "no configuration" in run("train", tmp_path / "none.json").stderr
