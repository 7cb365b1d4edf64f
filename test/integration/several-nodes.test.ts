// One lease over two nodes, which share this host: each lends one of its cores.
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { allowedCores } from '../../executor-manager/src/node.js'
import { request } from '../../lib/control/http.js'
import { Client, type Functions, type Lease } from '../../lib/index.js'
import { startLocalCluster } from '../../lib/local-cluster.js'
import {
  bytes,
  deployOptions,
  nativePackage,
  sleeps,
  soonMs,
  startCluster,
  type Cluster,
} from './support.js'

const twoCores = { cores: 2, nodes: 2, memory: '128MiB' } as const

let folder: string
let cluster: Cluster
beforeAll(() => {
  nativePackage()
  folder = mkdtempSync(join(tmpdir(), 'rfaas-nodes-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeEach(async () => {
  const [one, two] = allowedCores()
  cluster = await startCluster({
    nodes: [
      { cores: [one!], modulesDir: modules('one', true) },
      { cores: [two!], modulesDir: modules('two', false), maxPackageBytes: '1MiB' },
    ],
  })
})
afterEach(() => cluster.stop())

/** A node_modules folder with one module, which is not the same on every node. */
function modules(node: string, richer: boolean): string {
  const module = join(folder, node, 'node_modules', 'flavour')
  mkdirSync(module, { recursive: true })
  writeFileSync(join(module, 'package.json'), '{ "type": "module", "main": "index.js" }')
  writeFileSync(join(module, 'index.js'), `export const richer = ${richer}`)
  return join(folder, node, 'node_modules')
}

async function freeCores(): Promise<number> {
  const nodes = await cluster.client.nodes()
  return nodes.reduce((sum, { freeCores }) => sum + freeCores, 0)
}

/** Child processes of this one. */
function workers(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return state !== 'Z' && Number(parent) === process.pid
    } catch {
      return false // not a process, or it ended meanwhile
    }
  })
}

/** A package whose workers can be told apart. */
function whoPackage(): string {
  const path = join(folder, 'who.mjs')
  writeFileSync(path, 'const me = crypto.randomUUID(); export const who = () => Buffer.from(me)')
  return path
}

/** Sends as many calls as there are slots, so that all workers have to take part. */
async function countWorkers(functions: Functions): Promise<number> {
  const calls = Array.from({ length: 16 }, () => functions.invoke('who', bytes()))
  const answers = (await Promise.all(calls)).map((answer) => Buffer.from(answer).toString())
  return new Set(answers).size
}

function endOf(lease: Lease): Promise<unknown[]> {
  return once(lease, 'ended')
}

test('a host that is divided into two nodes lends its cores once', async () => {
  const local = await startLocalCluster({ nodes: 2, cores: 2 })
  const client = await Client.connect(local.url)
  const nodes = await client.nodes()
  expect(nodes.map(({ name, cores }) => [name, cores])).toEqual([
    ['local-1', 1],
    ['local-2', 1],
  ])
  const lease = await client.lease(twoCores)
  expect(new Set(lease.cores).size).toBe(2)
  await client.close()
  await local.close()
  await expect(startLocalCluster({ nodes: 0 })).rejects.toMatchObject({ field: 'nodes' })
})

