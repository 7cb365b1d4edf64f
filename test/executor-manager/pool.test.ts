// Workers that wait for a lease. That they are confined like all others is for test/confinement.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { startExecutorManager } from '../../executor-manager/src/index.js'
import { Client, type Lease } from '../../lib/index.js'
import type { Runtime } from '../../lib/control/schemas.js'
import {
  childrenOf,
  cleanUp,
  eventually,
  onCleanUp,
  startCluster,
  temporaryDirectory,
  type Cluster,
} from './support.js'

const script = `
export const about = () => Buffer.from(JSON.stringify({ pid: process.pid, user: process.getuid() }))
`
const provider = 'shm'

afterEach(cleanUp)

async function metric(cluster: Cluster, name: string): Promise<number> {
  const text = await (await fetch(`${cluster.node.url}/metrics`)).text()
  const line = text.split('\n').find((one) => one.startsWith(`${name} `))
  return Number(line?.split(' ')[1] ?? 0)
}

const waiting = (cluster: Cluster, runtime: Runtime): Promise<number> =>
  metric(cluster, `rfaas_node_pool_workers{runtime="${runtime}"}`)

async function startFull(pool: number): Promise<Cluster> {
  const cluster = await startCluster({ cores: 2, pool })
  await eventually(async () => (await waiting(cluster, 'node')) === pool, 'the pool is full')
  return cluster
}

async function begin(cluster: Cluster): Promise<{ lease: Lease; pid: number; user: number }> {
  const client = await Client.connect(cluster.resourceManager.url)
  onCleanUp(() => client.close())
  const path = join(temporaryDirectory(), 'about.mjs')
  writeFileSync(path, script)
  const lease = await client.lease({ cores: 1, memory: '64MiB' })
  const functions = await lease.deploy(path, { provider })
  const said = Buffer.from(await functions.invoke('about', new Uint8Array(0))).toString()
  return { lease, ...(JSON.parse(said) as { pid: number; user: number }) }
}

const begun = (cluster: Cluster, from: 'pool' | 'nothing'): Promise<number> =>
  metric(cluster, `rfaas_node_leases_begun_total{runtime="node",from="${from}"}`)

describe('the pool of an executor manager', () => {
  it('has so many workers for each runtime, and makes up for those that leases take', async () => {
    const cluster = await startFull(1)
    expect(await waiting(cluster, 'native')).toBe(1)
    const before = childrenOf(process.pid)
    expect(before).toHaveLength(2)
    const { lease } = await begin(cluster)
    expect(await begun(cluster, 'pool')).toBe(1)
    await eventually(async () => (await waiting(cluster, 'node')) === 1, 'the pool is full again')
    expect(childrenOf(process.pid)).toHaveLength(3)
    await lease.release()
    expect(childrenOf(process.pid)).toHaveLength(2)
  })

  it('gives a worker, with all that it is in, to one lease and to no other', async () => {
    const cluster = await startFull(1)
    const users = new Set<number>()
    for (let i = 0; i < 3; ++i) {
      const { lease, user } = await begin(cluster)
      users.add(user)
      await lease.release()
      await eventually(async () => (await waiting(cluster, 'node')) === 1, 'the pool is full again')
    }
    expect(users.size).toBe(process.getuid?.() === 0 ? 3 : 1)
    expect(await begun(cluster, 'pool')).toBe(3)
  })

  it('holds up no lease that comes when it is empty', async () => {
    const cluster = await startFull(1)
    await Promise.all([begin(cluster), begin(cluster)])
    expect((await begun(cluster, 'pool')) + (await begun(cluster, 'nothing'))).toBe(2)
  })

  it('replaces a worker that ended while it waited', async () => {
    const cluster = await startFull(1)
    const before = childrenOf(process.pid)
    for (const pid of before) process.kill(pid, 'SIGKILL')
    const others = (): number[] => childrenOf(process.pid).filter((pid) => !before.includes(pid))
    await eventually(() => others().length === 2, 'they are replaced')
    await eventually(async () => (await waiting(cluster, 'node')) === 1, 'their end is noticed')
    await begin(cluster)
    expect(await begun(cluster, 'pool')).toBe(1)
  })

  it('ends with its manager', async () => {
    const cluster = await startFull(2)
    expect(childrenOf(process.pid)).toHaveLength(4)
    await cluster.node.close()
    expect(childrenOf(process.pid)).toEqual([])
  })

  it('has a size that makes sense', async () => {
    for (const pool of [-1, 1.5, 65, NaN]) {
      await expect(startExecutorManager({ pool })).rejects.toMatchObject({ field: 'pool' })
    }
  })
})
