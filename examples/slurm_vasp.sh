#!/bin/bash
# One VASP relaxation a task, each from the prediction; runs.txt names a run folder a line.
#SBATCH --job-name=deeprelax-vasp
#SBATCH --array=1-100
#SBATCH --ntasks=32
#SBATCH --time=24:00:00
set -euo pipefail

run=$(sed -n "${SLURM_ARRAY_TASK_ID}p" runs.txt)
# A folder that is prepared already, or that VASP has begun with, is left as it is; one of which
# nothing can be predicted starts from what it is.
[ -e "$run/POSCAR.unrelaxed" ] || [ -e "$run/OUTCAR" ] || deeprelax vasp "$run" --max-error 0.2 || true
cd "$run"
srun vasp_std
