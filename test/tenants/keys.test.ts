// Who may do what at the resource manager, over HTTP.
import { chmodSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { events, request } from '../../lib/control/http.js'
import { UsageReport } from '../../lib/control/report-schemas.js'
import { LeaseGrant, LeaseList, NodeList } from '../../lib/control/schemas.js'
import { routeAccess } from '../../resource-manager/src/access.js'
import { cleanUp, Keys, onCleanUp, recordingLogger, startManager } from './support.js'

let url: string
let keys: Keys
let lines: string[]
let alice: string
let bob: string
let node: string
let operator: string
beforeEach(async () => {
  keys = new Keys()
  alice = keys.tenant('alice')
  bob = keys.tenant('bob', { quota: { maxCores: 1 } })
  node = keys.node('node-a')
  operator = keys.operator()
  const recording = recordingLogger()
  lines = recording.lines
  url = await startManager({ keysFile: keys.path, logger: recording.logger })
  await register(node)
})
afterEach(cleanUp)

const registration = {
  name: 'node-a',
  url: 'http://127.0.0.1:7071',
  cores: [0, 1, 2, 3],
  memoryBytes: 2 ** 30,
  providers: [],
  hostId: 'host-a',
  sequence: 1,
  leases: [],
}

function register(token: string, name = 'node-a'): Promise<void> {
  const body = { ...registration, name }
  return request(`${url}/v1/nodes`, { method: 'POST', token, body })
}

function grant(token: string, cores = 1): Promise<LeaseGrant> {
  const body = { cores, memoryBytes: 2 ** 20, durationMs: 60_000 }
  return request(`${url}/v1/leases`, { method: 'POST', token, body, schema: LeaseGrant })
}

async function leases(token: string): Promise<string[]> {
  return (await request(`${url}/v1/leases`, { token, schema: LeaseList })).leases.map(
    ({ id }) => id,
  )
}

async function status(
  method: string,
  path: string,
  token?: string,
  body?: object,
): Promise<number> {
  const response = await fetch(url + path, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  await response.arrayBuffer()
  return response.status
}

function failure(code: string, message: RegExp) {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string })
}

describe('a route', () => {
  it('is closed to whoever has no key, a wrong one, or one of another role', async () => {
    const wrong = alice.slice(0, -3) + (alice.endsWith('AAA') ? 'BBB' : 'AAA')
    const roles = { tenant: alice, node, operator }
    for (const [name, allowed] of Object.entries(routeAccess)) {
      const [method = '', route = ''] = name.split(' ')
      const path = route.replace(':name', 'node-a').replace(':id', 'l-x')
      const body = method === 'POST' ? {} : undefined
      expect(await status(method, path, undefined, body), name).toBe(401)
      expect([401, 429], name).toContain(await status(method, path, wrong, body))
      for (const [role, key] of Object.entries(roles)) {
        if (allowed.includes(role as 'node')) continue
        expect(await status(method, path, key, body), `${name} as ${role}`).toBe(403)
      }
    }
  })

  it('for monitoring needs the operator, except for the sign of life', async () => {
    expect(await status('GET', '/healthz')).toBe(200)
    for (const path of ['/metrics', '/openapi.json']) {
      expect(await status('GET', path)).toBe(401)
      expect(await status('GET', path, alice)).toBe(403)
      expect(await status('GET', path, operator)).toBe(200)
    }
  })

  it('refuses before it reads what is sent', async () => {
    const huge = { method: 'POST' as const, body: Buffer.alloc(8 * 2 ** 20), timeoutMs: 5000 }
    await expect(request(`${url}/v1/leases`, huge)).rejects.toThrow(
      expect.objectContaining({ status: 401 }),
    )
  })
})

describe('a tenant', () => {
  it('sees, renews, releases and is billed for its own leases, and no others exist', async () => {
    const { lease } = await grant(alice)
    expect(lease.tenant).toBe('alice')
    expect(await leases(alice)).toEqual([lease.id])
    expect(await leases(bob)).toEqual([])
    const path = `/v1/leases/${lease.id}`
    expect(await status('GET', path, bob)).toBe(404)
    expect(await status('POST', `${path}/renew`, bob, { durationMs: 5000 })).toBe(404)
    expect(await status('DELETE', path, bob)).toBe(404)
    expect(await status('GET', '/v1/leases/l-none', bob)).toBe(404)
    expect(await leases(operator)).toEqual([lease.id])
    expect(await status('DELETE', path, alice)).toBe(204)
    const used = { heldMs: 10, cpuMs: 5 }
    expect(await status('POST', `/v1/nodes/node-a/leases/${lease.id}/closed`, node, used)).toBe(204)

    const billed = async (token: string, query = ''): Promise<string[]> => {
      const { tenants } = await request(`${url}/v1/usage${query}`, { token, schema: UsageReport })
      return tenants.map(({ tenant }) => tenant)
    }
    expect(await billed(alice)).toEqual(['alice'])
    expect(await billed(bob)).toEqual([])
    expect(await billed(bob, '?tenant=alice').catch(() => [])).toEqual([])
    expect(await billed(operator)).toEqual(['alice'])
  })

  it('holds no more than its quota', async () => {
    await grant(bob)
    await expect(grant(bob)).rejects.toThrow(failure('ERR_RFAAS_QUOTA', /bob|cores/))
    await grant(alice, 2)
  })

  it('can forge neither usage nor the end of a lease', async () => {
    const { lease } = await grant(alice)
    const used = { heldMs: 0, cpuMs: 0 }
    const path = `/v1/nodes/node-a/leases/${lease.id}/closed`
    expect(await status('POST', path, alice, used)).toBe(403)
    expect(await status('POST', path, operator, used)).toBe(403)
    expect(await leases(alice)).toEqual([lease.id])
  })
})

