#!/bin/bash
# A clinical run as an array of jobs: each does its part of the inputs into a result folder of its own.
#
#   mkdir -p logs
#   sbatch --array=1-8 docker/slurm/predict.sh BUNDLE INPUTS RESULTS [options of msrf-monai predict]
#
# RESULTS/part-1-of-8 to part-8-of-8 hold all inputs, each once. The same line again goes on where a part has stopped. To send only
# some parts again say how many there are: PARTS=8 sbatch --array=3,7 …
# RUN_IN is put before the command, such as RUN_IN="apptainer exec --nv msrf-monai.sif".
#SBATCH --job-name=msrf-predict
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x-%A_%a.log
# Two minutes before the time is over this script hears of it, and puts itself into the queue again.
#SBATCH --signal=B:USR1@120
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "error: give BUNDLE, INPUTS and RESULTS, as in: sbatch --array=1-8 $0 BUNDLE INPUTS RESULTS" >&2
    exit 2
fi
bundle=$1 inputs=$2 results=$3
shift 3

part=${SLURM_ARRAY_TASK_ID:?run this by sbatch --array=1-N}
parts=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
if [ -z "${PARTS:-}" ] && { [ "$SLURM_ARRAY_TASK_MIN" != 1 ] || [ "$SLURM_ARRAY_TASK_MAX" != "$parts" ]; }; then
    echo "error: the array is not 1-N, so the number of parts is unknown; set PARTS to what it was at first" >&2
    exit 2
fi
read -ra run_in <<<"${RUN_IN:-}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
mkdir -p "$results"

# sbatch runs a copy of this file, so that it cannot take what follows from another
again='' child=''
trap 'again=yes; [ -z "$child" ] || kill -TERM "$child"' USR1
trap '[ -z "$child" ] || kill -TERM "$child"' TERM
"${run_in[@]}" msrf-monai predict "$bundle" "$inputs" --output "$results/part-$part-of-$parts" --part "$part/$parts" --resume "$@" &
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
# 0: all done; 3: some inputs failed or were flagged, see report.html; 1 and 2: stopped
exit "$status"
