"""Small crystals are relaxed without torch, which takes longer to import than all else."""

import subprocess
import sys

import pytest
from ase.build import bulk

RELAX = """
import sys
from ase.build import bulk, mx2
from ase.filters import FrechetCellFilter
from deeprelax_ase import DeepRelaxOptimizer, Relaxer
atoms = bulk("MgO", "rocksalt", a=4.3)
{}
assert ("torch" in sys.modules) is {}
"""


@pytest.mark.parametrize(
    ("what", "needs_torch"),
    [
        ("assert Relaxer().relax(atoms).is_sound", False),
        ("assert DeepRelaxOptimizer(FrechetCellFilter(atoms), passes=3).run()", False),
        ("assert Relaxer(ensemble=True, device='cpu').relax(atoms).is_sound", False),
        ("assert Relaxer(hold='cell').relax(atoms * (3, 2, 2)).is_sound", False),
        ("assert Relaxer().relax(mx2('MoS2', vacuum=8.0)).is_sound", False),
        ("list(Relaxer(device='cpu').relax_many([atoms, atoms]))", False),
        ("Relaxer().relax(atoms * (7, 6, 6))", True),
        ("assert Relaxer().device.type", True),
    ],
)
def test_torch_is_imported_where_it_is_needed(what, needs_torch):
    code = RELAX.format(what, needs_torch)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_command_line_needs_none_for_a_file(tmp_path):
    bulk("MgO", "rocksalt", a=4.3).write(tmp_path / "a.cif")
    code = (
        "import sys\nfrom deeprelax_ase.cli import app\n"
        f"app(['relax', {str(tmp_path / 'a.cif')!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert (tmp_path / "a_relaxed.cif").exists()
