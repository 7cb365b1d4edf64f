import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { LeaseList } from '../../lib/control/schemas.js'
import { verifyToken } from '../../lib/control/token.js'
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
  startManager,
  usage,
} from './support.js'

let url: string
beforeEach(async () => {
  ;({ url } = await startManager())
})
afterEach(cleanUp)

function refused(code: string, message: RegExp) {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string })
}

describe('granting', () => {
  it('gives cores, memory, an expiry and a token that the node can check by itself', async () => {
    const node = new NodeClient(url)
    const { publicKey } = await node.register()
    const before = Date.now()
    const { lease: granted, token } = await grant(url, { cores: 2, memoryBytes: 100 * MiB })
    expect(granted).toMatchObject({
      state: 'granted',
      tenant: 'default',
      memoryBytes: 100 * MiB,
      parts: [
        {
          id: granted.id,
          node: 'node-a',
          executorManager: 'http://127.0.0.1:7071',
          cores: [0, 1],
          memoryBytes: 100 * MiB,
          state: 'granted',
        },
      ],
    })
    const expiresAtMs = Date.parse(granted.expiresAt)
    expect(expiresAtMs).toBeGreaterThanOrEqual(before + 60_000)
    expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 60_000)
    const here = { node: 'node-a', nowMs: Date.now() }
    expect(verifyToken(token, publicKey, here)).toEqual({
      lease: granted.id,
      tenant: 'default',
      node: 'node-a',
      cores: [0, 1],
      memoryBytes: 100 * MiB,
      epoch: granted.epoch,
      expiresAtMs,
    })
    expect(() => verifyToken(token, publicKey, { ...here, node: 'node-b' })).toThrow(/for node/)
    expect(() => verifyToken(token, publicKey, { ...here, nowMs: expiresAtMs })).toThrow(/expired/)
    const forged = token.replace(/^./, (first) => (first === 'e' ? 'f' : 'e'))
    expect(() => verifyToken(forged, publicKey, here)).toThrow(/not signed/)
    expect(await lease(url, granted.id)).toEqual(granted)
  })

  it('never gives a core to two leases, however many are requested at once', async () => {
    await registeredNode(url, { cores: [0, 2, 4, 6, 8, 10, 12] })
    await registeredNode(url, { name: 'node-b', cores: [0, 1, 2, 3, 4] })
    const wanted = Array.from({ length: 20 }, (_, index) => 1 + (index % 3))
    const results = await Promise.allSettled(wanted.map((cores) => grant(url, { cores })))
    const granted = results.flatMap((result) =>
      result.status === 'fulfilled' ? [result.value.lease] : [],
    )
    const taken = granted.flatMap(({ parts: [part] }) =>
      part!.cores.map((core) => `${part!.node}/${core}`),
    )
    expect(new Set(taken).size).toBe(taken.length)
    // Single cores fill what larger requests left: all twelve are out.
    expect(taken).toHaveLength(12)
    for (const result of results) {
      if (result.status === 'rejected') {
        expect(result.reason).toMatchObject({ code: 'ERR_RFAAS_NO_CAPACITY', status: 409 })
      }
    }
    expect(new Set(granted.map(({ id }) => id)).size).toBe(granted.length)
    expect(new Set(granted.map(({ epoch }) => epoch)).size).toBe(granted.length)
  })

  it('says what is free when nothing fits', async () => {
    await expect(grant(url)).rejects.toThrow(
      refused('ERR_RFAAS_NO_CAPACITY', /no node is registered/),
    )
    await registeredNode(url, { memoryBytes: 10 * MiB })
    await expect(grant(url, { cores: 5 })).rejects.toThrow(
      refused(
        'ERR_RFAAS_NO_CAPACITY',
        /^no node has 5 free cores and 1 MiB: node-a has 4 cores and 10 MiB free$/,
      ),
    )
    await expect(grant(url, { memoryBytes: 11 * MiB })).rejects.toThrow(
      refused('ERR_RFAAS_NO_CAPACITY', /1 free core and 11 MiB/),
    )
  })

  it('counts memory as well as cores', async () => {
    await registeredNode(url, { memoryBytes: 10 * MiB })
    await grant(url, { memoryBytes: 6 * MiB })
    await expect(grant(url, { memoryBytes: 6 * MiB })).rejects.toThrow(/4 MiB free/)
    await grant(url, { memoryBytes: 4 * MiB })
  })

  it('takes the first node that fits, or the one that is asked for', async () => {
    await registeredNode(url, { name: 'node-a', cores: [0] })
    await registeredNode(url, { name: 'node-b', cores: [0, 1, 2] })
    expect((await grant(url)).part.node).toBe('node-a')
    expect((await grant(url)).part.node).toBe('node-b')
    await expect(grant(url, { node: 'node-a' })).rejects.toThrow(/^no node has .* node-a has 0/)
    expect((await grant(url, { node: 'node-b' })).part.cores).toEqual([1])
    await expect(grant(url, { node: 'node-x' })).rejects.toThrow(
      refused('ERR_RFAAS_NOT_FOUND', /there is no node node-x/),
    )
  })

  it('is limited by the longest lease of the configuration', async () => {
    const { url: strict } = await startManager({ maxLeaseMs: '10s' })
    await registeredNode(strict)
    const { lease: granted } = await grant(strict, { durationMs: 10_000 })
    const message = /^durationMs is 10001, must be an integer from 1000 to 10000$/
    await expect(grant(strict, { durationMs: 10_001 })).rejects.toThrow(message)
    await expect(renew(strict, granted.id, 10_001)).rejects.toThrow(message)
  })
})

