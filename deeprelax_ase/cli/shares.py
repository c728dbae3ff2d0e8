"""Shares of a screening: which one a command is, and where its output goes."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from deeprelax_ase.cli.common import stop


def share_of(shard: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Tell which share of how many: SLURM's array tasks, or the tasks of a step, from 1 on.

    With a count (`slurm/20`), the task's own number is that of the share, so that it stays the same
    when single tasks are submitted again.
    """
    counted = re.fullmatch(r"slurm/(\d+)", shard or "")
    if counted and "SLURM_ARRAY_TASK_ID" in environment:
        return _number("SLURM_ARRAY_TASK_ID", environment), int(counted[1])
    if shard == "slurm" or counted:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first = _number("SLURM_ARRAY_TASK_MIN", environment, 0)
            step = _number("SLURM_ARRAY_TASK_STEP", environment, 1)
            place = (_number("SLURM_ARRAY_TASK_ID", environment) - first) // max(step, 1)
            return place + 1, _number("SLURM_ARRAY_TASK_COUNT", environment)
        if "SLURM_STEP_NUM_TASKS" in environment:
            place = _number("SLURM_PROCID", environment)
            return place + 1, _number("SLURM_STEP_NUM_TASKS", environment)
        stop("--shard slurm: this is no task of a SLURM array or of srun; give I/N")
    if shard is None:
        tasks = environment.get("SLURM_ARRAY_TASK_COUNT", "1")
        if tasks != "1":
            print(
                f"note: this is one of {tasks} SLURM array tasks, and screens the whole input; "
                "--shard slurm shares it",
                file=sys.stderr,
            )
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not int(found[2]):
        stop(f"--shard {shard}: give I/N, such as 1/4 for the first of four shares, or slurm")
    return int(found[1]), int(found[2])


def _number(name: str, environment: Mapping[str, str], default: int | None = None) -> int:
    """Value of a variable of SLURM, or the default where it is not set; without one, the end."""
    value = environment.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        said = f"is {value!r}, which is no number" if value else "is not set"
        stop(f"--shard slurm: {name} {said}; give I/N")
    return int(value)


def output_of_share(output: Path, index: int, count: int) -> Path:
    """Name the output of a share: its name says which one it is."""
    if count <= 1:
        return output
    digits = len(str(count))
    return output.with_name(f"{output.stem}-{index:0{digits}d}-of-{count}{output.suffix}")
