import ast
import subprocess
import sys
from pathlib import Path

import deeprelax_ase

ROOT = Path(deeprelax_ase.__file__).parent
# Lower modules first; each may import only those before it.
LAYERS = [
    "config",
    "beside",
    "crystal",
    "vacuum",
    "weights_files",
    "graph",
    "prediction",
    "edg",
    "checks",
    "model",
    "checkpoint",
    "uncertainty",
    "symmetry",
    "ase_atoms",
    "pymatgen_structure",
    "structure",
    "result",
    "files",
    "data",
    "metrics",
    "train",
    "traced",
    "predictor",
    "outcome",
    "relax",
    "matching",
    "evaluate",
    "calibrate",
    "report",
    "screen",
    "prepare",
    "transformation",
    "workflows",
    "ase_targets",
    "optimizer",
    "cli",
]
LIBRARIES = {
    "ase_atoms": {"ase"},
    "ase_targets": {"ase"},
    "pymatgen_structure": {"pymatgen"},
    "structure": {"ase", "pymatgen"},
    "files": {"ase", "pymatgen"},
    "relax": {"ase"},
    "matching": {"pymatgen"},
    "report": {"ase"},
    "optimizer": {"ase"},
    "transformation": {"pymatgen"},
    "data/pickles": {"ase"},
    "data/published": {"ase"},
    "data/runs": {"ase", "pymatgen"},
    "data/substitute": {"pymatgen"},
    "prepare/espresso": {"ase"},
    "prepare/poscar": {"pymatgen"},
    "prepare/vasp": {"pymatgen"},
    "screen/finish": {"pymatgen"},
    "screen/formats": {"ase"},
    "screen/records": {"ase", "pymatgen"},
    "screen/outputs": {"ase", "pymatgen"},
    "screen/page": {"ase"},
    "screen/rows": {"ase", "pymatgen"},
    "workflows": {"pymatgen"},
    "cli/weights": {"ase"},
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_imports_point_downward():
    assert {layer for layer, _ in modules()} == set(LAYERS)
    for layer, path in modules():
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "deeprelax_ase" and len(parts) > 1 and parts[1] in LAYERS:
                assert LAYERS.index(parts[1]) <= LAYERS.index(layer), (path.name, name)


def test_only_the_outer_modules_know_ase_and_pymatgen():
    for _, path in modules():
        used = {name.split(".")[0] for name in imports_of(path)} & {"ase", "pymatgen"}
        module = str(path.relative_to(ROOT).with_suffix(""))
        assert used <= LIBRARIES.get(module, set()), module


def test_solver_knows_no_network():
    names = {name for path in (ROOT / "edg").glob("*.py") for name in imports_of(path)}
    assert not any(name.startswith("deeprelax_ase.model") for name in names)


def test_import_loads_no_torch():
    code = "import deeprelax_ase, sys; assert not {'torch', 'e3nn', 'ase'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve():
    for name in deeprelax_ase.__all__:
        assert getattr(deeprelax_ase, name) is not None
        assert name in dir(deeprelax_ase)
