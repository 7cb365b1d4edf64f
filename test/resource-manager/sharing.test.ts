import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { request } from '../../lib/control/http.js'
import { UsageEntries, UsageReport } from '../../lib/control/report-schemas.js'
import { LeaseGrant } from '../../lib/control/schemas.js'
import { verifyToken } from '../../lib/control/token.js'
import {
  cleanUp,
  grant,
  lease,
  MiB,
  NodeClient,
  registeredNode,
  release,
  renew,
  small,
  startManager,
  temporaryDirectory,
} from './support.js'

let url: string
beforeEach(async () => {
  ;({ url } = await startManager())
})
afterEach(async () => {
  vi.useRealTimers()
  await cleanUp()
})

const requestId = 'a-request-of-the-test'
const noCapacity = expect.objectContaining({ code: 'ERR_RFAAS_NO_CAPACITY', status: 409 })

describe('a lease of several nodes', () => {
  it('is granted on as few as possible, with a part and a token for each', async () => {
    const nodes = ['node-a', 'node-b', 'node-c'].map(
      (name, index) => new NodeClient(url, { name, cores: [0, 1, 2].slice(0, index + 1) }),
    )
    const [welcome] = await Promise.all(nodes.map((node) => node.register()))
    await expect(grant(url, { cores: 5 })).rejects.toEqual(noCapacity)
    const { lease: granted, tokens } = await grant(url, {
      cores: 5,
      nodes: 3,
      memoryBytes: 5 * MiB,
    })
    expect(granted.parts).toMatchObject([
      { id: `${granted.id}.0`, node: 'node-c', cores: [0, 1, 2], memoryBytes: 3 * MiB },
      { id: `${granted.id}.1`, node: 'node-b', cores: [0, 1], memoryBytes: 2 * MiB },
    ])
    for (const [index, { id, node, cores }] of granted.parts.entries()) {
      const here = { node, nowMs: Date.now() }
      const claims = verifyToken(tokens[index] ?? '', welcome?.publicKey ?? '', here)
      expect(claims).toMatchObject({ lease: id, cores, epoch: granted.epoch })
    }
    await expect(grant(url, { cores: 2, nodes: 3 })).rejects.toThrow(/no 3 nodes together have 2/)
  })

  it('goes on when one of its nodes loses its part, and is released as one', async () => {
    const a = await registeredNode(url, { cores: [0] })
    const b = await registeredNode(url, { name: 'node-b', cores: [0] })
    const { lease: granted } = await grant(url, { cores: 2, nodes: 2, memoryBytes: 2 * MiB })
    const [first, second] = granted.parts.map(({ id }) => id)
    await a.active(first ?? '')
    await b.active(second ?? '')
    await a.register()
    expect(await lease(url, granted.id)).toMatchObject({
      state: 'active',
      parts: [{ state: 'closed' }, { state: 'active' }],
    })
    const renewed = await renew(url, granted.id, 120_000)
    expect(renewed.tokens.map((token) => token !== null)).toEqual([false, true])
    await release(url, granted.id)
    expect(await b.heartbeat([second ?? ''])).toEqual([second])
    await b.closed(second ?? '')
    expect((await lease(url, granted.id)).state).toBe('closed')
  })
})

describe('a request that waits', () => {
  it('is granted when a node confirms what it waits for, in order of arrival', async () => {
    const node = await registeredNode(url, { cores: [0, 1] })
    const holders = [await grant(url), await grant(url)]
    const order: string[] = []
    const inLine = (name: string, cores: number): Promise<unknown> =>
      grant(url, { cores, waitMs: 20_000 }).then((granted) => {
        order.push(name)
        return granted
      })
    const large = inLine('large', 2)
    await expect.poll(() => waiting()).toBe(1)
    const late = inLine('small', 1)
    await expect.poll(() => waiting()).toBe(2)
    // Small ones do not overtake it, whether they wait or not.
    await node.closed(holders[0]?.lease.id ?? '')
    await expect(grant(url)).rejects.toEqual(noCapacity)
    await node.closed(holders[1]?.lease.id ?? '')
    const { lease: granted } = (await large) as LeaseGrant
    expect(order).toEqual(['large'])
    await node.closed(granted.id)
    await late
    expect(order).toEqual(['large', 'small'])
  })

  it('that no node could serve holds up nobody', async () => {
    await registeredNode(url, { cores: [0] })
    void grant(url, { cores: 9, waitMs: 20_000 }).catch(() => undefined)
    await expect.poll(() => waiting()).toBe(1)
    expect((await grant(url)).part.cores).toEqual([0])
  })

  it('is refused at its deadline, and told how long it waited', async () => {
    await expect(grant(url, { waitMs: 50 })).rejects.toThrow(
      /^no node has 1 free core and 1 MiB \(waited \d+ms\): no node is registered$/,
    )
    expect(await waiting()).toBe(0)
  })

  it('leaves the line when its caller hangs up, and is granted nothing', async () => {
    const call = new AbortController()
    const body = { ...small, waitMs: 20_000 }
    const { signal } = call
    const hung = request(`${url}/v1/leases`, { method: 'POST', body, schema: LeaseGrant, signal })
    await expect.poll(() => waiting()).toBe(1)
    call.abort()
    await expect(hung).rejects.toThrow()
    await expect.poll(() => waiting()).toBe(0)
    await registeredNode(url, { cores: [0] })
    expect((await grant(url)).part.cores).toEqual([0])
  })

  it('is answered when the resource manager stops', async () => {
    const { url: other, close } = await startManager()
    const refused = expect(grant(other, { waitMs: 20_000 })).rejects.toMatchObject({
      code: 'ERR_RFAAS_CLOSED',
    })
    await expect.poll(() => waiting(other)).toBe(1)
    await close()
    await refused
  })

  async function waiting(of = url): Promise<number> {
    const text = await (await fetch(`${of}/metrics`)).text()
    return Number(/^rfaas_lease_requests_waiting (\d+)$/m.exec(text)?.[1])
  }
})

