// Asking for leases: in a queue, over a bad line, and without waiting for the answer.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import { startProxy, type Proxy } from './proxy.js'
import { startCluster, type Cluster } from './support.js'

let cluster: Cluster
let proxy: Proxy
let client: Client
beforeAll(async () => {
  cluster = await startCluster()
})
afterAll(() => cluster.stop())
beforeEach(async () => {
  proxy = await startProxy(cluster.url)
  client = await Client.connect(proxy.url)
})
afterEach(async () => {
  await client.close()
  await proxy.close()
  await expect.poll(freeCores).toBe(2)
})

const small = { memory: '64MiB', duration: '1m' } as const
const aborted = { code: 'ERR_RFAAS_ABORTED' }

async function freeCores(): Promise<number> {
  const [node] = await cluster.client.nodes()
  return node?.freeCores ?? -1
}

/** Not closed ones. */
async function held(): Promise<number> {
  return (await cluster.client.leases()).filter(({ state }) => state !== 'closed').length
}

describe('a request for a lease', () => {
  test('waits for its turn when nothing is free', async () => {
    const first = await client.lease({ ...small, cores: 2 })
    const second = client.lease({ ...small, cores: 1, wait: '1m' })
    const third = client.lease({ ...small, cores: 1, wait: '1m' })
    await first.release()
    expect((await second).cores).not.toEqual((await third).cores)
  })

  test('that has waited in vain says for how long', async () => {
    await using lease = await client.lease({ ...small, cores: 2 })
    expect(lease.cores).toHaveLength(2)
    await expect(client.lease({ ...small, wait: 200 })).rejects.toMatchObject({
      code: 'ERR_RFAAS_NO_CAPACITY',
      message: expect.stringContaining('waited') as string,
    })
  })

  test('whose answer is lost is repeated, and answered with the same lease', async () => {
    proxy.answers = 'drop'
    const leasing = client.lease({ ...small, cores: 2 })
    await expect.poll(() => proxy.answered).toBeGreaterThan(0)
    proxy.pass()
    const lease = await leasing
    expect(await held()).toBe(1)
    await lease.release()
  })

  test('that is never answered fails, and holds nothing once the line is back', async () => {
    const impatient = await Client.connect(proxy.url, { timeoutMs: 300 })
    proxy.answers = 'hold'
    await expect(impatient.lease(small)).rejects.toMatchObject({ code: 'ERR_RFAAS_UNAVAILABLE' })
    proxy.pass()
    await impatient.close()
    await expect.poll(held).toBe(0)
  })

  test('leaves the queue when its caller stops waiting', async () => {
    const lease = await client.lease({ ...small, cores: 2 })
    const stop = new AbortController()
    const waiting = client.lease({ ...small, wait: '1m', signal: stop.signal })
    const next = client.lease({ ...small, cores: 2, wait: '1m' })
    stop.abort()
    await expect(waiting).rejects.toMatchObject(aborted)
    await lease.release()
    await (await next).release()
  })

  test('that is granted to nobody is given back', async () => {
    const stop = new AbortController()
    proxy.answers = 'hold'
    const leasing = client.lease({ ...small, cores: 2, signal: stop.signal })
    await expect.poll(() => proxy.answered).toBeGreaterThan(0)
    stop.abort()
    await expect(leasing).rejects.toMatchObject(aborted)
    proxy.pass()
    await expect.poll(freeCores).toBe(2)
  })

  test('that is answered when the client is closed is given back', async () => {
    proxy.answers = 'hold'
    const leasing = client.lease({ ...small, cores: 2 })
    await expect.poll(() => proxy.answered).toBeGreaterThan(0)
    const closing = client.close()
    proxy.pass()
    await expect(leasing).rejects.toMatchObject({ code: 'ERR_RFAAS_CLOSED' })
    await closing
    await expect.poll(freeCores).toBe(2)
  })

  test('is not sent when its signal has been aborted before', async () => {
    const signal = AbortSignal.abort()
    await expect(client.lease({ ...small, signal })).rejects.toMatchObject(aborted)
    expect(await held()).toBe(0)
  })
})