describe('a lease over two nodes', () => {
  test('is one set of functions over the workers of both', async () => {
    const lease = await cluster.client.lease(twoCores)
    expect([...lease.nodes].sort()).toEqual(['node-1', 'node-2'])
    expect(lease.cores).toHaveLength(2)
    expect(await freeCores()).toBe(0)
    const functions = await lease.deploy(whoPackage(), deployOptions)
    expect(functions.workers).toBe(2)
    expect(await countWorkers(functions)).toBe(2)
    await functions.close()
    expect(workers()).toEqual([])
    await lease.release()
    expect(await freeCores()).toBe(2)
  })

  test('is not granted when only one may be used', async () => {
    await expect(cluster.client.lease({ ...twoCores, nodes: 1 })).rejects.toMatchObject({
      code: 'ERR_RFAAS_NO_CAPACITY',
    })
  })

  test('has a package on both or on none', async () => {
    await using lease = await cluster.client.lease(twoCores)
    const large = join(folder, 'large.mjs')
    writeFileSync(large, `export const f = () => 0 // ${'x'.repeat(2 ** 20)}`)
    await expect(lease.deploy(large, deployOptions)).rejects.toMatchObject({
      code: 'ERR_RFAAS_PACKAGE',
      message: expect.stringContaining('longer') as string,
    })
    expect(workers()).toEqual([])
    const fickle = join(folder, 'fickle.mjs')
    writeFileSync(
      fickle,
      `import { richer } from 'flavour'
       export const same = () => 0
       export const other = richer ? () => 0 : undefined`,
    )
    await expect(lease.deploy(fickle, deployOptions)).rejects.toMatchObject({
      code: 'ERR_RFAAS_PACKAGE',
      message: expect.stringContaining('other functions') as string,
    })
    expect(workers()).toEqual([])
    const functions = await lease.deploy(nativePackage(), deployOptions)
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })

  test('goes on with the node that is left, and ends with the last', async () => {
    const lease = await cluster.client.lease(twoCores)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const lost = once(lease, 'partLost')
    await cluster.executorManagers[0]!.close()
    // Whether it was told, or asked a moment later.
    const why = expect.stringContaining('the node shuts down') as string
    expect(await lost).toEqual(['node-1', why])
    for (let i = 0; i < 20; i += 1) {
      expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    }
    await lease.renew()
    const another = await lease.deploy(nativePackage(), deployOptions)
    expect(another.workers).toBe(1)
    const ended = endOf(lease)
    await cluster.executorManagers[1]!.close()
    expect(await ended).toEqual(['the node shuts down'])
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject({
      code: 'ERR_RFAAS_LEASE_ENDED',
    })
  })

  test('is renewed on both', async () => {
    await using lease = await cluster.client.lease({ ...twoCores, duration: 2 * soonMs })
    const functions = await lease.deploy(whoPackage(), deployOptions)
    const over: unknown[] = []
    lease.on('partLost', (...event) => over.push(event)).on('ended', (event) => over.push(event))
    for (let i = 0; i < 3; i += 1) await once(lease, 'renewed')
    expect(await countWorkers(functions)).toBe(2)
    expect(over).toEqual([])
  })

  test('that is taken back says so, finishes what runs, refuses what is new, and ends', async () => {
    const lease = await cluster.client.lease(twoCores)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const heard: string[] = []
    lease.on('revoking', () => heard.push('revoking')).on('ended', () => heard.push('ended'))
    const running = functions.invoke('sleep_ms', sleeps(1500))
    const revoking = once(lease, 'revoking')
    const url = `${cluster.url}/v1/leases/${lease.id}/revoke`
    await request(url, { method: 'POST', body: { noticeMs: 3000 } })
    const [noticeMs, reason] = (await revoking) as [number, string]
    expect(noticeMs).toBeLessThanOrEqual(3000)
    expect(reason).not.toBe('')
    const revoked = { code: 'ERR_RFAAS_LEASE_REVOKED' }
    await expect(lease.deploy(nativePackage(), deployOptions)).rejects.toMatchObject(revoked)
    await expect(
      (async () => {
        // Both nodes hear it in their own time.
        for (;;) await functions.invoke('echo', bytes(1))
      })(),
    ).rejects.toMatchObject(revoked)
    expect((await running).length).toBe(0)
    const [why] = await endOf(lease)
    expect(why).toBe('revoked')
    expect(heard).toEqual(['revoking', 'ended'])
    await expect.poll(freeCores, { timeout: 5000 }).toBe(2)
  })

  test('that is taken back on one node goes on on the other', async () => {
    await using lease = await cluster.client.lease(twoCores)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const heard: string[] = []
    lease.on('revoking', () => heard.push('revoking')).on('ended', () => heard.push('ended'))
    const revoking = once(lease, 'partRevoking')
    const lost = once(lease, 'partLost')
    const drain = `${cluster.url}/v1/nodes/node-1/drain`
    await request(drain, { method: 'POST', body: { noticeMs: 2000 } })
    expect((await revoking).slice(0, 1)).toEqual(['node-1'])
    for (let i = 0; i < 20; i += 1) {
      expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    }
    const another = await lease.deploy(nativePackage(), deployOptions)
    expect(another.workers).toBe(1)
    await lease.renew()
    expect(await lost).toEqual(['node-1', 'revoked'])
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    expect(heard).toEqual([])
    await request(`${cluster.url}/v1/nodes/node-1/undrain`, { method: 'POST' })
  })

  test('that is taken back and released ends before its notice does', async () => {
    const lease = await cluster.client.lease(twoCores)
    await lease.deploy(nativePackage(), deployOptions)
    const revoking = once(lease, 'revoking')
    const url = `${cluster.url}/v1/leases/${lease.id}/revoke`
    await request(url, { method: 'POST', body: { noticeMs: 3_600_000 } })
    await revoking
    await lease.release()
    expect(await freeCores()).toBe(2)
  })
})
