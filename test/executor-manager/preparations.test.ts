// Workers that start while their lease is being granted.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { Client, type Lease, type LeaseOptions } from '../../lib/index.js'
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

const script = `export const pid = () => Buffer.from(String(process.pid))`

afterEach(cleanUp)

async function lease(cluster: Cluster, options: LeaseOptions): Promise<Lease> {
  const client = await Client.connect(cluster.resourceManager.url)
  onCleanUp(() => client.close())
  return client.lease({ memory: '64MiB', ...options })
}

/** Deploys a JavaScript function and calls it. */
async function use(lease: Lease): Promise<void> {
  const path = join(temporaryDirectory(), 'script.mjs')
  writeFileSync(path, script)
  const functions = await lease.deploy(path, { payload: 64, output: 64 })
  expect(await functions.invoke('pid', new Uint8Array(0))).not.toHaveLength(0)
}

async function begun(cluster: Cluster, runtime: Runtime, from: string): Promise<number> {
  const text = await (await fetch(`${cluster.node.url}/metrics`)).text()
  const name = `rfaas_node_leases_begun_total{runtime="${runtime}",from="${from}"} `
  return Number(text.split(name)[1]?.split('\n')[0] ?? 0)
}

const processes = (): number[] => childrenOf(process.pid)

describe('a lease that says what will be deployed', () => {
  it('finds a worker for each core, which nobody else gets', async () => {
    const cluster = await startCluster({ cores: 2 })
    const granted = await lease(cluster, { cores: 2, runtime: 'node' })
    await eventually(() => processes().length === 2, 'two workers wait')
    const waiting = processes()
    await use(granted)
    expect(processes()).toEqual(waiting)
    expect(await begun(cluster, 'node', 'preparation')).toBe(1)
    await granted.release()
    expect(processes()).toEqual([])
  })

  it('takes what waits in the pool, and the rest is started', async () => {
    const cluster = await startCluster({ cores: 2, pool: 1 })
    await eventually(() => processes().length === 2, 'the pool is full')
    const granted = await lease(cluster, { cores: 2, runtime: 'node' })
    await eventually(() => processes().length >= 4, 'one more waits, and the pool is full again')
    await use(granted)
    expect(await begun(cluster, 'node', 'pool')).toBe(1)
  })

  it('gets others when it deploys something else', async () => {
    const cluster = await startCluster({ cores: 1 })
    const granted = await lease(cluster, { runtime: 'native' })
    await eventually(() => processes().length === 1, 'a native worker waits')
    const [native] = processes()
    await use(granted)
    await eventually(() => !processes().includes(native!), 'the native worker has ended')
    expect(processes()).toHaveLength(1)
    expect(await begun(cluster, 'node', 'nothing')).toBe(1)
  })

  it('has none any more when it deploys nothing for a while, or ends', async () => {
    const cluster = await startCluster({ cores: 2 })
    const granted = await lease(cluster, { runtime: 'native' })
    await eventually(() => processes().length === 1, 'a worker waits')
    await granted.release()
    await eventually(() => processes().length === 0, 'it has ended with the lease')
    const idle = await lease(cluster, { runtime: 'native' })
    await eventually(() => processes().length === 1, 'a worker waits')
    await eventually(() => processes().length === 0, 'it has waited in vain')
    await use(idle)
  })

  it('gets another worker when the one that waited for it has ended', async () => {
    const cluster = await startCluster({ cores: 1 })
    const granted = await lease(cluster, { runtime: 'node' })
    const waiting = await eventually(() => processes()[0], 'a worker waits')
    process.kill(waiting!, 'SIGKILL')
    await eventually(() => processes().length === 0, 'it has ended')
    await use(granted)
  })

  it('leaves nothing behind when the node ends', async () => {
    const cluster = await startCluster({ cores: 1 })
    await lease(cluster, { runtime: 'native' })
    await eventually(() => processes().length === 1, 'a worker waits')
    await cluster.node.close()
    expect(processes()).toEqual([])
  })
})