describe('a node', () => {
  it('acts for itself only', async () => {
    await expect(register(node, 'node-b')).rejects.toThrow(failure('ERR_RFAAS_FORBIDDEN', /node-b/))
    const other = keys.node('node-b')
    const { lease } = await grant(alice)
    const used = { heldMs: 0, cpuMs: 0 }
    const beat = { hostId: 'host-a', leases: [] }
    expect(await status('POST', '/v1/nodes/node-a/heartbeat', other, beat)).toBe(403)
    expect(await status('GET', '/v1/nodes/node-a/events', other)).toBe(403)
    for (const [end, body] of [
      ['active', undefined],
      ['closed', used],
    ] as const) {
      const path = `/v1/nodes/node-a/leases/${lease.id}/${end}`
      expect(await status('POST', path, other, body)).toBe(403)
    }
  })

  it('acts for further nodes of its host, which have its name and a number', async () => {
    await register(node, 'node-a_2')
    for (const name of ['node-a2', 'node-a_', 'node-a_x', 'node-a_2_', 'node-aa_2']) {
      await expect(register(node, name)).rejects.toThrow(failure('ERR_RFAAS_FORBIDDEN', /node-a/))
    }
  })
})

describe('a key', () => {
  const nodes = (token: string) => request(`${url}/v1/nodes`, { token, schema: NodeList })

  it('stops working at once when it is removed, and a new one works at once', async () => {
    await nodes(alice)
    keys.remove(alice)
    await expect(nodes(alice)).rejects.toThrow(failure('ERR_RFAAS_UNAUTHORIZED', /no such key/))
    await nodes(keys.tenant('alice'))
  })

  it('that is removed ends the event streams that are open under it, and no others', async () => {
    const other = keys.node('node-b')
    await register(other, 'node-b')
    const follow = (token: string, name: string): { ended: boolean } => {
      const stream = { ended: false }
      const reading = new AbortController()
      onCleanUp(() => reading.abort())
      void (async () => {
        const path = `${url}/v1/nodes/${name}/events`
        for await (const _ of events(path, { token, signal: reading.signal })) continue
      })()
        .catch(() => undefined)
        .finally(() => (stream.ended = true))
      return stream
    }
    const [first, second] = [follow(node, 'node-a'), follow(other, 'node-b')]
    const { lease } = await grant(alice)
    keys.remove(node)
    await expect.poll(() => first.ended, { timeout: 20_000 }).toBe(true)
    expect(second.ended).toBe(false)
    expect(await leases(alice)).toEqual([lease.id])
  })

  it('ends when it expires', async () => {
    const expired = keys.tenant('carol', { expiresAt: new Date(Date.now() - 1).toISOString() })
    await expect(nodes(expired)).rejects.toThrow(failure('ERR_RFAAS_UNAUTHORIZED', /expired at/))
  })

  it('goes on when the file becomes unusable, which is logged once', async () => {
    for (const spoil of [
      () => writeFileSync(keys.path, '{'),
      () => writeFileSync(keys.path, '{"keys":[{"id":"x"}]}'),
      () => chmodSync(keys.path, 0o644),
    ]) {
      lines.splice(0)
      spoil()
      await nodes(alice)
      await nodes(bob)
      expect(lines.filter((line) => line.includes('keys file not usable'))).toHaveLength(1)
    }
    chmodSync(keys.path, 0o600)
    await nodes(keys.tenant('dave'))
  })

  it('is not in the log when it is wrong, and who tries again and again is not either', async () => {
    const secret = 'A'.repeat(43)
    const guess = `rfk_0000000000_${secret}`
    lines.splice(0)
    let last = 0
    for (let tries = 0; tries < 100; tries += 1) last = await status('GET', '/v1/nodes', guess)
    expect(last).toBe(429)
    const refused = lines.filter((line) => line.includes('not authenticated'))
    expect(refused[0]).toMatch(/"remote":"127.0.0.1".*"keyId":"0000000000"/)
    expect(refused.length).toBeLessThan(100)
    expect(lines.join('')).not.toContain(secret)
    // Nobody locks out others behind the same address.
    await nodes(alice)
  })
})

describe('without keys', () => {
  it('a web page whose name leads to this host gets nothing', async () => {
    const open = await startManager({})
    const { port } = new URL(open)
    expect(await rawStatus(Number(port), `localhost:${port}`)).toBe(200)
    expect(await rawStatus(Number(port), `evil.example:${port}`)).toBe(401)
  })
})

describe('a keys file', () => {
  it.each([
    ['that others may read', 0o640, '{"keys":[]}', /can be read by other users: chmod 600/],
    ['that is no JSON', 0o600, '{', /is not JSON/],
    ['with a node key without its node', 0o600, keyText({ role: 'node' }), /keys\[0\]\.node/],
    ['with a key without a tenant', 0o600, keyText({ role: 'tenant' }), /keys\[0\]\.tenant/],
  ])('%s is refused at the start', async (_what, mode, text, message) => {
    writeFileSync(keys.path, text)
    chmodSync(keys.path, mode)
    await expect(startManager({ keysFile: keys.path })).rejects.toThrow(
      failure('ERR_RFAAS_INVALID_ARGUMENT', message),
    )
  })
})

function keyText(fields: object): string {
  const record = {
    id: 'abcd',
    sha256: '0'.repeat(64),
    createdAt: '2030-01-01T00:00:00Z',
    ...fields,
  }
  return JSON.stringify({ keys: [record] })
}

/** fetch sets the Host header itself. */
async function rawStatus(port: number, host: string): Promise<number> {
  const { get } = await import('node:http')
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', path: '/v1/nodes', headers: { host } }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    }).on('error', reject)
  })
}
