import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { events, request } from '../../lib/control/http.js'
import { UsageEntries } from '../../lib/control/report-schemas.js'
import {
  cleanUp,
  grant,
  lease,
  MiB,
  nodeInfo,
  NodeClient,
  registeredNode,
  release,
  renew,
  spawnManager,
  startManager,
  temporaryDirectory,
  usage,
} from './support.js'

afterEach(cleanUp)

// Short enough to wait for, long enough that a busy machine does not lose a node that is heard.
const quick = { heartbeatMs: 50, nodeTimeoutMs: 600 }

const notFound = expect.objectContaining({ code: 'ERR_RFAAS_NOT_FOUND', status: 404 })

describe('a node', () => {
  it('is told the key, the interval of its heartbeats and what is free is known', async () => {
    const { url } = await startManager({ heartbeatMs: 1234 })
    const node = new NodeClient(url)
    const welcome = await node.register()
    expect(welcome.heartbeatMs).toBe(1234)
    expect(welcome.publicKey).toMatch(/^-----BEGIN PUBLIC KEY-----/)
    expect(welcome.end).toEqual([])
    await grant(url, { cores: 3, memoryBytes: 24 * MiB })
    expect(await nodeInfo(url, 'node-a')).toMatchObject({
      url: 'http://127.0.0.1:7071',
      state: 'up',
      cores: 4,
      freeCores: 1,
      memoryBytes: 1024 * MiB,
      freeMemoryBytes: 1000 * MiB,
      providers: [{ name: 'shm', available: true, reason: '' }],
    })
  })

  it('that is not registered is asked to register', async () => {
    const { url } = await startManager()
    const stranger = new NodeClient(url, { name: 'stranger' })
    await expect(stranger.heartbeat()).rejects.toThrow(notFound)
    await expect(stranger.active('l-x')).rejects.toThrow(notFound)
    await expect(stranger.closed('l-x')).rejects.toThrow(notFound)
    await expect(events(`${url}/v1/nodes/stranger/events`).next()).rejects.toThrow(notFound)
  })

  it('can neither activate nor close a lease of another node', async () => {
    const { url } = await startManager()
    await registeredNode(url)
    const other = await registeredNode(url, { name: 'node-b' })
    const { lease: granted } = await grant(url, { node: 'node-a' })
    await expect(other.active(granted.id)).rejects.toThrow(notFound)
    await expect(other.closed(granted.id)).rejects.toThrow(notFound)
    expect((await lease(url, granted.id)).state).toBe('granted')
  })

  it('cannot take the name of a node that is up on another host', async () => {
    const { url } = await startManager()
    await registeredNode(url)
    const impostor = new NodeClient(url, { hostId: 'host-b', url: 'http://127.0.0.1:9' })
    await expect(impostor.register()).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        status: 409,
        field: 'name',
        message: expect.stringMatching(
          /^name is "node-a", which the node at http:.*:7071/,
        ) as string,
      }),
    )
    expect((await nodeInfo(url, 'node-a'))?.url).toBe('http://127.0.0.1:7071')
  })

  it('that was lost leaves its name to another host, and none of its leases', async () => {
    const { url } = await startManager(quick)
    const first = await registeredNode(url)
    const { lease: running } = await grant(url)
    const { lease: unused } = await grant(url)
    await first.active(running.id)
    await expect.poll(async () => (await nodeInfo(url, 'node-a'))?.state).toBe('lost')

    const second = new NodeClient(url, { hostId: 'host-b' })
    const welcome = await second.register()
    expect(welcome.live).toEqual([])
    for (const { id } of [running, unused]) expect((await lease(url, id)).state).toBe('closed')
    // The first one, should it come back, does not keep the second alive, and ends what it runs.
    await expect(first.heartbeat([running.id])).rejects.toThrow(notFound)
    await expect(first.register({ leases: [running.id] })).rejects.toThrow(/on another host/)
  })

  it('learns the fence: the highest epoch and what is live on it', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: over } = await grant(url)
    const { lease: granted } = await grant(url)
    const { lease: renewed } = await renew(url, granted.id, 60_000)
    await release(url, over.id)
    const welcome = await node.register({ leases: [over.id] })
    expect(welcome).toMatchObject({ epoch: renewed.epoch, live: [granted.id], end: [over.id] })
    expect(Math.abs(welcome.nowMs - Date.now())).toBeLessThan(60_000)
  })

  it('is not lost because the resource manager was held up, but if it stays silent then', async () => {
    const args = ['--heartbeat-ms', '50ms', '--node-timeout-ms', '1s']
    const { url, child } = await spawnManager(temporaryDirectory(), { args })
    await registeredNode(url)
    child.kill('SIGSTOP')
    await delay(1500)
    child.kill('SIGCONT')
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ state: 'up' })
    await expect.poll(async () => (await nodeInfo(url, 'node-a'))?.state).toBe('lost')
  })

  it('that falls silent is lost: nothing is granted there until it registers again', async () => {
    const { url } = await startManager(quick)
    const node = await registeredNode(url)
    const { lease: running } = await grant(url)
    await node.active(running.id)
    for (let beat = 0; beat < 20; beat += 1) {
      expect(await node.heartbeat([running.id])).toEqual([])
      await delay(40)
    }
    expect((await nodeInfo(url, 'node-a'))?.state).toBe('up')

    await expect.poll(async () => (await nodeInfo(url, 'node-a'))?.state).toBe('lost')
    await expect(grant(url)).rejects.toThrow(/no node is up, 1 lost/)
    // Its clients may still be calling.
    expect((await lease(url, running.id)).state).toBe('active')
    await expect(node.heartbeat([running.id])).rejects.toThrow(notFound)

    await node.register({ leases: [running.id] })
    expect((await lease(url, running.id)).state).toBe('active')
    expect((await grant(url)).part.cores).toEqual([1])
  })

  it('hears what ended on its event stream, and in every heartbeat until it confirms', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    await node.listen()
    const { lease: granted } = await grant(url)
    await node.active(granted.id)
    await release(url, granted.id)
    await expect.poll(() => node.ends).toEqual([{ lease: granted.id, reason: 'released' }])
    expect(await node.heartbeat([granted.id])).toEqual([granted.id])
    expect(await node.heartbeat()).toEqual([granted.id])
    await node.closed(granted.id)
    expect(await node.heartbeat()).toEqual([])
  })

  it('that connects late to its stream is told what ended before', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url)
    await release(url, granted.id)
    await node.listen()
    await expect.poll(() => node.ends).toEqual([{ lease: granted.id, reason: 'released' }])
  })

  it('that is about to end is granted nothing more, and its leases are taken back', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url, { job: '4711' })
    const { lease: granted } = await grant(url)
    await node.active(granted.id)
    await node.leave(60_000)
    expect((await lease(url, granted.id)).state).toBe('revoking')
    expect(await nodeInfo(url, 'node-a')).toMatchObject({
      state: 'up',
      draining: true,
      job: '4711',
    })
    await expect(grant(url)).rejects.toThrow(/no node lends, 1 draining/)
    expect(await node.heartbeat([granted.id])).toEqual([])
    await node.closed(granted.id, 5, 1)
    await node.leave(0)
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ state: 'lost' })
    await expect(node.heartbeat()).rejects.toThrow(notFound)
    const { entries } = await request(`${url}/v1/usage/entries`, { schema: UsageEntries })
    expect(entries).toMatchObject([{ id: granted.id, job: '4711', reason: 'revoked' }])
    // It is a new job now.
    await node.register({ job: '4712' })
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ draining: false, job: '4712' })
    expect((await grant(url)).part.cores).toHaveLength(1)
  })

  it('does not end because of what it said before it began anew', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { sequence } = node.registration
    await node.register()
    await node.leave(60_000, { sequence })
    expect(await nodeInfo(url, 'node-a')).toMatchObject({ state: 'up', draining: false })
  })

  it('cannot name a time that no calendar has', async () => {
    const { url } = await startManager()
    const last = Date.parse('9999-12-31T23:59:59.999Z')
    await expect(registeredNode(url, { idleUntilMs: last + 1 })).rejects.toThrow(/idleUntilMs/)
    await registeredNode(url, { idleUntilMs: last })
    expect((await nodeInfo(url, 'node-a'))?.idleUntil).toBe('9999-12-31T23:59:59.999Z')
  })

  it('does not end for another host that had its name before', async () => {
    const { url } = await startManager(quick)
    const first = await registeredNode(url)
    await expect.poll(async () => (await nodeInfo(url, 'node-a'))?.state).toBe('lost')
    await registeredNode(url, { hostId: 'host-b' })
    await first.leave(0)
    expect((await nodeInfo(url, 'node-a'))?.state).toBe('up')
  })

  it('has to end what it runs without a live lease', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    await registeredNode(url, { name: 'node-b', cores: [9] })
    const { lease: elsewhere } = await grant(url, { node: 'node-b' })
    const { lease: mine } = await grant(url, { node: 'node-a' })
    await node.active(mine.id)
    const reported = [mine.id, elsewhere.id, 'l-unknown']
    expect(await node.heartbeat(reported)).toEqual([elsewhere.id, 'l-unknown'])
    expect((await node.register({ leases: reported })).end).toEqual([elsewhere.id, 'l-unknown'])
  })
})

