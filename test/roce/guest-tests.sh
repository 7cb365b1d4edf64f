#!/bin/sh
# What `npm run test:roce` runs inside the machine (or on a host that has a device): the fabric's
# contract, then leases, packages and calls from end to end, all over RoCEv2.
set -e
export RFAAS_REQUIRE=verbs
node_modules/.bin/vitest run test/conformance -t '^verbs'
# Left out: what is about managers alone, slow on an emulated machine and the same over any fabric, and
# cuts, which cut a connection of shm.
node_modules/.bin/vitest run test/integration --exclude '**/{cuts,grants,lost-contact}.test.ts'
# Last: it changes the routes of the machine.
[ ! -e /sys/class/net/eth1 ] || node dist/test/faults/run.js --busy wire
