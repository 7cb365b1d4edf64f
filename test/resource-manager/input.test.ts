import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ErrorBody } from '../../lib/control/schemas.js'
import type { ResourceManagerOptions } from '../../resource-manager/src/index.js'
import {
  cleanUp,
  grant,
  lease,
  MiB,
  nodeInfo,
  NodeClient,
  registeredNode,
  startManager,
  temporaryDirectory,
} from './support.js'

let url: string
let leaseId: string
beforeEach(async () => {
  ;({ url } = await startManager())
  await registeredNode(url)
  leaseId = (await grant(url)).lease.id
})
afterEach(cleanUp)

async function post(path: string, body: unknown): Promise<[number, ErrorBody['error']]> {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const answer = (await response.json()) as ErrorBody
  return [response.status, answer.error]
}

const leaseBody = { cores: 1, memoryBytes: MiB, durationMs: 5000 }
const nodeBody = new NodeClient('').registration
const heartbeatBody = { hostId: 'host-a', leases: [] }
const usageBody = { heldMs: 1, cpuMs: 1 }

describe('a request body', () => {
  it.each<[string, object, string, unknown]>([
    ['/v1/leases', leaseBody, 'cores', 0],
    ['/v1/leases', leaseBody, 'cores', -1],
    ['/v1/leases', leaseBody, 'cores', 1.5],
    ['/v1/leases', leaseBody, 'cores', 4097],
    ['/v1/leases', leaseBody, 'cores', '1'],
    ['/v1/leases', leaseBody, 'cores', null],
    ['/v1/leases', leaseBody, 'cores', undefined],
    ['/v1/leases', leaseBody, 'memoryBytes', MiB - 1],
    ['/v1/leases', leaseBody, 'memoryBytes', 2 ** 60],
    ['/v1/leases', leaseBody, 'memoryBytes', undefined],
    ['/v1/leases', leaseBody, 'durationMs', 999],
    ['/v1/leases', leaseBody, 'durationMs', 7 * 24 * 3600 * 1000 + 1],
    ['/v1/leases', leaseBody, 'durationMs', 1e300],
    ['/v1/leases', leaseBody, 'node', ''],
    ['/v1/leases', leaseBody, 'node', '../etc'],
    ['/v1/leases', leaseBody, 'tenant', 'somebody-else'],
    ['/v1/leases/ID/renew', { durationMs: 5000 }, 'durationMs', 0],
    ['/v1/leases/ID/renew', { durationMs: 5000 }, 'durationMs', true],
    ['/v1/leases/ID/renew', { durationMs: 5000 }, 'cores', 2],
    ['/v1/nodes', nodeBody, 'name', 'a b'],
    ['/v1/nodes', nodeBody, 'name', 'x'.repeat(64)],
    ['/v1/nodes', nodeBody, 'url', 'not a url'],
    ['/v1/nodes', nodeBody, 'url', 'file:///etc/passwd'],
    ['/v1/nodes', nodeBody, 'cores', []],
    ['/v1/nodes', nodeBody, 'cores', [1, 1]],
    ['/v1/nodes', nodeBody, 'cores', 4],
    ['/v1/nodes', nodeBody, 'memoryBytes', -1],
    ['/v1/nodes', nodeBody, 'providers', 'shm'],
    ['/v1/nodes', nodeBody, 'providers', undefined],
    ['/v1/nodes', nodeBody, 'hostId', ''],
    ['/v1/nodes', nodeBody, 'leases', {}],
    ['/v1/nodes/node-a/heartbeat', heartbeatBody, 'leases', undefined],
    ['/v1/nodes/node-a/leases/ID/closed', usageBody, 'heldMs', -1],
    ['/v1/nodes/node-a/leases/ID/closed', usageBody, 'heldMs', 'long'],
    ['/v1/nodes/node-a/leases/ID/closed', usageBody, 'cpuMs', 0.5],
    ['/v1/nodes/node-a/leases/ID/closed', usageBody, 'cpuMs', undefined],
  ])(
    'to %s that is %j but for %s = %j is refused by name and changes nothing',
    async (path, good, field, bad) => {
      const before = [await lease(url, leaseId), await nodeInfo(url, 'node-a')]
      const [status, error] = await post(path.replace('ID', leaseId), { ...good, [field]: bad })
      expect(status).toBe(400)
      expect(error.code).toBe('ERR_RFAAS_INVALID_ARGUMENT')
      expect(error.field).toBe(field)
      expect(error.message.startsWith(`${field} is `)).toBe(true)
      expect(error.allowed).toMatch(/./)
      const after = [await lease(url, leaseId), await nodeInfo(url, 'node-a')]
      // The request of another test client counts as no sign of life, so even lastSeen stays.
      expect(after).toEqual(before)
    },
  )

  it.each<[string, unknown, string]>([
    ['/v1/nodes', { ...nodeBody, cores: [0, 70000] }, 'cores[1]'],
    ['/v1/nodes', { ...nodeBody, leases: ['ok', '/'] }, 'leases[1]'],
    ['/v1/nodes', { ...nodeBody, providers: [{ name: 'shm' }] }, 'providers[0].available'],
    ['/v1/leases', null, 'body'],
    ['/v1/leases', [leaseBody], 'body'],
    ['/v1/leases', 'lease', 'body'],
  ])('to %s is refused with the exact place of the fault', async (path, body, field) => {
    const [status, error] = await post(path, body)
    expect([status, error.field]).toEqual([400, field])
  })

  it('that is missing altogether is refused', async () => {
    const response = await fetch(`${url}/v1/leases`, { method: 'POST' })
    expect(response.status).toBe(400)
    expect(((await response.json()) as ErrorBody).error.message).toMatch(/^body is /)
  })

  it.each(['/v1/leases/%2e%2e%2f', '/v1/leases/a%00b', `/v1/leases/${'x'.repeat(90)}`])(
    'has no say when the path %s is no id',
    async (path) => {
      const response = await fetch(url + path)
      expect(response.status).toBe(400)
      expect(((await response.json()) as ErrorBody).error.field).toBe('id')
    },
  )
})

