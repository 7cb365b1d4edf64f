// Workers that start while their lease is being granted.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { Client, type Lease, type LeaseOptions } from '../../lib/index.js'
import type { Runtime } from '../../lib/control/schemas.js'
import { nativePackage } from '../integration/support.js'
import {
  childrenOf,
  cleanUp,
  eventually,
  onCleanUp,
  startCluster,
  temporaryDirectory,
  type Cluster,
} from './support.js'

const script = `export const pid = () => Buffer.from(String(process.pid))
const loadedAt = Date.now()
export const age = () => Buffer.from(String(Date.now() - loadedAt))`

const sizes = { payload: 64, output: 64 }

afterEach(cleanUp)

async function lease(cluster: Cluster, options: LeaseOptions): Promise<Lease> {
  const client = await Client.connect(cluster.resourceManager.url)
  onCleanUp(() => client.close())
  return client.lease({ memory: '64MiB', ...options })
}

function javascript(text = script): string {
  const path = join(temporaryDirectory(), 'script.mjs')
  writeFileSync(path, text)
  return path
}

/** Deploys a JavaScript function and calls it. */
async function use(lease: Lease, path = javascript()): Promise<void> {
  const functions = await lease.deploy(path, sizes)
  expect(await functions.invoke('pid', new Uint8Array(0))).not.toHaveLength(0)
}

async function metric(cluster: Cluster, name: string): Promise<number> {
  const text = await (await fetch(`${cluster.node.url}/metrics`)).text()
  return Number(text.split(`${name} `)[1]?.split('\n')[0] ?? 0)
}

const begun = (cluster: Cluster, runtime: Runtime, from: string): Promise<number> =>
  metric(cluster, `rfaas_node_leases_begun_total{runtime="${runtime}",from="${from}"}`)

const stored = (cluster: Cluster): Promise<number> =>
  metric(cluster, '\nrfaas_node_packages_stored_total')

const processes = (): number[] => childrenOf(process.pid)

describe('a lease that says what will be deployed', () => {
  it('finds a worker for each core, which nobody else gets', async () => {
    const cluster = await startCluster({ cores: 2 })
    const path = javascript()
    const granted = await lease(cluster, { cores: 2, deploy: { path, ...sizes } })
    await eventually(() => processes().length === 2, 'two workers wait')
    const waiting = processes()
    await use(granted, path)
    expect(processes()).toEqual(waiting)
    expect(await begun(cluster, 'node', 'preparation')).toBe(1)
    await granted.release()
    expect(processes()).toEqual([])
  })

  it('takes what waits in the pool, and the rest is started', async () => {
    const cluster = await startCluster({ cores: 2, pool: 1 })
    await eventually(() => processes().length === 2, 'the pool is full')
    const path = javascript()
    const granted = await lease(cluster, { cores: 2, deploy: { path, ...sizes } })
    await eventually(() => processes().length >= 4, 'one more waits, and the pool is full again')
    await use(granted)
    expect(await begun(cluster, 'node', 'pool')).toBe(1)
  })

  it('finds functions that were loaded before it asked for them, when the node has their package', async () => {
    const cluster = await startCluster({ cores: 1 })
    const path = javascript()
    const before = await lease(cluster, {})
    await use(before, path)
    await before.release()
    const granted = await lease(cluster, { deploy: { path, ...sizes } })
    await eventually(() => processes().length === 1, 'a worker waits')
    const waiting = processes()
    await sleep(500)
    const functions = await granted.deploy()
    const age = Number(Buffer.from(await functions.invoke('age', new Uint8Array(0))).toString())
    expect(age).toBeGreaterThan(100)
    expect(processes()).toEqual(waiting)
  })

  it('gets others when it deploys the same package otherwise', async () => {
    const cluster = await startCluster({ cores: 1 })
    const path = javascript()
    const before = await lease(cluster, {})
    await use(before, path)
    await before.release()
    const granted = await lease(cluster, { deploy: { path, payload: 128, output: 64 } })
    const waiting = await eventually(() => processes()[0], 'a worker waits')
    await use(granted, path)
    await eventually(() => !processes().includes(waiting!), 'the first worker has ended')
    const functions = await granted.deploy()
    const input = new Uint8Array(100)
    expect(await functions.invoke('pid', input)).not.toHaveLength(0)
  })

  it('ships a package again that the node has removed since it was last there', async () => {
    const cluster = await startCluster({ cores: 1, maxStoreBytes: 1000 })
    const path = javascript()
    const before = await lease(cluster, {})
    await use(before, path)
    await before.release()
    const other = await lease(cluster, {})
    await use(other, javascript(`${script}\n// ${'another one '.repeat(80)}`))
    await other.release()
    const granted = await lease(cluster, { deploy: { path, ...sizes } })
    const shipped = await stored(cluster)
    const functions = await granted.deploy()
    expect(await functions.invoke('pid', new Uint8Array(0))).not.toHaveLength(0)
    expect(await stored(cluster)).toBe(shipped + 1)
  })

  it('learns why its package cannot be started, as others do', async () => {
    const cluster = await startCluster({ cores: 1 })
    const path = javascript('throw new Error("not today")')
    for (const options of [{}, { deploy: { path, ...sizes } }]) {
      const granted = await lease(cluster, options)
      const failure = await granted.deploy(path, sizes).catch((error: unknown) => error)
      expect(failure).toMatchObject({ code: 'ERR_RFAAS_PACKAGE', message: /not today/ })
      await granted.release()
    }
  })

  it('gets others when it deploys something else', async () => {
    const cluster = await startCluster({ cores: 1 })
    const granted = await lease(cluster, { deploy: { path: nativePackage(), ...sizes } })
    await eventually(() => processes().length === 1, 'a native worker waits')
    const [native] = processes()
    await use(granted)
    await eventually(() => !processes().includes(native!), 'the native worker has ended')
    expect(processes()).toHaveLength(1)
    expect(await begun(cluster, 'node', 'nothing')).toBe(1)
  })

  it('has none any more when it deploys nothing for a while, or ends', async () => {
    const cluster = await startCluster({ cores: 2 })
    const granted = await lease(cluster, { deploy: { path: nativePackage(), ...sizes } })
    await eventually(() => processes().length === 1, 'a worker waits')
    await granted.release()
    await eventually(() => processes().length === 0, 'it has ended with the lease')
    const idle = await lease(cluster, { deploy: { path: nativePackage(), ...sizes } })
    await eventually(() => processes().length === 1, 'a worker waits')
    await eventually(() => processes().length === 0, 'it has waited in vain')
    await use(idle)
  })

  it('gets another worker when the one that waited for it has ended', async () => {
    const cluster = await startCluster({ cores: 1 })
    const path = javascript()
    const granted = await lease(cluster, { deploy: { path, ...sizes } })
    const waiting = await eventually(() => processes()[0], 'a worker waits')
    process.kill(waiting!, 'SIGKILL')
    await eventually(() => processes().length === 0, 'it has ended')
    await use(granted)
  })

  it('has to name a path when it deploys without having said which', async () => {
    const cluster = await startCluster({ cores: 1 })
    const granted = await lease(cluster, {})
    await expect(granted.deploy()).rejects.toMatchObject({ field: 'path' })
  })

  it('leaves nothing behind when the node ends', async () => {
    const cluster = await startCluster({ cores: 1 })
    await lease(cluster, { deploy: { path: nativePackage(), ...sizes } })
    await eventually(() => processes().length === 1, 'a worker waits')
    await cluster.node.close()
    expect(processes()).toEqual([])
  })
})
