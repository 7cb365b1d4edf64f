#!/bin/sh
# A node for the cluster, started by hand: `sbatch harvest-job.sh`. With --source slurm the resource
# manager submits such jobs by itself. Adapt the partition, the sizes and the URL.
#
#SBATCH --job-name=rfaas-node
#SBATCH --partition=faas
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8192M
#SBATCH --no-requeue
# To the executor manager: at once when the job is preempted, and so long before its time is up. It
# needs SlurmctldParameters=preempt_send_user_signal; --notice-ms is 5 s less, and a partition with a
# GraceTime of at least 35.
#SBATCH --signal=B:TERM@35

# Not lent: 192 MiB for the executor manager, and 64 MiB for the worker of each core.
# exec: Slurm signals the batch shell, which the executor manager has to become.
exec rfaas executor-manager \
    --config /etc/rfaas/executor-manager.json \
    --resource-manager https://manager.cluster:7070 \
    --name "$SLURMD_NODENAME" --host "$SLURMD_NODENAME" --port 0 \
    --cores "$SLURM_CPUS_ON_NODE" --memory-bytes 7744MiB \
    --data-dir "$HOME/.local/state/rfaas/harvest/$SLURMD_NODENAME" \
    --notice-ms 30s --job "$SLURM_JOB_ID"
