import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import { workersOf } from '../faults/proc.js'
import {
  bytes,
  deployOptions,
  nativePackage,
  nodePackage,
  soonMs,
  startCluster,
  type Cluster,
} from './support.js'

let cluster: Cluster
beforeAll(async () => {
  nativePackage() // compiled before there is a lease of a second
  cluster = await startCluster()
})
afterAll(() => cluster.stop())

async function freeCores(): Promise<number> {
  const [node] = await cluster.client.nodes()
  return node?.freeCores ?? -1
}

describe('a lease', () => {
  test('takes cores, pins its workers to them, and gives them back', async () => {
    const lease = await cluster.client.lease({ cores: 2, memory: '64MiB', duration: '1m' })
    expect(await freeCores()).toBe(0)
    expect(new Set(lease.cores).size).toBe(2)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    const workers = workersOf(process.pid)
    const allowed = workers.map((pid) => {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      return /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1]
    })
    expect(allowed.sort()).toEqual(lease.cores.map(String).sort())
    await lease.release()
    expect(workersOf(process.pid)).toEqual([])
    expect(await freeCores()).toBe(2)
    expect(await cluster.client.usage()).toMatchObject([{ tenant: 'default' }])
    await lease.release() // once more changes nothing
  })

  test('that no node can hold is refused, and says what is free', async () => {
    await using lease = await cluster.client.lease({ cores: 1, memory: '64MiB' })
    expect(lease.cores).toHaveLength(1)
    await expect(cluster.client.lease({ cores: 2, memory: '64MiB' })).rejects.toMatchObject({
      code: 'ERR_RFAAS_NO_CAPACITY',
    })
  })

  test.each([
    [{ cores: 0 }, 'cores is 0'],
    [{ cores: 1.5 }, 'cores is 1.5'],
    [{ memory: 'much' }, 'memory is "much"'],
    [{ memory: 1000 }, '1000'],
    [{ duration: '1x' }, 'duration is "1x"'],
    [{ duration: 10 }, '10'],
    [{ node: '../x' }, 'node'],
  ])('refuses %j', async (options, message) => {
    await expect(cluster.client.lease(options)).rejects.toThrow(message)
  })

  test('renews itself for as long as it is held', async () => {
    await using lease = await cluster.client.lease({ memory: '64MiB', duration: soonMs })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    await once(lease, 'renewed')
    await new Promise((resolve) => setTimeout(resolve, 1.5 * soonMs))
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })

  test('that is not renewed ends on the node, and its calls with it', async () => {
    const options = { memory: '64MiB', duration: soonMs, autoRenew: false }
    const lease = await cluster.client.lease(options)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const [reason] = (await once(lease, 'ended')) as [string]
    expect(reason).toMatch(/expired/)
    const ended = { code: 'ERR_RFAAS_LEASE_ENDED' }
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject(ended)
    expect(() => functions.invokeSync('echo', bytes(1), bytes(1))).toThrow('has ended')
    await expect(lease.deploy(nodePackage)).rejects.toMatchObject(ended)
    await expect.poll(freeCores, { timeout: 5000 }).toBe(2)
  })

  test('ends calls in flight when it expires', async () => {
    const options = { memory: '64MiB', duration: soonMs, autoRenew: false }
    const lease = await cluster.client.lease(options)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const sleeps = new Uint8Array(Uint32Array.of(60_000).buffer)
    await expect(functions.invoke('sleep_ms', sleeps)).rejects.toThrow()
    await expect.poll(freeCores, { timeout: 5000 }).toBe(2)
  })
})

describe('a client', () => {
  test('says who cannot be reached', async () => {
    await expect(Client.connect('http://127.0.0.1:1')).rejects.toMatchObject({
      code: 'ERR_RFAAS_UNAVAILABLE',
      message: expect.stringContaining('127.0.0.1:1') as string,
    })
    await expect(Client.connect('somewhere')).rejects.toThrow('url is "somewhere"')
  })

  test('releases its leases when it is closed', async () => {
    const client = await Client.connect(cluster.url)
    await client.lease({ memory: '64MiB' })
    expect(await freeCores()).toBe(1)
    await client.close()
    expect(await freeCores()).toBe(2)
    await expect(client.nodes()).rejects.toMatchObject({ code: 'ERR_RFAAS_CLOSED' })
  })

  test('ships a package to a node once', async () => {
    await using lease = await cluster.client.lease({ memory: '64MiB' })
    const first = await lease.deploy(nodePackage, deployOptions)
    await first.close()
    const second = await lease.deploy(nodePackage, deployOptions)
    expect(await second.invoke('echo', bytes(1))).toEqual(bytes(1))
    await second.close()
  })
})