describe('a request with an id', () => {
  it('is answered with the same lease when it is repeated, at once or after a restart', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    const node = await registeredNode(first.url)
    const answers = await Promise.all([1, 2, 3].map(() => grant(first.url, { requestId })))
    expect(new Set(answers.map(({ lease: { id } }) => id)).size).toBe(1)
    await first.close()
    const second = await startManager({ dataDir })
    expect(await grant(second.url, { requestId })).toEqual(answers[0])
    node.moveTo(second.url)
    await node.closed(answers[0]?.lease.id ?? '')
    await expect(grant(second.url, { requestId })).rejects.toThrow(/is closed: request a new one/)
  })
})

describe('a revocation with notice', () => {
  const revoke = (id: string, body?: unknown): Promise<void> =>
    request(`${url}/v1/leases/${id}/revoke`, {
      method: 'POST',
      ...(body !== undefined && { body }),
    })

  it('is told to the node at once and again; the lease ends when the notice does', async () => {
    const node = await registeredNode(url)
    await node.listen()
    const { lease: granted } = await grant(url)
    await node.active(granted.id)
    await revoke(granted.id, { noticeMs: 1000 })
    expect((await lease(url, granted.id)).state).toBe('revoking')
    await expect(renew(url, granted.id, 5000)).rejects.toMatchObject({
      code: 'ERR_RFAAS_LEASE_REVOKED',
    })
    const { live, revoking } = await node.register({ leases: [granted.id] })
    expect(live).toEqual([granted.id])
    expect(revoking).toMatchObject([{ lease: granted.id }])
    expect(revoking[0]?.noticeMs).toBeLessThanOrEqual(1000)
    await expect.poll(() => node.revoking).toMatchObject([{ lease: granted.id }])
    await expect
      .poll(() => node.ends, { timeout: 5000 })
      .toEqual([{ lease: granted.id, reason: 'revoked' }])
    expect((await lease(url, granted.id)).state).toBe('revoked')
  })

  it('has 30 seconds of it unless told otherwise; a second one shortens it only', async () => {
    const node = await registeredNode(url)
    const { lease: granted } = await grant(url)
    await revoke(granted.id)
    const notice = async (): Promise<number> =>
      (await node.register({ leases: [granted.id] })).revoking[0]?.noticeMs ?? 0
    expect(await notice()).toBeGreaterThan(20_000)
    await revoke(granted.id, { noticeMs: 10_000 })
    await revoke(granted.id, { noticeMs: 60_000 })
    expect(await notice()).toBeLessThanOrEqual(10_000)
    await release(url, granted.id)
    expect((await lease(url, granted.id)).state).toBe('released')
  })
})

describe('a wall clock that is set', () => {
  it.each([3_600_000, -3_600_000])('by %d ms ends no lease and lengthens none', async (jump) => {
    await registeredNode(url)
    const { lease: granted } = await grant(url, { durationMs: 60_000 })
    const { lease: brief } = await grant(url, { durationMs: 1000 })
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + jump })
    expect((await lease(url, granted.id)).state).toBe('granted')
    const { lease: renewed } = await renew(url, granted.id, 120_000)
    const gained = Date.parse(renewed.expiresAt) - Date.parse(granted.expiresAt)
    expect(gained).toBeGreaterThanOrEqual(60_000)
    expect(gained).toBeLessThan(3_000_000)
    await expect
      .poll(async () => (await lease(url, brief.id)).state, { timeout: 5000 })
      .toBe('expired')
  })
})

describe('the ledger', () => {
  it('is read by time and page, each entry with its lease', async () => {
    const node = await registeredNode(url)
    const closeOne = async (): Promise<string> => {
      const { lease: granted } = await grant(url, { cores: 2 })
      await delay(20)
      await node.closed(granted.id, 10, 5)
      return granted.id
    }
    const first = await closeOne()
    const { entries } = await request(`${url}/v1/usage/entries`, { schema: UsageEntries })
    expect(entries).toMatchObject([
      {
        id: first,
        lease: first,
        node: 'node-a',
        cores: [0, 1],
        heldMs: 10,
        cpuMs: 5,
        reason: 'node',
      },
    ])
    const [entry] = entries
    expect(entry?.coreMs).toBe(2 * (entry?.leaseMs ?? 0))
    await delay(5)
    const second = await closeOne()
    const between = new Date(Date.parse(entry?.closed ?? '') + 1).toISOString()
    const late = await request(`${url}/v1/usage/entries?from=${between}`, { schema: UsageEntries })
    expect(late.entries.map(({ id }) => id)).toEqual([second])
    const early = await request(`${url}/v1/usage?to=${between}`, { schema: UsageReport })
    expect(early.tenants).toMatchObject([{ tenant: 'default', leases: 1, heldMs: 10 }])
    const after = `${Date.parse(entry?.closed ?? '')}/${first}`
    const page = await request(`${url}/v1/usage/entries?after=${encodeURIComponent(after)}`, {
      schema: UsageEntries,
    })
    expect(page.entries.map(({ id }) => id)).toEqual([second])
    const nobody = await request(`${url}/v1/usage?tenant=nobody`, { schema: UsageReport })
    expect(nobody.tenants).toEqual([])
  })
})
