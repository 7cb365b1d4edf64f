#!/bin/sh
# Slurm's Epilog, the other half of prolog.sh: the job has ended, its node lends its cores again. For
# nodes that have one job at a time.
set -a
# Slurm gives it no PATH.
PATH=/usr/local/bin:/usr/bin:/bin
settings=${RFAAS_SLURM_ENV:-/etc/rfaas/slurm.env}
[ -r "$settings" ] && . "$settings"
set +a
rfaas undrain "$SLURMD_NODENAME" 2>&1 | logger -t rfaas-epilog
exit 0
