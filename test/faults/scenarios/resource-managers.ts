// The resource manager: leases that are granted do not need it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from '../../../lib/index.js'
import { Traffic } from '../calls.js'
import { nativePackage } from '../packages.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, leaseOptions } from '../stage.js'

const oneCore = { ...leaseOptions, cores: 1 }

export const resourceManagers: Scenario[] = [
  {
    name: 'resource-manager-killed-in-flight',
    fault: 'SIGKILL of the resource manager and a new start, calls in flight',
    promise:
      'No call fails or waits; leases, nodes and ledger are as they were, and leases are granted as soon as it is back.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed({ lease: oneCore })
      const traffic = new Traffic(functions)
      await traffic.next()
      await cluster.resourceManager.end('SIGKILL')
      await assert.rejects(client.lease(oneCore), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await sleep(1000)
      await traffic.next()
      const restarted = performance.now()
      await cluster.restartResourceManager()
      await cluster.registered()
      const second = await stage.lease(client, oneCore)
      const recoveredMs = performance.now() - restarted
      assert.notDeepEqual(second.cores, lease.cores)
      const held = await client.leases()
      assert(held.some(({ id, state }) => id === lease.id && state === 'active'))
      const { answered, failures, longestGapMs } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok, longest pause ${Math.round(longestGapMs)} ms`, recoveredMs }
    },
  },
  {
    name: 'resource-manager-killed-idle',
    fault: 'SIGKILL of the resource manager and a new start, a lease waits for its renewal',
    promise: 'The lease is renewed as soon as the resource manager is back, and does not end.',
    async run(stage) {
      const short = { ...oneCore, duration: '6s' }
      const { cluster, lease, functions } = await stage.deployed({ lease: short })
      await cluster.resourceManager.end('SIGKILL')
      await once(lease, 'renewalFailed')
      const restarted = performance.now()
      const renewed = once(lease, 'renewed')
      await cluster.restartResourceManager()
      await renewed
      const recoveredMs = performance.now() - restarted
      const traffic = new Traffic(functions)
      await sleep(4000)
      const { failures, answered } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `renewed; ${answered} ok beyond the first expiry`, recoveredMs }
    },
  },
  {
    name: 'resource-manager-stopped',
    fault: 'SIGSTOP of the resource manager, calls in flight',
    promise:
      'Calls go on; requests to it end with ERR_RFAAS_UNAVAILABLE by their deadline; after SIGCONT nothing is lost and no node has to be asked for its leases.',
    async run(stage) {
      const { cluster, lease, functions } = await stage.deployed({ lease: oneCore })
      const client = await stage.client(cluster, { timeoutMs: 500 })
      const traffic = new Traffic(functions)
      cluster.resourceManager.signal('SIGSTOP')
      await assert.rejects(client.lease(oneCore), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await assert.rejects(Client.connect(cluster.url, { timeoutMs: 500 }), {
        code: 'ERR_RFAAS_UNAVAILABLE',
      })
      await sleep(2500)
      cluster.resourceManager.signal('SIGCONT')
      const continued = performance.now()
      await cluster.registered()
      const recoveredMs = performance.now() - continued
      const held = await client.leases()
      assert(held.some(({ id, state }) => id === lease.id && state === 'active'))
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok; requests ended after 500 ms`, recoveredMs }
    },
  },
  {
    name: 'everything-restarts',
    fault: 'SIGKILL of both managers at once, calls in flight',
    promise:
      'Calls end with ERR_RFAAS_WORKER_LOST; both come back with one truth, and the cores are free.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed()
      const traffic = new Traffic(functions, { timeoutMs: 1000 })
      await traffic.next()
      const ended = once(lease, 'ended')
      await Promise.all([cluster.resourceManager.end('SIGKILL'), cluster.node().end('SIGKILL')])
      const restarted = performance.now()
      await cluster.restartResourceManager()
      await cluster.restartNode()
      await ended
      const { failures } = await traffic.stop()
      for (const { code } of failures) {
        assert.match(code, /^ERR_RFAAS_(WORKER_LOST|DEADLINE|LEASE_ENDED)$/)
      }
      const again = await stage.lease(client)
      await again.deploy(nativePackage(), deployOptions)
      return { seen: 'lease ended, leased again', recoveredMs: performance.now() - restarted }
    },
  },
]