describe('a lease', () => {
  it('keeps its cores after its release until the node confirms', async () => {
    const node = await registeredNode(url, { cores: [7] })
    const { lease: first } = await grant(url)
    await node.active(first.id)
    expect((await lease(url, first.id)).state).toBe('active')
    await release(url, first.id)
    expect((await lease(url, first.id)).state).toBe('released')
    await expect(grant(url)).rejects.toThrow(refused('ERR_RFAAS_NO_CAPACITY', /0 cores/))
    await node.closed(first.id)
    expect((await lease(url, first.id)).state).toBe('closed')
    expect((await grant(url)).part.cores).toEqual([7])
  })

  it('can be released any number of times, in every state', async () => {
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url)
    await Promise.all([release(url, granted.id), release(url, granted.id)])
    await release(url, granted.id)
    await node.closed(granted.id)
    await release(url, granted.id)
    expect((await lease(url, granted.id)).state).toBe('closed')
  })

  it('is renewed from now on and never shortened', async () => {
    const node = new NodeClient(url)
    const { publicKey } = await node.register()
    const { lease: granted } = await grant(url, { durationMs: 60_000 })
    const shorter = await renew(url, granted.id, 1000)
    expect(shorter.lease.expiresAt).toBe(granted.expiresAt)
    const longer = await renew(url, granted.id, 120_000)
    const expiresAtMs = Date.parse(longer.lease.expiresAt)
    expect(expiresAtMs).toBeGreaterThanOrEqual(Date.parse(granted.expiresAt) + 60_000)
    expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 120_000)
    expect(shorter.lease.epoch).toBeGreaterThan(granted.epoch)
    expect(longer.lease.epoch).toBeGreaterThan(shorter.lease.epoch)
    const claims = verifyToken(longer.token, publicKey, { node: 'node-a', nowMs: Date.now() })
    expect(claims).toMatchObject({ expiresAtMs, epoch: longer.lease.epoch })
  })

  it('expires by itself, tells its node and cannot be renewed then', async () => {
    const node = await registeredNode(url)
    await node.listen()
    const { lease: granted } = await grant(url, { durationMs: 1000 })
    await node.active(granted.id)
    await expect
      .poll(() => node.ends, { timeout: 5000 })
      .toEqual([{ lease: granted.id, reason: 'expired' }])
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(granted.expiresAt))
    await expect(renew(url, granted.id, 60_000)).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_LEASE_ENDED',
        status: 409,
        message: `lease ${granted.id} expired at ${granted.expiresAt}: request a new one`,
      }),
    )
    expect((await lease(url, granted.id)).state).toBe('expired')
    await node.closed(granted.id)
    expect((await lease(url, granted.id)).state).toBe('closed')
  })

  it('outlives its first expiry when it was renewed in time', async () => {
    await registeredNode(url)
    const { lease: granted } = await grant(url, { durationMs: 1000 })
    await renew(url, granted.id, 60_000)
    await delay(1200)
    expect((await lease(url, granted.id)).state).toBe('granted')
  })

  it('is taken back by the operator, who may ask twice', async () => {
    const node = await registeredNode(url)
    await node.listen()
    const { lease: granted } = await grant(url)
    await request(`${url}/v1/leases/${granted.id}/revoke`, {
      method: 'POST',
      body: { noticeMs: 0 },
    })
    await request(`${url}/v1/leases/${granted.id}/revoke`, {
      method: 'POST',
      body: { noticeMs: 0 },
    })
    expect((await lease(url, granted.id)).state).toBe('revoked')
    await expect.poll(() => node.ends).toEqual([{ lease: granted.id, reason: 'revoked' }])
    await expect(renew(url, granted.id, 5000)).rejects.toThrow(/is revoked/)
    await expect(node.active(granted.id)).rejects.toThrow(
      refused('ERR_RFAAS_LEASE_ENDED', /revoked/),
    )
  })

  it('that nobody knows is not found', async () => {
    const node = await registeredNode(url)
    const missing = refused('ERR_RFAAS_NOT_FOUND', /there is no lease l-none/)
    await expect(lease(url, 'l-none')).rejects.toThrow(missing)
    await expect(release(url, 'l-none')).rejects.toThrow(missing)
    await expect(renew(url, 'l-none', 5000)).rejects.toThrow(missing)
    await expect(node.active('l-none')).rejects.toThrow(missing)
    await expect(node.closed('l-none')).rejects.toThrow(missing)
  })

  it('is listed with all others', async () => {
    await registeredNode(url)
    const ids = [(await grant(url)).lease.id, (await grant(url)).lease.id]
    const { leases } = await request(`${url}/v1/leases`, { schema: LeaseList })
    expect(leases.map(({ id }) => id)).toEqual(ids)
  })
})

