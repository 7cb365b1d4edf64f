// A lease whose executor manager is gone, and what remains of leases that are over.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import {
  startResourceManager,
  type RunningResourceManager,
} from '../../resource-manager/src/index.js'
import { bytes, deployOptions, nativePackage, sleeps, soonMs, startCluster } from './support.js'

const main = join(import.meta.dirname, '../../dist/executor-manager/src/main.js')
const ended = { code: 'ERR_RFAAS_LEASE_ENDED' }

let folder: string
let resourceManager: RunningResourceManager
let client: Client
let node: ChildProcess
let port: string

async function startNode(wanted: string): Promise<void> {
  const options = {
    '--port': wanted,
    '--name': 'node-1',
    '--log-level': 'error',
    '--resource-manager': resourceManager.url,
    '--data-dir': join(folder, 'executor-manager'),
    '--runtime-dir': folder,
  }
  node = spawn(process.execPath, [main, ...Object.entries(options).flat()], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(createInterface(node.stdout!), 'line')) as [string]
  port = /http:\/\/[0-9.]+:(\d+)/.exec(line)![1]!
}

async function killNode(): Promise<void> {
  node.kill('SIGKILL')
  await once(node, 'exit')
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'rfaas-lost-'))
  resourceManager = await startResourceManager({
    port: 0,
    dataDir: join(folder, 'resource-manager'),
    heartbeatMs: 200,
    nodeTimeoutMs: 20_000,
    logLevel: 'silent',
  })
  client = await Client.connect(resourceManager.url)
  await startNode('0')
})
beforeEach(() => expect.poll(async () => (await client.nodes())[0]?.state).toBe('up'))
afterAll(async () => {
  await client.close()
  node.kill('SIGTERM')
  await once(node, 'exit')
  await resourceManager.close()
  rmSync(folder, { recursive: true, force: true })
})

describe('a lease whose executor manager is killed', () => {
  test('says that its node cannot be reached, and ends with the cause when it is back', async () => {
    const lease = await client.lease({ memory: '64MiB' })
    const idle = await client.lease({ memory: '64MiB' })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    const unreachable = once(lease, 'nodeUnreachable')
    await killNode()
    const [name, reason] = (await unreachable) as [string, string]
    expect(name).toBe('node-1')
    expect(reason).toContain('ECONNREFUSED')
    const late = functions.invoke('echo', bytes(1), { timeoutMs: 60_000 })
    const failing = expect(late).rejects.toMatchObject({
      // Sent before the client noticed that the worker is gone, or not sent at all.
      code: expect.stringMatching(/^ERR_RFAAS_(WORKER_LOST|LEASE_ENDED)$/) as string,
    })
    const ends = Promise.all([once(lease, 'ended'), once(idle, 'ended')])
    await startNode(port)
    for (const [why] of await ends) {
      expect(why).toContain('its executor manager was restarted')
    }
    await failing
    await expect.poll(async () => (await client.nodes())[0]?.state).toBe('up')
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject(ended)
    await expect(lease.deploy(nativePackage(), deployOptions)).rejects.toMatchObject(ended)
    await using next = await client.lease({ memory: '64MiB' })
    const again = await next.deploy(nativePackage(), deployOptions)
    expect(await again.invoke('echo', bytes(2))).toEqual(bytes(2))
    expect((await client.usage())[0]?.leases).toBe(2)
  })

  test('lets calls in flight end with the worker, before it is back and says that the lease has ended', async () => {
    const lease = await client.lease({ memory: '64MiB' })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const call = functions.invoke('sleep_ms', sleeps(60_000), { timeoutMs: 120_000 })
    const failing = expect(call).rejects.toMatchObject({
      code: 'ERR_RFAAS_WORKER_LOST',
      mayHaveRun: true,
    })
    const ends = once(lease, 'ended')
    await killNode()
    await startNode(port)
    await failing
    await ends
    await expect.poll(async () => (await client.nodes())[0]?.state).toBe('up')
  })

  test('ends when the operator removes its node', async () => {
    const lease = await client.lease({ memory: '64MiB' })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const unreachable = once(lease, 'nodeUnreachable')
    const ends = once(lease, 'ended')
    await killNode()
    await unreachable
    await client.removeNode('node-1', { force: true })
    expect((await ends)[0]).toBe('closed, says the resource manager')
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject(ended)
    await startNode(port)
  })

  test('ends when it expires, if nobody comes back', async () => {
    const lease = await client.lease({ memory: '64MiB', duration: soonMs, autoRenew: false })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const ends = once(lease, 'ended')
    await killNode()
    expect((await ends)[0]).toContain('could not be reached')
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject(ended)
    await startNode(port)
  })
})

test('a deployment to an executor manager that has stopped fails in the time of the client', async () => {
  await using hasty = await Client.connect(resourceManager.url, { timeoutMs: 1000 })
  const lease = await hasty.lease({ memory: '64MiB' })
  node.kill('SIGSTOP')
  try {
    await expect(lease.deploy(nativePackage(), deployOptions)).rejects.toMatchObject({
      code: 'ERR_RFAAS_UNAVAILABLE',
      message: expect.stringContaining('no answer within 1000 ms') as string,
    })
  } finally {
    node.kill('SIGCONT')
  }
})

describe('of leases that are over', () => {
  test('nothing remains in the processes', async () => {
    const cluster = await startCluster()
    const cycle = async (): Promise<void> => {
      const lease = await cluster.client.lease({ memory: '64MiB' })
      const functions = await lease.deploy(nativePackage(), deployOptions)
      await functions.invoke('echo', bytes(1))
      await lease.release()
    }
    // Of this process, in which both managers and the client are.
    const resources = (): Record<string, number> => {
      const counts: Record<string, number> = {}
      for (const name of process.getActiveResourcesInfo()) counts[name] = (counts[name] ?? 0) + 1
      return counts
    }
    for (let i = 0; i < 3; i += 1) await cycle()
    const before = resources()
    for (let i = 0; i < 20; i += 1) await cycle()
    await expect
      .poll(() => {
        const after = resources()
        return Object.keys(after).filter((name) => after[name]! > (before[name] ?? 0) + 4)
      })
      .toEqual([])
    await cluster.stop()
  })
})
