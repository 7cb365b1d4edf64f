import { createServer as createHttpServer, request as httpRequest } from 'node:http'
import { createServer as createTcpServer, connect, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { SteadyClock } from '../../lib/control/clock.js'
import { request } from '../../lib/control/http.js'
import { Health, LeaseList } from '../../lib/control/schemas.js'
import { Transport } from '../../lib/control/transport.js'
import { Client, type RfaasError } from '../../lib/index.js'
import type { RunningResourceManager } from '../../resource-manager/src/index.js'
import { Etcd } from '../../resource-manager/stores/etcd-client.js'
import { Election } from '../../resource-manager/stores/etcd-election.js'
import { openEtcdStore } from '../../resource-manager/stores/etcd.js'
import type { LeaseRecord } from '../../resource-manager/stores/store.js'
import { EtcdCluster, lackOfEtcd } from './etcd-cluster.js'
import {
  cleanUp,
  grant,
  lease,
  MiB,
  nodeInfo,
  onCleanUp,
  registeredNode,
  release,
  spawnManager,
  startManager,
  temporaryDirectory,
  usage,
} from './support.js'

let etcd: EtcdCluster
let prefix = ''
let run = 0

beforeAll(async () => {
  if (lackOfEtcd === undefined) etcd = await EtcdCluster.start({ hasty: true })
})
afterAll(() => etcd?.stop())
afterEach(cleanUp)

function start(more = {}): Promise<RunningResourceManager> {
  return startManager({
    store: 'etcd',
    etcd: etcd.urls,
    etcdPrefix: prefix,
    leaderTimeoutMs: 2000,
    ...more,
  })
}

/** The first one leads, the second one follows. */
async function startTwo(more = {}): Promise<[RunningResourceManager, RunningResourceManager]> {
  prefix = `run-${(run += 1)}/`
  return [await start(more), await start(more)]
}

async function health(url: string): Promise<Health | undefined> {
  return request(`${url}/healthz`, { schema: Health }).catch(() => undefined)
}

async function until(what: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await what())) {
    if (performance.now() > deadline) throw new Error(`it did not come true: ${String(what)}`)
    await sleep(20)
  }
}

const leads = (url: string) => async (): Promise<boolean> => (await health(url))?.role === 'leader'

const away = expect.objectContaining({ code: 'ERR_RFAAS_UNAVAILABLE' }) as Error

