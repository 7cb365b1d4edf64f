// What the operator does to nodes.
import { afterEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { UsageEntries } from '../../lib/control/report-schemas.js'
import {
  cleanUp,
  grant,
  lease,
  nodeInfo,
  registeredNode,
  renew,
  startManager,
  temporaryDirectory,
  usage,
} from './support.js'

afterEach(cleanUp)

const quick = { heartbeatMs: 50, nodeTimeoutMs: 600 }
const notFound = expect.objectContaining({ code: 'ERR_RFAAS_NOT_FOUND', status: 404 })

function drain(url: string, node: string, body?: { noticeMs?: number }): Promise<void> {
  return request(`${url}/v1/nodes/${node}/drain`, { method: 'POST', ...(body && { body }) })
}

function undrain(url: string, node: string): Promise<void> {
  return request(`${url}/v1/nodes/${node}/undrain`, { method: 'POST' })
}

function remove(url: string, node: string, query = ''): Promise<void> {
  return request(`${url}/v1/nodes/${node}${query}`, { method: 'DELETE' })
}

describe('a node that is drained', () => {
  it('gets no new lease until it is undrained; those on it go on', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: before } = await grant(url)
    await node.active(before.id)
    await drain(url, 'node-a')
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ state: 'up', draining: true })
    await expect(grant(url)).rejects.toThrow(/no node lends, 1 draining, 0 lost/)
    await expect(grant(url, { node: 'node-a' })).rejects.toThrow(/draining/)
    await renew(url, before.id, 120_000)
    expect((await lease(url, before.id)).state).toBe('active')

    const waiting = grant(url, { waitMs: 30_000 })
    await undrain(url, 'node-a')
    expect((await waiting).part.node).toBe('node-a')
    expect((await nodeInfo(url, 'node-a'))?.draining).toBe(false)
  })

  it('stays so when it registers again, and when the resource manager restarts', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    const node = await registeredNode(first.url)
    await drain(first.url, 'node-a')
    await node.register()
    expect((await nodeInfo(first.url, 'node-a'))?.draining).toBe(true)
    await first.close()
    const { url } = await startManager({ dataDir })
    node.moveTo(url)
    await node.register()
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ state: 'up', draining: true })
  })

  it('has its leases taken back with the notice that the operator gives, and no others', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    await registeredNode(url, { name: 'node-b' })
    await node.listen()
    const { lease: spread } = await grant(url, { cores: 8, memoryBytes: 8 * 2 ** 20, nodes: 2 })
    await drain(url, 'node-a', { noticeMs: 60_000 })
    const states = async () =>
      (await lease(url, spread.id)).parts.map((part) => `${part.node} ${part.state}`).sort()
    expect(await states()).toEqual(['node-a revoking', 'node-b granted'])
    await expect.poll(() => node.revoking.length).toBe(1)
    // A second word may shorten the notice.
    await drain(url, 'node-a', { noticeMs: 0 })
    expect(await states()).toEqual(['node-a revoked', 'node-b granted'])
  })

  it('has to be known', async () => {
    const { url } = await startManager()
    await expect(drain(url, 'stranger')).rejects.toThrow(notFound)
    await expect(undrain(url, 'stranger')).rejects.toThrow(notFound)
    await expect(remove(url, 'stranger')).rejects.toThrow(notFound)
  })
})

describe('a node that is removed', () => {
  it('frees the quota of its leases, which are billed as lost, and is gone', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ ...quick, dataDir })
    const node = await registeredNode(first.url)
    const { lease: running } = await grant(first.url)
    await node.active(running.id)
    await expect(remove(first.url, 'node-a')).rejects.toThrow(/node-a is up: drain it/)
    await expect.poll(async () => (await nodeInfo(first.url, 'node-a'))?.state).toBe('lost')
    await remove(first.url, 'node-a')

    for (const when of ['now', 'after a restart']) {
      const { url } =
        when === 'now' ? first : await (await first.close(), startManager({ dataDir }))
      expect(await nodeInfo(url, 'node-a'), when).toBeUndefined()
      expect((await lease(url, running.id)).state).toBe('closed')
      const { entries } = await request(`${url}/v1/usage/entries`, { schema: UsageEntries })
      expect(entries).toMatchObject([{ id: running.id, reason: 'lost' }])
      expect((await usage(url))?.leases).toBe(1)
      await expect(grant(url, { node: 'node-a' })).rejects.toThrow(notFound)
      await expect(remove(url, 'node-a')).rejects.toThrow(notFound)
    }
  })

  it('and comes back is a new one: it ends what it runs, and its past is not believed', async () => {
    const { url } = await startManager(quick)
    const node = await registeredNode(url, { cores: [0] })
    const { lease: running } = await grant(url)
    await node.active(running.id)
    await drain(url, 'node-a')
    await expect.poll(async () => (await nodeInfo(url, 'node-a'))?.state).toBe('lost')
    await remove(url, 'node-a')
    await expect(node.heartbeat([running.id])).rejects.toThrow(notFound)
    await expect(node.active(running.id)).rejects.toThrow(notFound)

    const { sequence } = node.registration
    const welcome = await node.register({ leases: [running.id] })
    // The fence: no token of before is good.
    expect(welcome).toMatchObject({ live: [], end: [running.id], epoch: running.epoch })
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ draining: false, freeCores: 1 })
    await expect(node.register({ sequence })).rejects.toThrow(/register with a higher one/)
    const { lease: next } = await grant(url)
    expect(next.epoch).toBeGreaterThan(running.epoch)
    // It is billed once, as it was.
    const billed = await usage(url)
    await node.closed(running.id, 1, 1)
    expect(await usage(url)).toEqual(billed)
  })

  it('by force while it is up is told to end its leases', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: running } = await grant(url)
    await node.active(running.id)
    await remove(url, 'node-a', '?force=true')
    await expect(node.heartbeat([running.id])).rejects.toThrow(notFound)
    expect((await node.register({ leases: [running.id] })).end).toEqual([running.id])
    await expect(remove(url, 'node-a', '?force=please')).rejects.toThrow(/force/)
  })
})
