"""What is installed: its requirements, its command, and how that takes its surroundings."""

import os
import re
import subprocess
import sys
from importlib.metadata import distribution, metadata, requires
from pathlib import Path

import pytest
import yaml
from ase.build import bulk

CONDA_NAMES = {"torch": "pytorch"}


def test_the_conda_recipe_follows_the_project():
    recipe = yaml.safe_load((Path(__file__).parents[1] / "conda" / "recipe.yaml").read_text())
    facts = metadata("deeprelax-ase")
    assert recipe["context"]["version"] == facts["Version"]
    assert recipe["about"]["license"] == facts["License-Expression"]
    wanted = {f"python {facts['Requires-Python']}"}
    for requirement in requires("deeprelax-ase"):
        if "extra ==" in requirement:
            continue
        name, bound = re.fullmatch(r"([\w-]+)(>=[\w.]+)", requirement).groups()
        wanted.add(f"{CONDA_NAMES.get(name, name).lower()} {bound}")
    assert set(recipe["requirements"]["run"]) == wanted
    (command,) = distribution("deeprelax-ase").entry_points.select(group="console_scripts")
    assert recipe["build"]["python"]["entry_points"] == [f"{command.name} = {command.value}"]


@pytest.mark.parametrize("arguments", [["--version"], ["relax", "--help"]])
def test_the_package_is_the_command(arguments):
    command = [sys.executable, "-m", "deeprelax_ase", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert metadata("deeprelax-ase")["Version"] in done.stdout or "Usage" in done.stdout


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_streams_cost_no_result(tmp_path, closed):
    bulk("MgO", "rocksalt", a=4.5).write(tmp_path / "a.cif")
    line = f"{sys.executable} -m deeprelax_ase relax a.cif {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "a_relaxed.cif").is_file()


def test_closed_input_is_an_empty_one(tmp_path):
    line = f"{sys.executable} -m deeprelax_ase relax - <&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "standard input" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are texts")
def test_a_folder_without_a_name_in_utf8_is_told_of_before_anything_is_done(tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xe9")
    folder.mkdir()
    bulk("MgO", "rocksalt", a=4.5).write(folder / "a.xyz", format="extxyz")
    command = [sys.executable, "-m", "deeprelax_ase", "screen", "a.xyz", "-o", "r.parquet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no name in UTF-8" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["a.xyz"]