describe.skipIf(lackOfEtcd !== undefined)('several resource managers on one etcd', () => {
  it('answer alike, whichever is asked', async () => {
    const [leader, follower] = await startTwo()
    expect(await health(leader.url)).toMatchObject({ role: 'leader', leader: leader.url })
    expect(await health(follower.url)).toMatchObject({
      role: 'follower',
      leader: leader.url,
      etcd: { members: 1, well: 1 },
    })
    const node = await registeredNode(follower.url)
    const { lease: granted } = await grant(follower.url, { cores: 2 })
    expect(await lease(leader.url, granted.id)).toEqual(granted)
    await node.active(granted.id)
    expect((await nodeInfo(leader.url, 'node-a'))?.freeCores).toBe(2)
    await expect(grant(follower.url, { cores: 3 })).rejects.toMatchObject({
      code: 'ERR_RFAAS_NO_CAPACITY',
    })
    await expect(lease(follower.url, 'l-unknown')).rejects.toMatchObject({ status: 404 })
    const metrics = await fetch(`${follower.url}/metrics`).then((answer) => answer.text())
    expect(metrics).toContain('rfaas_leader 0')
  })

  it('pass on what takes its time: event streams, and requests that wait', async () => {
    const [, follower] = await startTwo()
    const node = await registeredNode(follower.url)
    await node.listen()
    const first = await grant(follower.url, { cores: 4 })
    const second = grant(follower.url, { cores: 4, waitMs: 20_000 })
    await release(follower.url, first.lease.id)
    await until(() => Promise.resolve(node.ends.length > 0))
    expect(node.ends[0]).toEqual({ lease: first.lease.id, reason: 'released' })
    await node.closed(first.lease.id, 10, 5)
    expect((await second).part.cores).toHaveLength(4)
  })

  it('take over from one that ends: leases, ledger and epochs go on', async () => {
    const [leader, follower] = await startTwo()
    const node = await registeredNode(leader.url)
    const wanted = { requestId: 'a-request-of-a-client' }
    const first = await grant(leader.url, wanted)
    const over = await grant(leader.url)
    await release(leader.url, over.lease.id)
    await node.closed(over.lease.id)
    const waiting = grant(leader.url, { cores: 4, waitMs: 60_000 })
    await expect(Promise.all([waiting, leader.close()])).rejects.toEqual(away)

    await until(leads(follower.url))
    node.moveTo(follower.url)
    expect((await grant(follower.url, wanted)).lease.id).toBe(first.lease.id)
    await expect(grant(follower.url)).rejects.toMatchObject({ code: 'ERR_RFAAS_NO_CAPACITY' })
    const { live, epoch } = await node.register()
    expect(live).toEqual([first.lease.id])
    expect(epoch).toBeGreaterThanOrEqual(over.lease.epoch)
    const next = await grant(follower.url)
    expect(next.lease.epoch).toBeGreaterThan(over.lease.epoch)
    expect(next.part.cores).not.toEqual(first.part.cores)
    expect((await usage(follower.url))?.leases).toBe(1)
  })

  it('do without one that is killed, and a client that knows all of them hardly notices', async () => {
    prefix = `run-${(run += 1)}/`
    const args = ['--store', 'etcd', '--etcd', etcd.urls.join(), '--etcd-prefix', prefix]
    args.push('--leader-timeout-ms', '2s')
    const killed = await spawnManager(temporaryDirectory(), { args })
    const other = await start()
    const node = await registeredNode(killed.url)
    await using client = await Client.connect(`${killed.url},${other.url}`)
    const before = await client.lease({ memory: '1MiB', autoRenew: false })
    await killed.end('SIGKILL')
    const signs = setInterval(() => void node.register().catch(() => undefined), 100)
    node.moveTo(other.url)
    const after = await client.lease({ memory: '1MiB', wait: '20s', autoRenew: false })
    clearInterval(signs)
    expect(after.cores).not.toEqual(before.cores)
    expect((await client.leases()).map(({ id }) => id).sort()).toEqual([before.id, after.id].sort())
  })

  it('never believe one that slept through its term', async () => {
    prefix = `run-${(run += 1)}/`
    const args = ['--store', 'etcd', '--etcd', etcd.urls.join(), '--etcd-prefix', prefix]
    args.push('--leader-timeout-ms', '2s')
    const asleep = await spawnManager(temporaryDirectory(), { args })
    const other = await start()
    const node = await registeredNode(asleep.url, { cores: [0] })
    // On its way into the one that sleeps: what it decides when it wakes up.
    asleep.child.kill('SIGSTOP')
    const late = grant(asleep.url).then(
      () => 'granted',
      (error: unknown) => (error as RfaasError).code,
    )
    await until(leads(other.url))
    node.moveTo(other.url)
    await node.register()
    const { lease: granted } = await grant(other.url)
    asleep.child.kill('SIGCONT')
    expect(await late).toMatch(/^ERR_RFAAS_(UNAVAILABLE|NO_CAPACITY)$/)
    await until(async () => (await health(asleep.url))?.role === 'follower')
    const { leases } = await request(`${asleep.url}/v1/leases`, { schema: LeaseList })
    expect(leases.map(({ id }) => id)).toEqual([granted.id])
  })

  it('end hundreds of leases at once', async () => {
    const [leader] = await startTwo()
    const cores = Array.from({ length: 700 }, (_, core) => core)
    const node = await registeredNode(leader.url, { cores })
    await Promise.all(cores.map(() => grant(leader.url)))
    // All of them have run, and nothing of them is left.
    const { leases } = await request(`${leader.url}/v1/leases`, { schema: LeaseList })
    await Promise.all(leases.map(({ id }) => node.active(id)))
    await node.register()
    expect((await usage(leader.url))?.leases).toBe(700)
    expect((await nodeInfo(leader.url, 'node-a'))?.freeCores).toBe(700)
  })

  it('grant a lease over a hundred nodes as one', async () => {
    const [leader, follower] = await startTwo()
    const names = Array.from({ length: 150 }, (_, index) => `node-${index}`)
    for (const name of names) await registeredNode(leader.url, { name, hostId: name, cores: [0] })
    const { lease: granted } = await grant(leader.url, {
      cores: 150,
      nodes: 150,
      memoryBytes: 150 * MiB,
    })
    await leader.close()
    await until(leads(follower.url))
    expect((await lease(follower.url, granted.id)).parts).toHaveLength(150)
  })
})

