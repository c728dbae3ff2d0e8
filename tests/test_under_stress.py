"""Commands that are stopped; disks, terminals and permissions that are not as one would wish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read, write
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.interfaces.dft_inputs import swap_and_undo
from deeprelax_ase.screening import export as exporting

FULL = Path("/dev/full")
INCAR = "IBRION = 2\nNSW = 50\nISIF = 3\n"


def call(*command):
    return CliRunner().invoke(app, [str(word) for word in command])


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / "POSCAR", bulk("MgO", "rocksalt", a=4.5))
    (folder / "INCAR").write_text(INCAR)
    return folder


def command_line(*words, stdout=subprocess.PIPE, **environment):
    code = "from deeprelax_ase.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [("info",), ("info", "--json"), ("relax", "--help")])
def test_output_that_cannot_be_written_is_one_sentence(words):
    with FULL.open("w") as full:
        result = command_line(*words, stdout=full)
    assert result.returncode == 1
    assert result.stderr.decode().strip() == "error: [Errno 28] No space left on device"


def test_output_that_nobody_reads_on_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    result = command_line("info", stdout=writing)
    os.close(writing)
    assert result.stderr == b""


def test_a_terminal_without_letters_of_other_languages(run_folder):
    result = command_line("vasp", run_folder, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert b"expected error" in result.stdout
    assert command_line("relax", "--help", PYTHONIOENCODING="ascii").returncode == 0


def test_what_was_done_is_not_denied_where_it_cannot_be_printed(run_folder, monkeypatch):
    def full(*_, **__):
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr("deeprelax_ase.cli.prepare.print", full, raising=False)
        result = call("vasp", run_folder)
    assert (run_folder / "POSCAR.unrelaxed").exists()
    assert "nothing was changed" not in result.output


def test_permissions_stay(run_folder):
    (run_folder / "POSCAR").chmod(0o600)
    assert call("vasp", run_folder).exit_code == 0
    assert (run_folder / "POSCAR").stat().st_mode & 0o777 == 0o600


def test_an_undo_that_was_stopped_is_finished(run_folder):
    before = (run_folder / "POSCAR").read_bytes()
    call("vasp", run_folder)
    kept = run_folder / "POSCAR.unrelaxed"
    kept.replace(run_folder / "POSCAR")
    assert call("vasp", run_folder, "--undo").exit_code == 0
    assert not swap_and_undo.record_path(run_folder / "POSCAR").exists()
    call("vasp", run_folder)
    kept.replace(run_folder / "POSCAR")
    assert call("vasp", run_folder).exit_code == 0
    assert kept.read_bytes() == before


def test_a_database_that_was_left_locked_is_written_anew(tmp_path):
    write(tmp_path / "in.extxyz", [bulk("Cu"), bulk("Al")])
    for ending in ("", "-journal", ".lock"):
        (tmp_path / f".out.db.partial.db{ending}").write_text("left by a run that was killed")
    output = tmp_path / "out.db"
    result = call("screen", tmp_path / "in.extxyz", "-o", output, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert len(read(output, ":")) == 2


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "in.extxyz", [bulk("Cu"), bulk("Al")])
    output = tmp_path / "out.parquet"
    call("screen", tmp_path / "in.extxyz", "-o", output, "--workers", 1)
    write_one = exporting._write_structure
    written = []

    def until_full(path, *rest):
        if written:
            raise OSError(28, "No space left on device")
        write_one(path, *rest)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_write_structure", until_full)
        result = call("export", output, tmp_path / "files")
    assert result.exit_code == 2
    assert f"{tmp_path / 'files'}: No space left" in result.stderr
    assert not list((tmp_path / "files").iterdir())
    assert call("export", output, tmp_path / "files").exit_code == 0


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / f"{'x' * 241}.cif"
    write(path, bulk("MgO", "rocksalt", a=4.4))
    output = tmp_path / f"{'y' * 251}.cif"
    result = call("relax", path, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert output.exists()


def test_interrupted_while_libraries_are_read():
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from deeprelax_ase.__main__ import main\n"
        "main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (130, "Aborted.\n")
