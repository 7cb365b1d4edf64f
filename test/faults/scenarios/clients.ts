// Clients that die, stop or vanish.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'

import { Traffic } from '../calls.js'
import { nativePackage } from '../packages.js'
import { until } from '../proc.js'
import type { RemoteClient } from '../remote-client.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, leaseOptions, type Stage } from '../stage.js'

const oneCore = { ...leaseOptions, cores: 1, duration: '6s' }
// A lease is renewed at half of its time: it lasts longer than this in any case.
const stopMs = 1500

/** Two clients on one node; what becomes of the second must not concern the first. */
async function twoClients(stage: Stage, inFlight: boolean) {
  const cluster = await stage.cluster()
  const client = await stage.client(cluster)
  const lease = await stage.lease(client, { ...oneCore, duration: '5m' })
  const functions = await lease.deploy(nativePackage(), deployOptions)
  const victim = await stage.remote(cluster, oneCore)
  if (inFlight) await victim.startTraffic()
  const traffic = new Traffic(functions, { lanes: 1 })
  await traffic.next()
  const freeCores = async (): Promise<number> => (await client.nodes())[0]?.freeCores ?? -1
  return { victim, traffic, freeCores }
}

async function renewed({ events }: RemoteClient): Promise<void> {
  const before = events.length
  await until('the lease is renewed', () => events.slice(before).includes('renewed'))
}

function killed(name: string, fault: string, inFlight: boolean): Scenario {
  return {
    name,
    fault,
    promise:
      'Its lease ends when it expires, its workers with it, and the core is free; calls of other clients go on.',
    async run(stage) {
      const { victim, traffic, freeCores } = await twoClients(stage, inFlight)
      await victim.kill()
      assert.equal(await freeCores(), 0)
      const recoveredMs = await until('the core is free', async () => (await freeCores()) === 1)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `lease of 6 s ended; ${answered} ok of another client`, recoveredMs }
    },
  }
}

export const clients: Scenario[] = [
  killed('client-killed-in-flight', 'SIGKILL of a client, calls in flight', true),
  killed(
    'client-killed-idle',
    'SIGKILL of an idle client, which vanishes without releasing',
    false,
  ),
  {
    name: 'client-stopped-in-flight',
    fault: 'SIGSTOP of a client, calls in flight, continued before its lease expires',
    promise: 'After SIGCONT its calls go on, none is lost, and the lease is renewed.',
    async run(stage) {
      const { victim, traffic } = await twoClients(stage, true)
      victim.signal('SIGSTOP')
      await sleep(stopMs)
      victim.signal('SIGCONT')
      const continued = performance.now()
      assert.equal((await victim.call('echo', Uint8Array.of(1))).code, 'ok')
      const recoveredMs = performance.now() - continued
      await renewed(victim)
      const own = await victim.stopTraffic()
      assert.deepEqual(own.failures, [])
      assert.deepEqual((await traffic.stop()).failures, [])
      return { seen: `${own.answered} ok, renewed`, recoveredMs }
    },
  },
  {
    name: 'client-stopped-idle',
    fault: 'SIGSTOP of an idle client, continued before its lease expires',
    promise: 'After SIGCONT it can call as before, and the lease is renewed.',
    async run(stage) {
      const { victim, traffic, freeCores } = await twoClients(stage, false)
      victim.signal('SIGSTOP')
      await sleep(stopMs)
      assert.equal(await freeCores(), 0)
      victim.signal('SIGCONT')
      const continued = performance.now()
      assert.equal((await victim.call('echo', Uint8Array.of(1))).code, 'ok')
      const recoveredMs = performance.now() - continued
      await renewed(victim)
      assert.deepEqual((await traffic.stop()).failures, [])
      return { seen: 'ok, renewed', recoveredMs }
    },
  },
  {
    name: 'client-stopped-for-long',
    fault: 'SIGSTOP of a client beyond the end of its lease',
    promise:
      'The lease expires and its core is free; after SIGCONT its calls end with ERR_RFAAS_LEASE_ENDED or ERR_RFAAS_WORKER_LOST by their deadline.',
    async run(stage) {
      const { victim, traffic, freeCores } = await twoClients(stage, true)
      victim.signal('SIGSTOP')
      const recoveredMs = await until('the core is free', async () => (await freeCores()) === 1)
      victim.signal('SIGCONT')
      const { code } = await victim.call('echo', Uint8Array.of(1))
      assert.match(code, /^ERR_RFAAS_(LEASE_ENDED|WORKER_LOST)$/)
      await until('it was told', () => victim.events.some((event) => event.startsWith('ended')))
      const last = await victim.call('echo', Uint8Array.of(1))
      assert.equal(last.code, 'ERR_RFAAS_LEASE_ENDED')
      await victim.stopTraffic()
      assert.deepEqual((await traffic.stop()).failures, [])
      return { seen: `${victim.events.at(-1)}; then ${last.code}`, recoveredMs }
    },
  },
]
