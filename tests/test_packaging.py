"""The conda recipe asks for what the wheel asks for."""

import re
from importlib.metadata import metadata, requires
from pathlib import Path

import yaml

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
