#!/bin/bash
# A training by torchrun on the GPUs of one computer, which goes on after each requeue.
#
#   mkdir -p logs
#   sbatch --gpus-per-node=4 docker/slurm/train.sh BUNDLE DATASET RUN [overrides of train.json, such as --max_epochs 150]
#
# RUN/models gets the weights and the state, RUN/train the history. Without GPUs set PROCESSES to how many
# processes there shall be.
# RUN_IN is put before the command, such as RUN_IN="apptainer exec --nv msrf-monai.sif".
#SBATCH --job-name=msrf-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x-%j.log
# Five minutes before the time is over this script hears of it, and puts itself into the queue again.
#SBATCH --signal=B:USR1@300
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "error: give BUNDLE, DATASET and RUN, as in: sbatch --gpus-per-node=4 $0 BUNDLE DATASET RUN" >&2
    exit 2
fi
bundle=$1 dataset=$2 run=$3
shift 3

processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
read -ra run_in <<<"${RUN_IN:-}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-1} > processes ? SLURM_CPUS_PER_TASK / processes : 1))}
mkdir -p "$run"

# sbatch runs a copy of this file, so that it cannot take what follows from another
again='' child=''
trap 'again=yes; [ -z "$child" ] || kill -TERM "$child"' USR1
trap '[ -z "$child" ] || kill -TERM "$child"' TERM
# PyTorch Ignite would otherwise take each process's place from Slurm, which knows of one task, and not from torchrun
env --unset=SLURM_JOB_ID "${run_in[@]}" torchrun --standalone --nnodes=1 --nproc_per_node="$processes" --max-restarts=3 \
    -m monai.bundle run training \
    --config_file "['$bundle/configs/train.json','$bundle/configs/multi_gpu_train.json']" \
    --bundle_root "$bundle" --dataset_dir "$dataset" --ckpt_dir "$run/models" --output_dir "$run/train" \
    --resume auto "$@" &
child=$!

# a signal ends a wait early; the last one has the status of the command, also when it has ended before
while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true
done
status=0
wait "$child" || status=$?
if [ -n "$again" ] && [ "$status" != 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
