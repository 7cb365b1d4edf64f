// Several resource managers on one etcd: whichever of them is struck, or of etcd's members, what was
// granted stays granted, and nothing is granted twice.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { request } from '../../../lib/control/http.js'
import { Health } from '../../../lib/control/schemas.js'
import { EtcdCluster } from '../../resource-manager/etcd-cluster.js'
import {
  grant,
  registeredNode,
  renew,
  type Granted,
  type NodeClient,
} from '../../resource-manager/support.js'
import { Traffic } from '../calls.js'
import { heartbeatMs } from '../cluster.js'
import type { DaemonOptions } from '../daemon.js'
import { inLanes } from '../lanes.js'
import { Network } from '../network.js'
import { until } from '../proc.js'
import type { Scenario } from '../scenario.js'
import type { Deployed, Stage } from '../stage.js'

const leases = 1000
const withinMs = 180_000

interface Held extends Deployed {
  etcd: EtcdCluster
  /** Of a node that only speaks: so many cores are on no machine. */
  node: NodeClient
  grants: Granted[]
  traffic: Traffic
}

/** Two managers, the first of which leads, and 1,000 leases that the second was asked for. */
async function heldLeases(
  stage: Stage,
  etcd: EtcdCluster,
  managers: readonly ({ args?: readonly string[] } & DaemonOptions)[] = [{}, {}],
  executorManager: { args?: readonly string[] } & DaemonOptions = {},
): Promise<Held> {
  const deployed = await stage.deployed({ several: { etcd, managers }, executorManager })
  const { url } = deployed.cluster.manager(1)
  const cores = Array.from({ length: leases }, (_, core) => core)
  const node = await registeredNode(url, { name: 'large', hostId: 'large', cores })
  const signs = setInterval(() => void node.heartbeat().catch(() => undefined), heartbeatMs)
  signs.unref()
  const grants = await inLanes(leases, () => grant(url, { node: 'large', durationMs: 600_000 }))
  for (const { lease } of grants) stage.audit.granted(lease.id)
  const traffic = new Traffic(deployed.functions)
  await traffic.next()
  return { ...deployed, etcd, node, grants, traffic }
}

function threeMembers(stage: Stage): Promise<EtcdCluster> {
  return EtcdCluster.start({ members: 3, folder: join(stage.folder, 'etcd') })
}

async function role(url: string): Promise<Health['role']> {
  const options = { schema: Health, timeoutMs: 1000 }
  const health = await request(`${url}/healthz`, options).catch(() => undefined)
  return health?.role
}

/** All are there, their cores are taken, and each can be renewed under an epoch of its own. */
async function nothingLost({ client, grants, node }: Held, url: string): Promise<void> {
  const held = await client.leases()
  const ids = new Set(held.filter(({ state }) => state === 'granted').map(({ id }) => id))
  for (const { lease } of grants) assert(ids.has(lease.id), `lease ${lease.id} is gone`)
  node.moveTo(url)
  await node.register({ leases: grants.map(({ lease }) => lease.id) })
  await assert.rejects(grant(url, { node: 'large' }), { code: 'ERR_RFAAS_NO_CAPACITY' })
  const before = Math.max(...grants.map(({ lease }) => lease.epoch))
  const renewed = await inLanes(leases, (i) => renew(url, grants[i]!.lease.id, 600_000))
  const epochs = new Set(renewed.map(({ lease }) => lease.epoch))
  assert.equal(epochs.size, leases, 'an epoch was given twice')
  assert(Math.min(...epochs) > before, 'epochs went back')
}

/** Changes are made again. */
async function untilRenewed({ grants }: Held, url: string): Promise<void> {
  const { id } = grants[0]!.lease
  await until(
    'a lease is renewed',
    () => renew(url, id, 600_000).then(Boolean, () => false),
    30_000,
  )
}

/** How long until that, in ms, and with everything there. */
async function recovered(held: Held, url: string, sinceMs: number): Promise<number> {
  await untilRenewed(held, url)
  const recoveredMs = performance.now() - sinceMs
  await nothingLost(held, url)
  return recoveredMs
}

async function undisturbed({ traffic }: Held): Promise<string> {
  const { answered, failures, longestGapMs } = await traffic.stop()
  assert.deepEqual(failures, [])
  return `${leases} leases there and renewed; ${answered} calls ok, longest pause ${Math.round(longestGapMs)} ms`
}

