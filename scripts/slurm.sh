#!/usr/bin/env bash
# A job that survives the end of its time: sbatch scripts/slurm.sh configs/denoise.yaml [--key value ...]
# SLURM sends SIGUSR1 five minutes before; the run saves after the step it is in, and Lightning has SLURM queue the job
# again, which then goes on in the same folder, from the same step. Change the lines below to your cluster.

#SBATCH --job-name=image-to-image
#SBATCH --nodes=2                 # = trainer.num_nodes
#SBATCH --ntasks-per-node=4       # = trainer.devices: one task for each GPU
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8         # data.num_workers takes its share of them
#SBATCH --time=04:00:00
#SBATCH --signal=SIGUSR1@300      # to the tasks, not to this script
#SBATCH --requeue
#SBATCH --open-mode=append        # one log over all starts
#SBATCH --output=slurm-%j.log

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source .venv/bin/activate

config=${1:?"say which configuration: sbatch scripts/slurm.sh configs/denoise.yaml"}
srun python -m project fit --config "$config" --config configs/trainer/slurm.yaml "${@:2}"
