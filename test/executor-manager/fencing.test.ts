// Tokens that are genuine and not expired, but of the past.
import { request } from '../../lib/control/http.js'
import { afterEach, describe, expect, it } from 'vitest'
import {
  answer,
  childrenOf,
  cleanUp,
  eventually,
  exists,
  listen,
  scriptManager,
  startExecutor,
  startNode,
} from './support.js'

afterEach(cleanUp)

const functions = 'export const echo = (i, o) => { o.set(i); return i.length }'
// Does not hear that it is asked to stop: it ends when its grace period does.
const deaf = `${functions}\nsetTimeout(() => { for (;;); }, 50)`

describe('a token of a lease that is over for the resource manager', () => {
  it('opens nothing when the node has just been started', async () => {
    const script = await scriptManager()
    script.epoch = 5
    script.live = ['l-live']
    const { url } = await startNode(script.url)
    const past = script.token({ lease: 'l-past', epoch: 5 })
    for (const [method, path] of [
      ['GET', '/v1/leases/l-past/events'],
      ['DELETE', '/v1/leases/l-past'],
      ['POST', '/v1/executors'],
    ] as const) {
      expect(await answer(url, method, path, { token: past })).toMatchObject({
        status: 409,
        code: 'ERR_RFAAS_LEASE_ENDED',
        message: expect.stringContaining('the resource manager says that it is over') as unknown,
      })
    }
    await startExecutor(url, script.token({ lease: 'l-live', epoch: 2 }), functions)
    const { status } = await answer(url, 'DELETE', '/v1/leases/l-live', {
      token: script.token({ lease: 'l-live', epoch: 2 }),
    })
    expect(status).toBe(200)
    await startExecutor(url, script.token({ lease: 'l-new', epoch: 6 }), functions)
  })
})

describe('a core that was leased again', () => {
  it('is closed to the tokens of the lease before', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const later = script.token({ lease: 'l-later', epoch: 7 })
    await startExecutor(url, later, functions)
    const refusal = {
      status: 409,
      code: 'ERR_RFAAS_LEASE_ENDED',
      message: expect.stringContaining('core 0 of lease l-1 has been leased again') as unknown,
    }
    const earlier = { token: script.token({ epoch: 3 }) }
    expect(await answer(url, 'GET', '/v1/leases/l-1/events', earlier)).toMatchObject(refusal)
    await request(`${url}/v1/leases/l-later`, { method: 'DELETE', token: later })
    expect(await answer(url, 'GET', '/v1/leases/l-1/events', earlier)).toMatchObject(refusal)
  })

  it('is waited for while the lease before is ending', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const first = script.token()
    await startExecutor(url, first, deaf)
    const [before] = childrenOf(process.pid)
    await new Promise((resolve) => setTimeout(resolve, 100)) // it is deaf now
    const ending = request(`${url}/v1/leases/l-1`, { method: 'DELETE', token: first })
    await startExecutor(url, script.token({ lease: 'l-2', epoch: 2 }), functions)
    expect(exists(before as number)).toBe(false)
    await ending
    expect(childrenOf(process.pid)).toHaveLength(1)
  })

  it('is taken from a lease that does not know yet that it is over', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const first = script.token()
    const heard = listen(url, 'l-1', first)
    await startExecutor(url, first, functions)
    await startExecutor(url, script.token({ lease: 'l-2', epoch: 2 }), functions)
    expect(await heard.next('lease-ended')).toEqual({ reason: 'lost' })
    await eventually(() => script.closed[0]?.lease === 'l-1', 'the end is confirmed')
    expect(childrenOf(process.pid)).toHaveLength(1)
  })
})

describe('the expiry of a lease', () => {
  it('is meant by the clock of the resource manager, whatever the wall clock of the node says', async () => {
    const script = await scriptManager()
    script.aheadMs = -24 * 3600_000
    const { url } = await startNode(script.url)
    const token = script.token({ expiresAtMs: Date.now() + script.aheadMs + 1000 })
    const heard = listen(url, 'l-1', token)
    await startExecutor(url, token, functions)
    expect(await heard.next('lease-ended')).toEqual({ reason: 'expired' })
  })
})
