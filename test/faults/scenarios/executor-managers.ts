// The executor manager of a node: it is on no call's way, but its workers live with it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Client, Lease, NodeInfo } from '../../../lib/index.js'
import { outcomeOf, recovered, sleepers, summary, Traffic } from '../calls.js'
import { nativePackage } from '../packages.js'
import { isAlive, until, workersOf } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, leaseOptions, type Deployed, type Stage } from '../stage.js'

async function onlyNode(client: Client): Promise<NodeInfo> {
  const [node] = await client.nodes()
  assert(node !== undefined, 'there is no node')
  return node
}

/** A lease on all of the node, as soon as it can be had, and calls on it. */
async function leaseAgain(stage: Stage, client: Client): Promise<Lease> {
  let lease: Lease | undefined
  await until('the cores can be leased again', async () => {
    try {
      lease = await stage.lease(client, leaseOptions)
      return true
    } catch {
      return false
    }
  })
  const functions = await lease!.deploy(nativePackage(), deployOptions)
  assert.equal(summary(await sleepers(functions, 4, 1)), '4 ok')
  return lease!
}

async function kill({ cluster }: Deployed): Promise<void> {
  const workers = workersOf(cluster.node().pid)
  await cluster.node().end('SIGKILL')
  await until('the workers died with their manager', () => !workers.some(isAlive))
}

/** SIGKILL, then a new start under the same name. */
async function killAndRestart(stage: Stage, deployed: Deployed): Promise<number> {
  const { cluster, client, lease } = deployed
  const ended = once(lease, 'ended')
  await kill(deployed)
  const restarted = performance.now()
  await cluster.restartNode()
  await ended
  await leaseAgain(stage, client)
  return performance.now() - restarted
}

export const executorManagers: Scenario[] = [
  {
    name: 'executor-manager-killed-idle',
    fault: 'SIGKILL of the executor manager and a new start, nothing in flight',
    promise:
      'Its workers die with it; when it is back the lease ends with ERR_RFAAS_LEASE_ENDED and its cores can be leased again.',
    async run(stage) {
      const deployed = await stage.deployed()
      const recoveredMs = await killAndRestart(stage, deployed)
      const call = deployed.functions.invoke('nothing', new Uint8Array(), { timeoutMs: 1000 })
      const { code } = await outcomeOf(call, 1000)
      assert.equal(code, 'ERR_RFAAS_LEASE_ENDED')
      return { seen: `${code}; leased again`, recoveredMs }
    },
  },
  {
    name: 'executor-manager-killed-in-flight',
    fault: 'SIGKILL of the executor manager and a new start, calls in flight',
    promise:
      'Calls in flight end at once with ERR_RFAAS_WORKER_LOST and `mayHaveRun`; when it is back the lease ends and its cores can be leased again.',
    async run(stage) {
      const deployed = await stage.deployed()
      const calls = sleepers(deployed.functions, 4, 30_000, 60_000)
      await sleep(100)
      const recoveredMs = await killAndRestart(stage, deployed)
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ERR_RFAAS_WORKER_LOST')
      for (const { mayHaveRun } of outcomes) assert.equal(mayHaveRun, true)
      return { seen: `${summary(outcomes)}; leased again`, recoveredMs }
    },
  },
  {
    name: 'executor-manager-gone',
    fault: 'SIGKILL of the executor manager, which stays away',
    promise:
      'Calls end by their deadline and a release is answered; the node counts as lost and nothing is granted on it, even when its leases have ended, until it is back.',
    async run(stage) {
      const deployed = await stage.deployed()
      const { cluster, client, lease, functions } = deployed
      await kill(deployed)
      const outcomes = await sleepers(functions, 4, 1, 1000)
      for (const { code } of outcomes) {
        assert(['ERR_RFAAS_WORKER_LOST', 'ERR_RFAAS_DEADLINE'].includes(code), code)
      }
      await until('the node is lost', async () => (await onlyNode(client)).state === 'lost')
      await assert.rejects(client.lease(leaseOptions), { code: 'ERR_RFAAS_NO_CAPACITY' })
      await lease.release()
      assert.equal((await onlyNode(client)).freeCores, 0)
      const restarted = performance.now()
      await cluster.restartNode()
      await leaseAgain(stage, client)
      return {
        seen: `${summary(outcomes)}; lost, its cores kept until it was back`,
        recoveredMs: performance.now() - restarted,
      }
    },
  },
  {
    name: 'executor-manager-stopped-in-flight',
    fault: 'SIGSTOP of the executor manager, calls in flight',
    promise:
      'Calls go on; the node counts as lost and nothing is granted on it; after SIGCONT it is back with all its leases.',
    async run(stage) {
      const { cluster, client, functions } = await stage.deployed()
      const traffic = new Traffic(functions)
      cluster.node().signal('SIGSTOP')
      await until('the node is lost', async () => (await onlyNode(client)).state === 'lost')
      await assert.rejects(client.lease(leaseOptions), { code: 'ERR_RFAAS_NO_CAPACITY' })
      await traffic.next()
      cluster.node().signal('SIGCONT')
      const continued = performance.now()
      await until('the node is back', async () => (await onlyNode(client)).state === 'up')
      const recoveredMs = performance.now() - continued
      assert.equal((await onlyNode(client)).freeCores, 0)
      const { answered, failures, longestGapMs } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok, longest pause ${Math.round(longestGapMs)} ms`, recoveredMs }
    },
  },
  {
    name: 'executor-manager-stopped-idle',
    fault: 'SIGSTOP of the executor manager while a lease is asked for and deployed to',
    promise:
      'A deployment that it has to answer ends with ERR_RFAAS_UNAVAILABLE by its deadline; after SIGCONT the same lease can be used.',
    async run(stage) {
      const cluster = await stage.cluster()
      const client = await stage.client(cluster, { timeoutMs: 4000 })
      const lease = await stage.lease(client)
      cluster.node().signal('SIGSTOP')
      const began = performance.now()
      await assert.rejects(lease.deploy(nativePackage(), deployOptions), {
        code: 'ERR_RFAAS_UNAVAILABLE',
      })
      const waitedMs = performance.now() - began
      cluster.node().signal('SIGCONT')
      const continued = performance.now()
      const functions = await lease.deploy(nativePackage(), deployOptions)
      await recovered(functions)
      return {
        seen: `ERR_RFAAS_UNAVAILABLE after ${Math.round(waitedMs)} ms, then deployed`,
        recoveredMs: performance.now() - continued,
      }
    },
  },
  {
    name: 'node-comes-back',
    fault: 'a node that comes back under its name on another port, idle',
    promise: 'It takes its place again, with the address that it has now; leases can be had on it.',
    async run(stage) {
      const cluster = await stage.cluster()
      const client = await stage.client(cluster)
      const before = await onlyNode(client)
      await cluster.node().end('SIGKILL')
      const began = performance.now()
      await cluster.restartNode(0, { samePort: false })
      await until('the node has its new address', async () => {
        const { url, state } = await onlyNode(client)
        return url !== before.url && state === 'up'
      })
      await leaseAgain(stage, client)
      const recoveredMs = performance.now() - began
      assert.equal((await client.nodes()).length, 1)
      return { seen: 'one node, up, leased', recoveredMs }
    },
  },
]
