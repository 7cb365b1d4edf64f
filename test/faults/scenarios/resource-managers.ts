// The resource manager: leases that are granted do not need it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from '../../../lib/index.js'
import { grant, registeredNode, renew } from '../../resource-manager/support.js'
import { Traffic } from '../calls.js'
import { heartbeatMs, nodeTimeoutMs } from '../cluster.js'
import { inLanes } from '../lanes.js'
import { nativePackage } from '../packages.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, leaseOptions } from '../stage.js'

const oneCore = { ...leaseOptions, cores: 1 }
const hastyMs = 1000

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
      const short = { ...oneCore, duration: '16s' }
      const { cluster, lease, functions } = await stage.deployed({ lease: short })
      await cluster.resourceManager.end('SIGKILL')
      await once(lease, 'renewalFailed')
      const restarted = performance.now()
      const renewed = once(lease, 'renewed')
      await cluster.restartResourceManager()
      await renewed
      const recoveredMs = performance.now() - restarted
      const traffic = new Traffic(functions)
      await sleep(9000)
      const { failures, answered } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `renewed; ${answered} ok beyond the first expiry`, recoveredMs }
    },
  },
  {
    name: 'resource-manager-stopped-in-flight',
    fault: 'SIGSTOP of the resource manager, calls in flight',
    promise:
      'Calls go on; requests to it end with ERR_RFAAS_UNAVAILABLE by their deadline; after SIGCONT nothing is lost and no node has to be asked for its leases.',
    async run(stage) {
      const { cluster, lease, functions } = await stage.deployed({ lease: oneCore })
      const client = await stage.client(cluster, { timeoutMs: hastyMs })
      const traffic = new Traffic(functions)
      cluster.resourceManager.signal('SIGSTOP')
      await assert.rejects(client.lease(oneCore), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await assert.rejects(Client.connect(cluster.url, { timeoutMs: hastyMs }), {
        code: 'ERR_RFAAS_UNAVAILABLE',
      })
      await sleep(nodeTimeoutMs)
      cluster.resourceManager.signal('SIGCONT')
      const continued = performance.now()
      await cluster.registered()
      const recoveredMs = performance.now() - continued
      const held = await client.leases()
      assert(held.some(({ id, state }) => id === lease.id && state === 'active'))
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok; requests ended after ${hastyMs} ms`, recoveredMs }
    },
  },
  {
    name: 'resource-manager-stopped-idle',
    fault:
      'SIGSTOP of the resource manager, nothing in flight, for longer than nodes may be silent',
    promise:
      'After SIGCONT no node counts as lost, the requests that came meanwhile are answered, and nothing is granted twice.',
    async run(stage) {
      const cluster = await stage.cluster()
      const client = await stage.client(cluster)
      const lease = await stage.lease(client, oneCore)
      cluster.resourceManager.signal('SIGSTOP')
      const asked = stage.lease(client, oneCore)
      await sleep(nodeTimeoutMs)
      cluster.resourceManager.signal('SIGCONT')
      const continued = performance.now()
      const second = await asked
      const recoveredMs = performance.now() - continued
      assert.notDeepEqual(second.cores, lease.cores)
      assert.equal((await client.nodes())[0]?.state, 'up')
      await assert.rejects(client.lease(oneCore), { code: 'ERR_RFAAS_NO_CAPACITY' })
      await lease.renew()
      return {
        seen: 'the node up, the request that waited granted, the lease renewed',
        recoveredMs,
      }
    },
  },
  {
    name: 'resource-manager-with-1000-leases',
    fault:
      'SIGKILL of the resource manager with 1,000 live leases, and a new start, while clients call',
    promise:
      'No call fails; it is back with every lease, and each can be renewed and is no other’s.',
    async run(stage) {
      const { cluster, client, functions } = await stage.deployed()
      // So many cores are on no machine: these nodes only speak.
      const cores = Array.from({ length: 1000 }, (_, core) => core)
      const node = await registeredNode(cluster.url, { name: 'large', hostId: 'large', cores })
      const signs = setInterval(() => void node.heartbeat().catch(() => undefined), heartbeatMs)
      signs.unref()
      const grants = await inLanes(1000, () => grant(cluster.url, { node: 'large' }))
      for (const { lease } of grants) stage.audit.granted(lease.id)
      const traffic = new Traffic(functions)
      await traffic.next()
      await cluster.resourceManager.end('SIGKILL')
      const killed = performance.now()
      await cluster.restartResourceManager()
      const held = await client.leases()
      const backMs = performance.now() - killed
      const ids = new Set(held.filter(({ state }) => state === 'granted').map(({ id }) => id))
      for (const { lease } of grants) assert(ids.has(lease.id), `lease ${lease.id} is gone`)
      await node.register({ leases: grants.map(({ lease }) => lease.id) })
      await assert.rejects(grant(cluster.url, { node: 'large' }), { code: 'ERR_RFAAS_NO_CAPACITY' })
      const before = new Map(grants.map(({ lease }) => [lease.id, lease.epoch]))
      const renewed = await inLanes(1000, (i) => renew(cluster.url, grants[i]!.lease.id, 120_000))
      for (const { lease } of renewed) {
        assert(lease.epoch > (before.get(lease.id) ?? Infinity), 'an epoch was given twice')
      }
      assert.equal(new Set(renewed.map(({ lease }) => lease.epoch)).size, 1000)
      const { answered, failures, longestGapMs } = await traffic.stop()
      assert.deepEqual(failures, [])
      return {
        seen: `1000 leases there and renewed; ${answered} ok, longest pause ${Math.round(longestGapMs)} ms`,
        recoveredMs: backMs,
      }
    },
  },
  {
    name: 'everything-restarts',
    fault: 'SIGKILL of both managers at once, calls in flight',
    promise:
      'Calls end with ERR_RFAAS_WORKER_LOST; both come back with one truth, and the cores are free.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed()
      const traffic = new Traffic(functions)
      await traffic.next()
      const ended = once(lease, 'ended')
      await Promise.all([cluster.resourceManager.end('SIGKILL'), cluster.node().end('SIGKILL')])
      const restarted = performance.now()
      await cluster.restartResourceManager()
      await cluster.restartNode()
      await ended
      const { failures } = await traffic.stop()
      for (const { code } of failures) {
        assert.match(code, /^ERR_RFAAS_(WORKER_LOST|LEASE_ENDED)$/)
      }
      const again = await stage.lease(client)
      await again.deploy(nativePackage(), deployOptions)
      return { seen: 'lease ended, leased again', recoveredMs: performance.now() - restarted }
    },
  },
]