export const severalManagers: Scenario[] = [
  {
    name: 'leader-killed',
    fault:
      'SIGKILL of the leading one of two resource managers with 1,000 live leases, calls in flight',
    promise:
      'No call fails; when its term is over (--leader-timeout-ms) the other one leads with every lease, and clients and nodes that know both go on.',
    needs: 'etcd',
    withinMs,
    async run(stage) {
      const held = await heldLeases(stage, await threeMembers(stage))
      const { cluster } = held
      const { url } = cluster.manager(1)
      await cluster.manager(0).end('SIGKILL')
      const recoveredMs = await until(
        'the other leads',
        async () => (await role(url)) === 'leader',
        20_000,
      )
      await nothingLost(held, url)
      await cluster.restartResourceManager(0)
      assert.equal(await role(cluster.manager(0).url), 'follower')
      return { seen: await undisturbed(held), recoveredMs }
    },
  },
  {
    name: 'leader-stopped',
    fault:
      'SIGSTOP of the leading resource manager beyond its term with 1,000 live leases, and SIGCONT',
    promise:
      'The other one leads; what the first one decides when it wakes up is stored nowhere and answered by nobody: it follows.',
    needs: 'etcd',
    withinMs,
    async run(stage) {
      const held = await heldLeases(stage, await threeMembers(stage))
      const { cluster, node, grants } = held
      const [asleep, other] = [cluster.manager(0), cluster.manager(1)]
      asleep.signal('SIGSTOP')
      // They lie in its socket: the first that it sees when it wakes up.
      const late = inLanes(16, (i) =>
        renew(asleep.url, grants[i]!.lease.id, 1000).catch(() => undefined),
      )
      const recoveredMs = await until(
        'the other leads',
        async () => (await role(other.url)) === 'leader',
        20_000,
      )
      node.moveTo(other.url)
      asleep.signal('SIGCONT')
      await late
      await until('it follows', async () => (await role(asleep.url)) === 'follower', 20_000)
      await nothingLost(held, other.url)
      return { seen: await undisturbed(held), recoveredMs }
    },
  },
  {
    name: 'leader-cut-off-from-etcd',
    fault:
      'the network between the leading resource manager and etcd is cut with 1,000 live leases, and heals',
    promise:
      'It stops deciding before its term is over, then the other one leads; healed, it follows and passes requests on.',
    needs: 'etcd',
    unshare: 'net',
    withinMs,
    async run(stage) {
      const network = await Network.start(['one', 'two', 'store', 'node'])
      const at = (name: string) => ({
        args: ['--host', network.address(name)],
        wrap: network.on(name),
      })
      const etcd = await EtcdCluster.start({
        members: 3,
        folder: join(stage.folder, 'etcd'),
        host: network.address('store'),
        wrap: network.on('store'),
      })
      const held = await heldLeases(stage, etcd, [at('one'), at('two')], at('node'))
      const [one, two] = [held.cluster.manager(0), held.cluster.manager(1)]
      network.cut('one', 'store')
      const recoveredMs = await until(
        'the other leads',
        async () => (await role(two.url)) === 'leader',
        20_000,
      )
      assert.equal(await role(one.url), undefined)
      await assert.rejects(grant(one.url), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await nothingLost(held, two.url)
      network.heal('one', 'store')
      await until('it follows', async () => (await role(one.url)) === 'follower', 20_000)
      await renew(one.url, held.grants[0]!.lease.id, 600_000)
      return { seen: await undisturbed(held), recoveredMs }
    },
  },
  {
    name: 'etcd-leader-killed',
    fault: 'SIGKILL of the member that leads etcd with 1,000 live leases, and a new start',
    promise:
      'No call fails; changes wait until etcd has elected another member, and are made once.',
    needs: 'etcd',
    withinMs,
    async run(stage) {
      const etcd = await threeMembers(stage)
      const held = await heldLeases(stage, etcd)
      const { url } = held.cluster.manager(1)
      const victim = await etcd.leader()
      await etcd.kill(victim)
      const killed = performance.now()
      const recoveredMs = await recovered(held, url, killed)
      await etcd.restart(victim)
      return { seen: await undisturbed(held), recoveredMs }
    },
  },
  {
    name: 'etcd-without-majority',
    fault: 'SIGKILL of two of three members of etcd with 1,000 live leases, and a new start',
    promise:
      'Calls go on; requests end with ERR_RFAAS_UNAVAILABLE as long as etcd has no majority; then nothing is lost.',
    needs: 'etcd',
    withinMs,
    async run(stage) {
      const etcd = await threeMembers(stage)
      const held = await heldLeases(stage, etcd)
      const { url } = held.cluster.manager(1)
      await Promise.all([etcd.kill(0), etcd.kill(1)])
      await assert.rejects(renew(url, held.grants[0]!.lease.id, 600_000), {
        code: 'ERR_RFAAS_UNAVAILABLE',
      })
      await sleep(2000)
      await held.traffic.next()
      const restarted = performance.now()
      await Promise.all([etcd.restart(0), etcd.restart(1)])
      const recoveredMs = await recovered(held, url, restarted)
      return { seen: await undisturbed(held), recoveredMs }
    },
  },
]