describe('the ledger', () => {
  it('bills a lease once, however often its end is confirmed', async () => {
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url, { cores: 2, memoryBytes: 3 * MiB })
    await node.active(granted.id)
    await delay(60)
    await release(url, granted.id)
    await Promise.all([1, 2, 3].map(() => node.closed(granted.id, 40, 15)))
    await node.closed(granted.id, 40, 15)
    const billed = await usage(url)
    expect(billed).toMatchObject({ tenant: 'default', leases: 1, heldMs: 40, cpuMs: 15 })
    // For as long as the tenant had it, whether or not something ran.
    const leaseMs = billed?.leaseMs ?? 0
    expect(leaseMs).toBeGreaterThanOrEqual(59)
    expect(billed).toMatchObject({ coreMs: 2 * leaseMs, memoryByteMs: leaseMs * 3 * MiB })
  })

  it('believes no node that a lease was held longer than it existed', async () => {
    const node = await registeredNode(url)
    const before = Date.now()
    const { lease: granted } = await grant(url, { cores: 2 })
    await node.closed(granted.id, 3_600_000, 3_600_000)
    const atMost = Date.now() - before
    const billed = await usage(url)
    expect(billed?.heldMs).toBeLessThanOrEqual(atMost)
    expect(billed?.cpuMs).toBeLessThanOrEqual(2 * atMost)
  })

  it('adds up over leases', async () => {
    const node = await registeredNode(url)
    const ids = (await Promise.all([grant(url), grant(url)])).map(({ lease: { id } }) => id)
    await delay(30)
    for (const id of ids) await node.closed(id, 20, 5)
    expect(await usage(url)).toMatchObject({ leases: 2, heldMs: 40, cpuMs: 10 })
    expect((await nodeInfo(url, 'node-a'))?.freeCores).toBe(4)
  })
})

describe('metrics', () => {
  it('count grants and refusals, leases, nodes and cores', async () => {
    await registeredNode(url)
    await grant(url, { cores: 3 })
    await expect(grant(url, { cores: 3 })).rejects.toThrow(/no node has 3/)
    const text = await (await fetch(`${url}/metrics`)).text()
    for (const line of [
      'rfaas_leases{state="granted"} 1',
      'rfaas_leases{state="active"} 0',
      'rfaas_nodes{state="up"} 1',
      'rfaas_nodes{state="lost"} 0',
      'rfaas_cores{state="free"} 1',
      'rfaas_cores{state="leased"} 3',
      'rfaas_lease_grants_total 1',
      'rfaas_lease_refusals_total{code="ERR_RFAAS_NO_CAPACITY"} 1',
      'rfaas_lease_grant_duration_seconds_count 1',
    ]) {
      expect(text).toContain(`\n${line}\n`)
    }
  })

  it('go with a description of every route', async () => {
    const description = (await (await fetch(`${url}/openapi.json`)).json()) as {
      paths: Record<string, Record<string, unknown>>
    }
    const routes = Object.entries(description.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    )
    expect(routes.sort()).toEqual([
      'delete /v1/leases/{id}',
      'delete /v1/nodes/{name}',
      'get /healthz',
      'get /metrics',
      'get /v1/harvest',
      'get /v1/leases',
      'get /v1/leases/{id}',
      'get /v1/nodes',
      'get /v1/nodes/{name}/events',
      'get /v1/overview/events',
      'get /v1/usage',
      'get /v1/usage/entries',
      'get /v1/usage/jobs',
      'post /v1/leases',
      'post /v1/leases/{id}/renew',
      'post /v1/leases/{id}/revoke',
      'post /v1/nodes',
      'post /v1/nodes/{name}/drain',
      'post /v1/nodes/{name}/heartbeat',
      'post /v1/nodes/{name}/leases/{id}/active',
      'post /v1/nodes/{name}/leases/{id}/closed',
      'post /v1/nodes/{name}/leave',
      'post /v1/nodes/{name}/undrain',
    ])
  })
})
