// A lease that is taken back, on its node.
import { request } from '../../lib/control/http.js'
import type { LeaseRevokingEvent } from '../../lib/control/schemas.js'
import { afterEach, describe, expect, it } from 'vitest'
import {
  answer,
  childrenOf,
  cleanUp,
  eventually,
  listen,
  scriptManager,
  small,
  startExecutor,
  startNode,
  upload,
  type ScriptedManager,
} from './support.js'

afterEach(cleanUp)

const functions = 'export const echo = (i, o) => { o.set(i); return i.length }'
const revoked = { status: 409, code: 'ERR_RFAAS_LEASE_REVOKED' }

const revoke = (script: ScriptedManager, noticeMs: number): Promise<boolean> =>
  eventually(
    () => script.streams[0]?.send('revoking', { lease: 'l-1', noticeMs }),
    'the node listens',
  )

describe('a lease that is being revoked', () => {
  it('tells its client, starts nothing new, and ends with the notice', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    const heard = listen(url, 'l-1', token)
    const { package: sha256 } = await startExecutor(url, token, functions)
    await revoke(script, 2000)
    const notice = await heard.next<LeaseRevokingEvent>('lease-revoking')
    expect(notice.noticeMs).toBeGreaterThan(1000)
    expect(notice.noticeMs).toBeLessThanOrEqual(2000)
    expect(notice.reason).not.toBe('')
    const body = { ...small, runtime: 'node', package: sha256 }
    expect(await answer(url, 'POST', '/v1/executors', { token, body })).toMatchObject(revoked)
    await expect(upload(url, token, 'export const f = () => 0')).rejects.toMatchObject(revoked)
    expect(childrenOf(process.pid)).toHaveLength(1)
    // Repeated, and longer: the first one counts.
    script.revoking = [{ lease: 'l-1', noticeMs: 60_000 }]
    expect(await heard.next('lease-ended')).toEqual({ reason: 'revoked' })
    await eventually(() => script.closed[0]?.lease === 'l-1', 'the end is confirmed')
    expect(childrenOf(process.pid)).toEqual([])
    script.revoking = []
  })

  it('says so to who listens later, and ends at once when it is released', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    await startExecutor(url, token, functions)
    await revoke(script, 60_000)
    const late = listen(url, 'l-1', token)
    const { noticeMs } = await late.next<LeaseRevokingEvent>('lease-revoking')
    expect(noticeMs).toBeLessThanOrEqual(60_000)
    await request(`${url}/v1/leases/l-1`, { method: 'DELETE', token })
    expect(await late.next('lease-ended')).toEqual({ reason: 'released' })
    expect(script.closed).toHaveLength(1)
    expect(childrenOf(process.pid)).toEqual([])
  })

  it('does not begin on a node that it never came to', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    script.revoking = [{ lease: 'l-1', noticeMs: 700 }]
    const token = script.token()
    await eventually(
      async () => (await upload(url, token, functions).catch(() => undefined)) === undefined,
      'the notice arrives by heartbeat',
    )
    expect(await answer(url, 'GET', '/v1/leases/l-1/events', { token })).toMatchObject(revoked)
    await eventually(() => script.closed.length === 1, 'the end of the notice')
    script.revoking = []
    expect(script.closed).toEqual([{ lease: 'l-1', used: { heldMs: 0, cpuMs: 0 } }])
    expect(await answer(url, 'GET', '/v1/leases/l-1/events', { token })).toMatchObject({
      code: 'ERR_RFAAS_LEASE_ENDED',
    })
  })
})

describe('a node that is told to end', () => {
  it('gives its leases notice, which end with their last running call', async () => {
    const script = await scriptManager()
    const node = await startNode(script.url, { noticeMs: 3_600_000 })
    const token = script.token()
    const heard = listen(node.url, 'l-1', token)
    await startExecutor(node.url, token, functions)
    const closed = node.close()
    const notice = await heard.next<LeaseRevokingEvent>('lease-revoking')
    expect(notice).toMatchObject({ reason: 'its node is wanted back' })
    expect(await heard.next('lease-ended')).toEqual({ reason: 'revoked' })
    await closed
    expect(script.closed[0]?.lease).toBe('l-1')
    expect(script.leaving).toEqual([expect.any(Number), 0])
    expect(script.leaving[0]).toBeGreaterThan(3_000_000)
    expect(childrenOf(process.pid)).toEqual([])
  })

  it('says that it is gone', async () => {
    const script = await scriptManager()
    const node = await startNode(script.url)
    await node.close()
    expect(script.leaving).toEqual([0])
  })
})