describe('a node that registers again', () => {
  it('frees the cores of leases whose executors did not survive, and these are billed', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url, { cores: [0, 1] })
    const { lease: gone } = await grant(url)
    const { lease: unused } = await grant(url)
    await node.active(gone.id)
    await delay(20)
    expect((await node.register()).end).toEqual([])
    expect((await lease(url, gone.id)).state).toBe('closed')
    // Nothing ran for it yet: it is still good.
    expect((await lease(url, unused.id)).state).toBe('granted')
    const billed = await usage(url)
    expect(billed?.leases).toBe(1)
    expect(billed?.heldMs).toBeGreaterThanOrEqual(20)
    expect((await grant(url)).part.cores).toEqual(gone.parts[0]?.cores)
    // The node's own late word about it changes nothing.
    await node.closed(gone.id, 1, 1)
    expect(await usage(url)).toEqual(billed)
  })

  it('takes an ended lease that it does not run any more as confirmed', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url)
    await node.active(granted.id)
    await release(url, granted.id)
    expect((await node.register({ leases: [granted.id] })).end).toEqual([granted.id])
    expect((await lease(url, granted.id)).state).toBe('released')
    expect((await node.register()).end).toEqual([])
    expect((await lease(url, granted.id)).state).toBe('closed')
  })

  it('with fewer cores loses the leases that do not fit any more', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const kept = (await grant(url)).lease
    const lost = (await grant(url)).lease
    await node.active(kept.id)
    await node.active(lost.id)
    const { end } = await node.register({ cores: [0, 2], leases: [kept.id, lost.id] })
    expect(end).toEqual([lost.id])
    expect((await lease(url, kept.id)).state).toBe('active')
    expect((await lease(url, lost.id)).state).toBe('lost')
    expect((await grant(url)).part.cores).toEqual([2])
    await node.closed(lost.id)
    await expect(grant(url)).rejects.toThrow(/0 cores/)
  })

  it('with less memory loses the leases that do not fit any more', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url, { memoryBytes: 100 * MiB })
    const kept = (await grant(url, { memoryBytes: 40 * MiB })).lease
    const lost = (await grant(url, { memoryBytes: 40 * MiB })).lease
    await node.register({ memoryBytes: 64 * MiB })
    expect((await lease(url, kept.id)).state).toBe('granted')
    expect((await lease(url, lost.id)).state).toBe('closed')
    expect((await nodeInfo(url, 'node-a'))?.freeMemoryBytes).toBe(24 * MiB)
  })

  it('is not believed what it said before: an old registration that comes again changes nothing', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: running, part } = await grant(url, { cores: 4 })
    await node.active(running.id)
    const before = { sequence: node.registration.sequence }
    await node.register({ leases: [running.id] })
    await expect(node.register({ ...before, leases: [] })).rejects.toThrow(
      expect.objectContaining({ status: 409, field: 'sequence' }),
    )
    expect((await lease(url, running.id)).parts).toEqual([{ ...part, state: 'active' }])
  })

  it('at another URL has its leases reached there', async () => {
    const { url } = await startManager()
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url)
    await node.register({ url: 'http://127.0.0.1:8081' })
    expect((await lease(url, granted.id)).parts[0]?.executorManager).toBe('http://127.0.0.1:8081')
  })
})
