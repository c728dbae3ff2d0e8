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
        return int(environment["SLURM_ARRAY_TASK_ID"]), int(counted[1])
    if shard == "slurm" or counted:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
            step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
            place = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
            return place + 1, int(environment["SLURM_ARRAY_TASK_COUNT"])
        if "SLURM_STEP_NUM_TASKS" in environment:
            return int(environment["SLURM_PROCID"]) + 1, int(environment["SLURM_STEP_NUM_TASKS"])
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
    if not found:
        stop(f"--shard {shard}: give I/N, such as 1/4 for the first of four shares, or slurm")
    return int(found[1]), int(found[2])


def output_of_share(output: Path, index: int, count: int) -> Path:
    """Name the output of a share: its name says which one it is."""
    if count <= 1:
        return output
    digits = len(str(count))
    return output.with_name(f"{output.stem}-{index:0{digits}d}-of-{count}{output.suffix}")
