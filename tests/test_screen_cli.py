import json
import re
import sqlite3
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.io import read, write
from test_screen import Inline, crystals
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.screening import html_report as page
from deeprelax_ase.screening.work_folder import work_path

screen_cli = import_module("deeprelax_ase.cli.screen")  # the package has a function of its name
runner = CliRunner()


@pytest.fixture
def run(tmp_path, random_weights, monkeypatch):
    """`deeprelax screen` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def pool(options, *_):
        inline = Inline(random_weights)
        inline.relaxer = Relaxer(options=options)
        return nullcontext(inline)

    monkeypatch.setattr(screen_cli, "_pool", pool)
    write("in.extxyz", list(crystals(5)))

    def call(*arguments, environment=None):
        model = ("--model", str(random_weights)) if arguments[0] == "screen" else ()
        return runner.invoke(app, [*map(str, arguments), *model], env=environment)

    return call


def ids(path):
    return pq.read_table(path)["id"].to_pylist()


def test_summary_says_what_came_of_it(run, tmp_path):
    (tmp_path / "bad.cif").write_text("nothing")
    arguments = ("--max-error", 10, "--deduplicate")
    result = run("screen", "in.extxyz", "bad.cif", "-o", "out.parquet", *arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("out.parquet: 6 structures in ")
    assert lines[1].split() == ["relaxed", "5"]
    text = result.stdout
    assert re.search(r"failed +1\n +1  .* cannot be read as a CIF", text)
    assert re.search(r"expected error / Å: 10 % [\d.]+, median [\d.]+", text)
    assert "trusted (at most 10 Å): 5" in text
    assert "different structures: " in text


def test_options_reach_the_relaxers(run):
    """What is asked for on the line is what every structure is relaxed with."""
    results = {}
    for name, more in {
        "plain": (),
        "moved": ("--always-move",),
        "other": ("--always-move", "--functional", "PBEsol"),
        "held": ("--always-move", "--hold", "volume"),
    }.items():
        result = run("screen", "in.extxyz", "-o", f"{name}.parquet", "--min-gain", 1, *more)
        assert result.exit_code == 0, result.output
        results[name] = pq.read_table(f"{name}.parquet").to_pylist()
    statuses = {name: {row["status"] for row in rows} for name, rows in results.items()}
    assert statuses == {"plain": {"unchanged"}} | {
        name: {"relaxed"} for name in ("moved", "other", "held")
    }
    moved, other, held = (
        np.array([row["volume_change"] for row in results[name]])
        for name in ("moved", "other", "held")
    )
    assert np.abs(moved - other).min() > 1e-6
    assert np.abs(moved).min() > 1e-6
    np.testing.assert_allclose(held, 0, atol=1e-9)
    # Another functional is another run, whose results are not taken for those of this one.
    result = run("screen", "in.extxyz", "-o", "other.parquet", "--min-gain", 1, "--always-move")
    assert result.exit_code == 2
    assert "of another run" in result.stderr


def test_a_functional_on_the_line_goes_before_that_of_the_calculation(run, tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "POSCAR", next(crystals(1)))
    (tmp_path / "run" / "INCAR").write_text("IBRION = 2\nNSW = 50\nISIF = 3\nGGA = PS\n")
    changes = {}
    for functional in (None, "PBEsol", "PBE"):
        more = () if functional is None else ("--functional", functional)
        output = f"{functional}.parquet"
        result = run("screen", "run/POSCAR", "-o", output, "--always-move", *more)
        assert result.exit_code == 0, result.output
        (row,) = pq.read_table(output).to_pylist()
        changes[functional] = row["volume_change"]
    assert changes[None] == pytest.approx(changes["PBEsol"], abs=1e-9)
    assert changes["PBE"] != pytest.approx(changes["PBEsol"], abs=1e-6)


def test_shares_by_hand_and_by_slurm(run):
    assert run("screen", "in.extxyz", "-o", "out.parquet", "--shard", "1/2").exit_code == 0
    slurm = {
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_ARRAY_TASK_MIN": "3",
        "SLURM_ARRAY_TASK_STEP": "4",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    arguments = ("screen", "in.extxyz", "-o", "out.parquet", "--shard", "slurm")
    assert run(*arguments, environment=slurm).exit_code == 0
    assert ids("out-1-of-2.parquet") == ["crystal-0", "crystal-2", "crystal-4"]
    assert ids("out-2-of-2.parquet") == ["crystal-1", "crystal-3"]
    result = run("merge", "out-1-of-2.parquet", "out-2-of-2.parquet", "-o", "all.parquet")
    assert result.exit_code == 0, result.output
    assert ids("all.parquet") == [f"crystal-{k}" for k in range(5)]
    assert "exists" in run("merge", "out-1-of-2.parquet", "-o", "all.parquet").stderr
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "5"}
    run(*arguments, environment=step)
    assert ids("out-2-of-5.parquet") == ["crystal-1"]


def test_an_array_task_without_a_share_is_told(run):
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    result = run("screen", "in.extxyz", "-o", "out.parquet", environment=slurm)
    assert "--shard slurm shares it" in result.stderr
    assert len(ids("out.parquet")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shard", "3/2"), "there is no shard 3/2: choose 1/2 to 2/2"),
        (("--shard", "0/2"), "there is no shard 0/2"),
        (("--shard", "half"), "--shard half: give I/N"),
        (("--shard", "slurm"), "no task of a SLURM array"),
        (("--model", "nonesuch"), "no weights 'nonesuch'"),
        (("--resume",), "no work to resume"),
        (("--resume", "--overwrite"), "leave one out"),
    ],
)
def test_wrong_options_are_one_sentence(run, tmp_path, arguments, message):
    command = ["screen", "in.extxyz", "-o", "out.parquet", *arguments]
    result = runner.invoke(app, command, env={"SLURM_ARRAY_TASK_ID": None})
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.glob("out*"))
    del run


def test_without_ray_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("screen", "in.extxyz", "-o", "out.parquet", "--ray", "auto")
    assert result.exit_code == 2
    assert "pip install 'deeprelax-ase[ray]'" in result.stderr


def test_a_full_disk_is_one_sentence(run, monkeypatch):
    def no_space(_, path, **__):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", no_space)
        result = run("screen", "in.extxyz", "-o", "out.parquet")
    assert result.exit_code == 2
    assert "No space left on device; what is done is kept" in result.stderr
    assert run("screen", "in.extxyz", "-o", "out.parquet", "--resume").exit_code == 0
    assert not work_path(Path("out.parquet")).exists()


def test_all_failing_is_a_failure(run, tmp_path):
    (tmp_path / "bad.cif").write_text("nothing")
    result = run("screen", "bad.cif", "-o", "out.parquet")
    assert result.exit_code == 1
    assert len(ids("out.parquet")) == 1


def test_export(run, tmp_path):
    run("screen", "in.extxyz", "-o", "out.parquet")
    result = run("export", "out.parquet", "files", "--format", "poscar")
    assert result.stdout == "files: 5 structures\n"
    assert len(list((tmp_path / "files").glob("*.vasp"))) == 5
    assert "no parquet file that deeprelax screen wrote" in run("export", "in.extxyz", "f").stderr


def test_report_is_one_page_of_its_own(run, tmp_path):
    frames = [*crystals(13)]
    frames[3].info["id"] = "</script><b>&"
    write("many.extxyz", frames)
    result = run("screen", "many.extxyz", "-o", "out.parquet", "--report", "report.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", text)
    assert text.count("</script>") == 2
    data = json.loads(re.search(r"<script type=\"application/json\"[^>]*>(.*?)</script>", text)[1])
    table = pq.read_table("out.parquet").to_pylist()
    by_error = sorted(table, key=lambda row: row["expected_error"])
    shown = [crystal["title"].split(": ")[0] for crystal in data["best"]]
    assert shown == [row["id"] for row in by_error[: page.SHOWN]]
    shown = [crystal["title"].split(": ")[0] for crystal in data["worst"]]
    assert shown == [row["id"] for row in by_error[: -page.SHOWN - 1 : -1]]
    crystal = data["worst"][0]
    assert [atom["symbol"] for atom in crystal["atoms"]] == ["Mg", "O"]
    assert crystal["after"]["cell"] != crystal["before"]["cell"]
    assert all(len(bond) == 6 and bond[-1] > 0 for bond in crystal["bonds"])
    result = run("screen", "many.extxyz", "-o", "out.db", "--report", "r.html")
    assert "a report is made from a parquet output" in result.stderr
    result = run("screen", "many.extxyz", "-o", "new.parquet", "--report", "report.html")
    assert "report.html exists: pass --overwrite" in result.stderr
    assert not Path("out.db").exists()
    assert not Path("new.parquet").exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is not set"),
        ({"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "5"}, "is 'x', which is no number"),
        ({"SLURM_STEP_NUM_TASKS": "5"}, "SLURM_PROCID is not set"),
    ],
)
def test_variables_of_slurm_that_are_not_whole_are_named(run, environment, words):
    result = run(
        "screen", "in.extxyz", "-o", "x.parquet", "--shard", "slurm", environment=environment
    )
    assert result.exit_code == 2
    assert words in result.stderr


def test_no_shares_are_none(run):
    result = run("screen", "in.extxyz", "-o", "x.parquet", "--shard", "1/0")
    assert result.exit_code == 2
    assert "give I/N" in result.stderr


def test_a_finished_run_with_its_report_is_complete(run, tmp_path):
    arguments = ("screen", "in.extxyz", "-o", "out.parquet", "--report", "page.html")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "page.html").stat().st_mtime_ns
    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert "complete already" in again.output
    assert "page.html is left as it is" in again.stderr
    assert (tmp_path / "page.html").stat().st_mtime_ns == before
    (tmp_path / "page.html").unlink()
    assert run(*arguments).exit_code == 0
    assert (tmp_path / "page.html").exists()
    other = run("screen", "in.extxyz", "-o", "other.parquet", "--report", "page.html")
    assert "page.html exists" in other.stderr
    assert not (tmp_path / "other.parquet").exists()


def test_a_database_on_a_full_disk_is_answered_as_any_output(run, monkeypatch):
    def full(*_, **__):
        msg = "database or disk is full"
        raise sqlite3.OperationalError(msg)

    monkeypatch.setattr("ase.db.connect", full)
    result = run("screen", "in.extxyz", "-o", "out.db")
    assert result.exit_code == 2
    assert "disk is full" in result.stderr
    assert "what is done is kept" in result.stderr


@pytest.mark.parametrize("ending", ["extxyz", "db", "parquet"])
def test_the_same_command_on_a_finished_output_has_nothing_to_do(run, ending, tmp_path):
    arguments = ("screen", "in.extxyz", "-o", f"out.{ending}")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / f"out.{ending}").read_bytes()
    for more in ((), ("--resume",)):
        again = run(*arguments, *more)
        assert again.exit_code == 0, again.output
        assert "complete already" in again.output
    assert (tmp_path / f"out.{ending}").read_bytes() == before
    other = run(*arguments, "--passes", "2")
    assert other.exit_code == 2
    assert f"out.{ending} exists" in other.stderr


def test_an_extxyz_output_that_was_cut_down_is_not_complete(run):
    arguments = ("screen", "in.extxyz", "-o", "out.extxyz")
    assert run(*arguments).exit_code == 0
    frames = read("out.extxyz", ":")
    assert frames[-1].info["frames"] == len(frames) == 5
    for part in (frames[:1], frames[1:], frames[-1:], frames * 2):
        write("out.extxyz", part)
        result = run(*arguments)
        assert result.exit_code == 2
        assert "out.extxyz exists" in result.stderr