describe.skipIf(lackOfEtcd !== undefined)('one that follows', () => {
  it('passes requests on to the leader and to nobody whom a request names', async () => {
    const [, follower] = await startTwo()
    const heard: string[] = []
    const elsewhere = createHttpServer((incoming, answer) => {
      heard.push(String(incoming.headers.authorization))
      answer.end('{}')
    }).listen(0, '127.0.0.1')
    await once(elsewhere, 'listening')
    onCleanUp(() => void elsewhere.close())
    const { port } = elsewhere.address() as AddressInfo
    const { hostname, port: followerPort } = new URL(follower.url)
    for (const path of [`http://127.0.0.1:${port}/v1/nodes`, `//127.0.0.1:${port}/v1/nodes`]) {
      const sent = httpRequest({ hostname, port: followerPort, path }).end()
      const [response] = (await once(sent, 'response')) as [NodeJS.ReadableStream]
      response.resume()
    }
    expect(heard).toEqual([])
  })
})

describe.skipIf(lackOfEtcd !== undefined)('the store in etcd', () => {
  const part: LeaseRecord = {
    id: 'l-a',
    lease: 'l-a',
    part: 0,
    state: 'granted',
    tenant: 'default',
    node: 'node-a',
    cores: [0],
    memoryBytes: MiB,
    epoch: 1,
    grantedAtMs: 1,
    expiresAtMs: 2,
  }

  /** Passes on what it gets, and not what comes back. */
  async function deafMember(url: string): Promise<string> {
    const { hostname, port } = new URL(url)
    const server = createTcpServer((socket) => {
      const onward = connect(Number(port), hostname)
      socket.pipe(onward)
      onward.resume()
      for (const end of [socket, onward]) end.on('error', () => undefined)
    })
    onCleanUp(() => void server.close())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  it('does everything once and in order although answers are lost', async () => {
    prefix = `run-${(run += 1)}/`
    const options = { prefix, ttlMs: 30_000, clock: new SteadyClock() }
    const term = (await new Election({ etcd: etcd.client(), ...options }).stand('http://a'))!
    const urls = [await deafMember(etcd.urls[0]!), etcd.urls[0]!]
    const store = openEtcdStore(new Etcd(urls, new Transport()), prefix, term)
    await store.commit({ leases: [part], epoch: 1 })
    await store.commit({ leases: [{ ...part, state: 'active' }], epoch: 2 })
    const { leases, epoch } = await store.load()
    expect(leases.map(({ state }) => state)).toEqual(['active'])
    expect(epoch).toBe(2)
    await term.resign()
  })

  it('refuses who has been deposed, also what was sent before', async () => {
    prefix = `run-${(run += 1)}/`
    const client = etcd.client()
    const options = { etcd: client, prefix, ttlMs: 30_000, clock: new SteadyClock() }
    const first = (await new Election(options).stand('http://a'))!
    const old = openEtcdStore(client, prefix, first)
    await old.commit({ leases: [part] })
    expect(await new Election(options).stand('http://b')).toBeUndefined()
    await first.resign()
    const second = (await new Election(options).stand('http://b'))!
    const store = openEtcdStore(client, prefix, second)
    await expect(old.commit({ leases: [{ ...part, state: 'active' }] })).rejects.toEqual(away)
    expect((await old.failed).code).toBe('ERR_RFAAS_UNAVAILABLE')
    expect((await store.load()).leases).toEqual([part])
    await second.resign()
  })

  it('names a record that is not as it was stored', async () => {
    prefix = `run-${(run += 1)}/`
    const client = etcd.client()
    const options = { etcd: client, prefix, ttlMs: 30_000, clock: new SteadyClock() }
    const term = (await new Election(options).stand('http://a'))!
    const store = openEtcdStore(client, prefix, term)
    await store.commit({ leases: [part] })
    const key = `${prefix}lease/l-a`
    const { value } = (await client.get(key, 5000))!
    await client.txn([], [{ key, value: value.replace('granted', 'active') }], [], 5000)
    await expect(store.load()).rejects.toMatchObject({
      code: 'ERR_RFAAS_INTERNAL',
      message: expect.stringContaining(`record ${key} is not as it was stored`) as string,
    })
    await term.resign()
  })
})
