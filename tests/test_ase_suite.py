"""The optimizer tests that the installed ASE brings along, run against the three classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

MODULES = [
    "test_climb_fix_internals",
    "test_fire",
    "test_maxstep",
    "test_minimahop",
    "test_nsteps",
    "test_optimize_stepwise",
    "test_optimizer_restart",
    "test_optimizers",
    "test_pure",
    "test_replay",
    "test_restart",
]
DO_NOT_APPLY = {
    "test_booth": "minimises a function of two numbers: there are no atoms to predict for",
    "test_irun_start": "the first frame is the prediction: forces on the input would cost one "
    "more calculation, which is what the move saves",
    "test_attach_trajectory": "for the same reason",
    "test_fire": "bounds the steps of FIRE from a given start on EMT's gold; ours is another one",
}


def test_optimizers_pass_the_tests_of_ase(tmp_path):
    # In test_optimizers other optimizers are tested too.
    left_out = " and ".join(f"not {name}" for name in DO_NOT_APPLY)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "ase_plugin", "-p", "no:cacheprovider"),
        *(
            "-W",
            "ignore:Set OLD_ERROR:DeprecationWarning",
            "-k",
            f"(DeepRelax or not test_optimizers) and {left_out}",
            "--pyargs",
        ),
        *(f"ase.test.optimize.{name}" for name in MODULES),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20