describe('garbage on the socket', () => {
  it('disturbs neither other requests nor leases', async () => {
    const garbage = Array.from({ length: 20 }, async (_, index) => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1')
      await once(socket, 'connect')
      socket.on('error', () => undefined)
      socket.resume()
      socket.end(Buffer.from(`\x00\xff${index} \r\n\r\nPOST /v1/leases HTTP/9.9\r\n\r\n`, 'latin1'))
      await once(socket, 'close')
    })
    const reads = Array.from({ length: 20 }, () => lease(url, leaseId))
    await Promise.all(garbage)
    for (const found of await Promise.all(reads)) expect(found.state).toBe('granted')
  })
})

describe('options', () => {
  it.each<[ResourceManagerOptions, string, RegExp]>([
    [{ host: '0.0.0.0' }, 'host', /other machines can reach.*"rfaas keys add"/],
    [
      { host: '0.0.0.0', allowPlaintext: true },
      'host',
      /other machines can reach.*"rfaas keys add"/,
    ],
    [{ host: '0.0.0.0', keysFile: 'x' }, 'host', /unencrypted.*--tls-cert.*--allow-plaintext/],
    [{ host: '::' }, 'host', /other machines can reach/],
    [{ host: '192.0.2.1' }, 'host', /other machines can reach/],
    [{ host: 'localhost.example.org' }, 'host', /other machines can reach/],
    [{ tlsCert: 'x' }, 'tlsKey', /go together/],
    [{ nodeCa: 'x' }, 'nodeCa', /together with keysFile, tlsCert and tlsKey/],
    [{ keysFile: '/nowhere/keys' }, 'keysFile', /keys file \/nowhere\/keys cannot be read: ENOENT/],
    [{ host: '' }, 'host', /address or name/],
    [{ port: 65536 }, 'port', /from 0 to 65535/],
    [{ port: 1.5 }, 'port', /from 0 to 65535/],
    [{ dataDir: '' }, 'dataDir', /path of a directory/],
    [{ heartbeatMs: 1 }, 'heartbeatMs', /from 10 ms/],
    [{ heartbeatMs: 'often' }, 'heartbeatMs', /such as 500ms/],
    [{ heartbeatMs: 1000, nodeTimeoutMs: 1000 }, 'nodeTimeoutMs', /from 1001 ms/],
    [{ minFreeBytes: 'plenty' }, 'minFreeBytes', /such as 64KiB/],
    [{ maxLeaseMs: '8d' }, 'maxLeaseMs', /to 604800000 ms/],
  ])('%j are refused by name', async (options, field, message) => {
    await expect(startManager({ dataDir: temporaryDirectory(), ...options })).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        field,
        message: expect.stringMatching(message) as string,
      }),
    )
  })

  it('take the loopback addresses of both families', async () => {
    const { url: named } = await startManager({ host: 'localhost' })
    expect((await fetch(`${named}/healthz`)).status).toBe(200)
    const { url: other } = await startManager({ host: '127.0.0.2' })
    expect((await fetch(`${other}/healthz`)).status).toBe(200)
  })
})
