import ast
import subprocess
import sys
from pathlib import Path

import deeprelax_ase

ROOT = Path(deeprelax_ase.__file__).parent
# Each folder may import those of the rows above its own, and itself.
LAYERS = [
    {"compiled"},
    {"structures"},
    {"files"},
    {"network"},
    {"solver"},
    {"relaxation", "datasets"},
    {"interfaces", "evaluation", "screening"},
    {"training"},
    {"cli"},
    {"__main__"},
]
OLD_NAMES = {"optimizer", "transformation", "workflows"}
"""Modules of earlier versions, which import what took their place."""
LIBRARIES = {
    "structures/ase_adapter": {"ase"},
    "structures/pair_search": {"ase", "pymatgen"},  # their geometry alone
    "structures/elements": {"ase", "pymatgen"},
    "structures/pymatgen_adapter": {"pymatgen"},
    "files/castep_text": {"ase"},
    "files/cif": {"pymatgen"},
    "files/cif_checks": {"pymatgen"},
    "files/cif_moments": {"pymatgen"},
    "files/moments": {"ase"},
    "files/new_poscar": {"pymatgen"},
    "files/file_formats": {"ase"},
    "files/read_files": {"ase"},
    "files/parse_file": {"ase", "pymatgen"},
    "files/tables": {"ase"},
    "files/convert": {"ase", "pymatgen"},
    "files/write_files": {"ase", "pymatgen"},
    "evaluation/structure_match": {"pymatgen"},
    "interfaces/ase_filters": {"ase"},
    "interfaces/ase_optimizer": {"ase"},
    "interfaces/pymatgen_transformation": {"pymatgen"},
    "interfaces/jobflow": {"pymatgen"},
    "files/pw_text": {"ase"},
    "files/poscar_text": {"pymatgen"},
    "interfaces/dft_inputs/vasp": {"pymatgen"},
    "datasets/importers/published": {"ase"},
    "datasets/importers/ended_runs": {"ase"},
    "datasets/importers/run_folders": {"ase", "pymatgen"},
    "datasets/substitution": {"pymatgen"},
    "screening/rank_and_deduplicate": {"pymatgen"},
    "files/ase_database": {"ase"},
    "files/handedness": {"ase", "pymatgen"},
    "files/containers": {"ase"},
    "files/records": {"ase", "pymatgen"},
    "screening/export": {"pymatgen"},
    "screening/output_formats": {"ase"},
    "screening/rows": {"ase", "pymatgen"},
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
        if parts != ("__init__",) and parts[0] not in OLD_NAMES:
            yield parts[0], path


def test_imports_point_downward():
    ranks = {layer: rank for rank, layers in enumerate(LAYERS) for layer in layers}
    assert {layer for layer, _ in modules()} == set(ranks)
    for layer, path in modules():
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "deeprelax_ase" and len(parts) > 1 and parts[1] in ranks:
                is_own = parts[1] == layer
                assert is_own or ranks[parts[1]] < ranks[layer], (str(path), name)


def test_only_the_outer_modules_know_ase_and_pymatgen():
    for _, path in modules():
        used = {name.split(".")[0] for name in imports_of(path)} & {"ase", "pymatgen"}
        module = str(path.relative_to(ROOT).with_suffix(""))
        assert used <= LIBRARIES.get(module, set()), module


def test_solver_knows_no_network():
    names = {name for path in (ROOT / "solver").glob("*.py") for name in imports_of(path)}
    assert not any(name == "deeprelax_ase.network.paegnn" for name in names)


def test_import_loads_no_torch():
    code = "import deeprelax_ase, sys; assert not {'torch', 'e3nn', 'ase'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve():
    for name in deeprelax_ase.__all__:
        assert getattr(deeprelax_ase, name) is not None
        assert name in dir(deeprelax_ase)


def test_prediction_imports_no_compiler():
    """e3nn, whose import takes as long as torch's, is for training and for those who ask."""
    code = """
import sys
from ase.build import bulk
from deeprelax_ase import Relaxer
list(Relaxer().relax_many([bulk("MgO", "rocksalt", a=4.3)] * 2))
print([name for name in ("e3nn", "torch._dynamo", "sympy", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]"
