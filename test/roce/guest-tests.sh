#!/bin/sh
# What `npm run test:roce` runs inside the machine (or on a host that has a device): the fabric's
# contract, then leases, packages and calls from end to end, all over RoCEv2; then what needs the machine.
set -e
export RFAAS_REQUIRE=verbs
node_modules/.bin/vitest run test/conformance -t '^verbs'
# Left out: what is about managers alone, slow on an emulated machine and the same over any fabric, and
# cuts, which cut a connection of shm.
node_modules/.bin/vitest run test/integration --exclude '**/{cuts,grants,lost-contact}.test.ts'
# What a host with a device of its own need not have.
[ "$(hostname)" = rfaas-roce ] || exit 0
# Control groups of version 2, and nothing else; many hosts still have those of version 1.
RFAAS_REQUIRE_CGROUPS=1 node_modules/.bin/vitest run test/confinement -t 'is root and a pool of 0|control groups'
# Last: it changes the routes of the machine.
node dist/test/faults/run.js --busy wire
