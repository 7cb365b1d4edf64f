#!/bin/sh
# What `npm run test:roce` runs inside the machine (or on a host that has a device).
exec env RFAAS_REQUIRE=verbs node_modules/.bin/vitest run test/conformance test/integration-verbs
