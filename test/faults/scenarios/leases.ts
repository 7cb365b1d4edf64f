// Leases that end, or are taken back, while calls run.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { request } from '../../../lib/control/http.js'
import { sleepers, summary, type Outcome } from '../calls.js'
import { until } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { leaseOptions } from '../stage.js'

// How long running calls may go on after the end of their lease, by default.
const graceMs = 1000

export const leases: Scenario[] = [
  {
    name: 'lease-expires-in-flight',
    fault: 'a lease expires while calls run',
    promise:
      'Calls may finish within the grace (1 s); the others end with ERR_RFAAS_LEASE_ENDED at its end; then the cores are free.',
    recoversWithinMs: graceMs + 1000,
    async run(stage) {
      const { client, lease, functions } = await stage.deployed({
        lease: { ...leaseOptions, duration: '5s', autoRenew: false },
      })
      const ended = once(lease, 'ended')
      const calls = sleepers(functions, 4, 60_000, 90_000)
      await ended
      const expired = performance.now()
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ERR_RFAAS_LEASE_ENDED')
      await until('the cores are free', async () => (await client.nodes())[0]?.freeCores === 2)
      return { seen: summary(outcomes), recoveredMs: performance.now() - expired }
    },
  },
  {
    name: 'lease-revoked-in-flight',
    fault: 'the operator takes a lease back, without notice, while calls run',
    promise:
      'The client is told at once; its calls end with ERR_RFAAS_LEASE_ENDED, at the latest after the grace (1 s); then the cores are free.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed()
      const calls = sleepers(functions, 4, 60_000, 90_000)
      await sleep(100)
      const ended = once(lease, 'ended')
      const revoked = performance.now()
      await request(`${cluster.url}/v1/leases/${lease.id}/revoke`, {
        method: 'POST',
        body: { noticeMs: 0 },
      })
      await ended
      const toldMs = performance.now() - revoked
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ERR_RFAAS_LEASE_ENDED')
      await until('the cores are free', async () => (await client.nodes())[0]?.freeCores === 2)
      return {
        seen: `told after ${Math.round(toldMs)} ms; ${summary(outcomes)}`,
        recoveredMs: performance.now() - revoked,
      }
    },
  },
  {
    name: 'lease-revoked-with-notice',
    fault: 'the operator takes a lease back with notice, while calls run',
    promise:
      'The client is told at once; calls that run finish, new ones end with ERR_RFAAS_LEASE_REVOKED and certainly did not run; when the notice is over so is the lease, and its cores are free.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed()
      const running = sleepers(functions, 2, 2000)
      await sleep(100)
      const told = once(lease, 'revoking')
      const revoked = performance.now()
      await request(`${cluster.url}/v1/leases/${lease.id}/revoke`, {
        method: 'POST',
        body: { noticeMs: 6000 },
      })
      await told
      const toldMs = Math.round(performance.now() - revoked)
      let late: Outcome[] = []
      // The workers are told at the same time as the client.
      await until('new calls are refused', async () => {
        late = await sleepers(functions, 2, 1)
        return summary(late) === '2 ERR_RFAAS_LEASE_REVOKED'
      })
      for (const { mayHaveRun } of late) assert.equal(mayHaveRun, false)
      assert.equal(summary(await running), '2 ok')
      await until('the cores are free', async () => (await client.nodes())[0]?.freeCores === 2)
      return {
        seen: `told after ${toldMs} ms; running ${summary(await running)}, new ${summary(late)}`,
        recoveredMs: performance.now() - revoked,
      }
    },
  },
]
