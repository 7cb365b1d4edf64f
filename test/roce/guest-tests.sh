#!/bin/sh
# What `npm run test:roce` runs inside the machine (or on a host that has a device): the fabric's
# contract, then leases, packages and calls from end to end, all over RoCEv2.
set -e
export RFAAS_REQUIRE=verbs
node_modules/.bin/vitest run test/conformance -t '^verbs'
# What is about managers alone is slow on an emulated machine, and the same over any fabric.
node_modules/.bin/vitest run test/integration --exclude '**/{grants,lost-contact}.test.ts'
