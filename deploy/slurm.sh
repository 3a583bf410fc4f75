#!/usr/bin/env bash
# A run over several nodes of Slurm: sbatch deploy/slurm.sh experiment=... [key=value ...]
# Submit it from the tree, on a file system that all nodes share. docs/clusters.md explains it.
#SBATCH --job-name=codescaler
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate
# Since Slurm 22.05 srun does not take this over, and Ray would find one core on every node.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

port=6379
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST") # a line each
head=${nodes%%$'\n'*}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')

# One token for this job, in a file that only its owner can read; Ray finds it by its path.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

srun --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --node-ip-address="$address" --port="$port" --block &
sleep 20
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) -x "$head" \
        ray start --address="$address:$port" --block &
    sleep 20
fi

# The command runs on the head. Slurm's TERM comes two minutes before the end and is passed on: the run
# takes its actors down, and `resume=auto` goes on after its last checkpoint.
export RAY_ADDRESS="$address:$port"
srun --overlap --nodes=1 --ntasks=1 -w "$head" python launch/train.py resume=auto "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
code=0
wait "$run" || code=$?
while kill -0 "$run" 2> /dev/null; do # the signal has ended the first wait, not the run
    code=0
    wait "$run" || code=$?
done
exit "$code"
