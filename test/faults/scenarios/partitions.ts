// A network that lets two parts no longer talk to each other, without a word to either, and its
// healing. Calls go over shared memory here: what is cut is the control plane.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import type { LeaseOptions } from '../../../lib/index.js'
import { recovered, Traffic } from '../calls.js'
import { Network } from '../network.js'
import { signal, until, workersOf } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { leaseOptions, type Deployed, type Stage } from '../stage.js'

interface Connected extends Deployed {
  network: Network
  traffic: Traffic
}

/** Three hosts: 'client' (this process), 'manager', 'node'. */
async function threeHosts(stage: Stage, lease: LeaseOptions = leaseOptions): Promise<Connected> {
  const network = await Network.start(['manager', 'node'])
  const on = (name: string) => ({
    args: ['--host', network.address(name)],
    wrap: network.on(name),
  })
  const deployed = await stage.deployed({
    resourceManager: on('manager'),
    executorManager: on('node'),
    lease,
  })
  const traffic = new Traffic(deployed.functions)
  await traffic.next()
  return { ...deployed, network, traffic }
}

async function nodeState({ client }: Deployed): Promise<string> {
  return (await client.nodes())[0]?.state ?? 'unknown'
}

async function undisturbed(traffic: Traffic): Promise<string> {
  const { answered, failures, longestGapMs } = await traffic.stop()
  assert.deepEqual(failures, [])
  return `${answered} ok, longest pause ${Math.round(longestGapMs)} ms`
}

export const partitions: Scenario[] = [
  {
    name: 'partition-client-resource-manager',
    fault: 'the network between client and resource manager is cut, and heals',
    promise:
      'Calls go on; requests end with ERR_RFAAS_UNAVAILABLE by their deadline; a lease that has not expired meanwhile is renewed.',
    unshare: 'net',
    async run(stage) {
      const hosts = await threeHosts(stage, { ...leaseOptions, duration: '30s' })
      const { cluster, lease, network, traffic } = hosts
      const hasty = await stage.client(cluster, { timeoutMs: 2000 })
      network.cut('client', 'manager')
      await assert.rejects(hasty.lease(leaseOptions), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await sleep(1500)
      network.heal('client', 'manager')
      const healed = performance.now()
      await until('it answers again', () => hasty.nodes().then(Boolean, () => false))
      const recoveredMs = performance.now() - healed
      await lease.renew()
      return { seen: await undisturbed(traffic), recoveredMs }
    },
  },
  {
    name: 'partition-client-executor-manager',
    fault:
      'the network between client and executor manager is cut, a worker is killed, and it heals',
    promise:
      'Calls on other workers go on; the client hears of the new worker when the network has healed.',
    unshare: 'net',
    async run(stage) {
      const hosts = await threeHosts(stage)
      const { cluster, functions, lease, network, traffic } = hosts
      network.cut('client', 'node')
      signal(workersOf(cluster.node().pid).slice(0, 1), 'SIGKILL')
      await sleep(2000)
      await traffic.next()
      const ready = once(lease, 'workerReady')
      network.heal('client', 'node')
      const healed = performance.now()
      await ready
      const recoveredMs = performance.now() - healed
      await recovered(functions)
      const { answered, failures } = await traffic.stop()
      for (const { code } of failures) assert.equal(code, 'ERR_RFAAS_WORKER_LOST')
      assert(failures.length <= 2, `${failures.length} calls were lost`)
      return { seen: `${answered} ok, ${failures.length} lost with the worker`, recoveredMs }
    },
  },
  {
    name: 'partition-executor-manager-resource-manager',
    fault: 'the network between executor manager and resource manager is cut, and heals',
    promise:
      'Calls go on; the node counts as lost and nothing is granted on it; a lease that is released meanwhile frees its cores when the network has healed.',
    unshare: 'net',
    async run(stage) {
      const hosts = await threeHosts(stage)
      const { client, lease, network, traffic } = hosts
      network.cut('node', 'manager')
      await until('the node is lost', async () => (await nodeState(hosts)) === 'lost')
      await assert.rejects(client.lease(leaseOptions), { code: 'ERR_RFAAS_NO_CAPACITY' })
      const seen = await undisturbed(traffic)
      await lease.release()
      assert.equal((await client.nodes())[0]?.freeCores, 0)
      network.heal('node', 'manager')
      const recoveredMs = await until(
        'the node is back and its cores are free',
        async () => (await client.nodes())[0]?.freeCores === 2 && (await nodeState(hosts)) === 'up',
      )
      await stage.lease(client)
      return { seen, recoveredMs }
    },
  },
  {
    name: 'partition-client-alone',
    fault: 'a client is cut off from both managers beyond the end of its lease',
    promise:
      'The node ends the lease when it expires and its cores are free; the client’s calls end with an error by their deadline.',
    unshare: 'net',
    async run(stage) {
      const hosts = await threeHosts(stage, { ...leaseOptions, duration: '5s' })
      const { cluster, client, network, traffic } = hosts
      network.cut('client', 'manager')
      network.cut('client', 'node')
      const workers = workersOf(cluster.node().pid)
      const recoveredMs = await until('no worker is left', () => {
        return workersOf(cluster.node().pid).every((pid) => !workers.includes(pid))
      })
      await sleep(500)
      network.heal('client', 'manager')
      network.heal('client', 'node')
      await until('the cores are free', async () => {
        const nodes = await client.nodes().catch(() => [])
        return nodes[0]?.freeCores === 2
      })
      const { answered, failures } = await traffic.stop()
      assert(failures.length > 0)
      for (const { code } of failures) {
        assert.match(code, /^ERR_RFAAS_(LEASE_ENDED|WORKER_LOST|DEADLINE)$/)
      }
      return { seen: `${answered} ok before, then ${failures[0]!.code}`, recoveredMs }
    },
  },
]
