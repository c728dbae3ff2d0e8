#!/bin/bash
# Screen a file of candidates with 20 tasks of 8 cores each; every task takes its share.
# When all are done: deeprelax merge relaxed-*-of-20.parquet -o relaxed.parquet
# A task that was killed goes on where it was when it is submitted again: sbatch --array=7 slurm_screen.sh
#SBATCH --job-name=deeprelax
#SBATCH --array=1-20
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=1G
#SBATCH --time=04:00:00
set -euo pipefail

# As many processes of one thread as SLURM_CPUS_PER_TASK says, never more.
deeprelax screen candidates.extxyz -o relaxed.parquet --shard slurm/20 --max-error 0.2
