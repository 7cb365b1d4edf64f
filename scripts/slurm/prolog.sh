#!/bin/sh
# Slurm's Prolog, for nodes whose executor manager runs all the time beside Slurm: before a job starts,
# the leases on its node are taken back. A job never waits for longer than that, nor fails because of
# it: a prolog that fails would drain the node in Slurm.
#
# RFAAS_URL, RFAAS_KEY_FILE (of an operator), RFAAS_CA: in /etc/rfaas/slurm.env.
set -a
# Slurm gives it no PATH.
PATH=/usr/local/bin:/usr/bin:/bin
settings=${RFAAS_SLURM_ENV:-/etc/rfaas/slurm.env}
[ -r "$settings" ] && . "$settings"
set +a
rfaas drain "$SLURMD_NODENAME" --notice 20s --wait 25s 2>&1 | logger -t rfaas-prolog
exit 0
