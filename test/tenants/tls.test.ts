// Certificates: real ones, made with openssl; managers, clients and calls over HTTPS.
import { execFile } from 'node:child_process'
import { copyFileSync, chmodSync, renameSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { events, request } from '../../lib/control/http.js'
import { LeaseGrant, NodeList } from '../../lib/control/schemas.js'
import { Transport } from '../../lib/control/transport.js'
import { Client } from '../../lib/index.js'
import {
  Authority,
  cleanUp,
  Keys,
  onCleanUp,
  recordingLogger,
  startManager,
  startNode,
  temporaryFolder,
} from './support.js'

let authority: Authority
let keys: Keys
let own: { tlsCert: string; tlsKey: string }
beforeEach(() => {
  authority = new Authority()
  keys = new Keys()
  const { cert, key } = authority.issue('manager')
  own = { tlsCert: cert, tlsKey: key }
})
afterEach(cleanUp)

const other = Object.values(networkInterfaces())
  .flatMap((entries) => entries ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address
if (other === undefined) {
  console.warn('sends no key unencrypted to another host: skipped, there is loopback only')
}

function failure(code: string, message: RegExp) {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string })
}

function unavailable(message: RegExp) {
  return failure('ERR_RFAAS_UNAVAILABLE', message)
}

describe('a client', () => {
  it('leases, deploys and calls with everything encrypted', async () => {
    const url = await startManager({ ...own, keysFile: keys.path, nodeCa: authority.certificate })
    const { cert, key } = authority.issue('node-1')
    const node = await startNode({
      resourceManager: url,
      key: keys.node('node-1'),
      ca: authority.certificate,
      tlsCert: cert,
      tlsKey: key,
    })
    expect([url, node].map((address) => new URL(address).protocol)).toEqual(['https:', 'https:'])
    const client = await Client.connect(url, {
      key: keys.tenant('alice'),
      ca: authority.certificate,
    })
    onCleanUp(() => client.close())
    const path = join(temporaryFolder(), 'hello.mjs')
    writeFileSync(path, 'export const hello = (name) => Buffer.from(`Hello, ${Buffer.from(name)}`)')
    const lease = await client.lease({ memory: '64MiB' })
    const functions = await lease.deploy(path, { payload: 4096, output: 4096 })
    const answer = await functions.invoke('hello', Buffer.from('world'))
    expect(Buffer.from(answer).toString()).toBe('Hello, world')
    await lease.renew()
    await lease.release()
    expect(await client.usage()).toMatchObject([{ tenant: 'alice', leases: 1 }])
  })

  it('believes only the authority that it was given, and the name in the certificate', async () => {
    const url = await startManager(own)
    const ask = (ca: string | undefined, address = url) =>
      request(`${address}/healthz`, { transport: new Transport({ ca }) })
    await ask(authority.certificate)
    await expect(ask(undefined)).rejects.toThrow(unavailable(/authority.*--ca \(ca, RFAAS_CA\)/))
    const stranger = new Authority('stranger').certificate
    await expect(ask(stranger)).rejects.toThrow(unavailable(/authority.*--ca/))
    const elsewhere = await startManager({ ...own, host: '127.0.0.2' })
    await expect(ask(authority.certificate, elsewhere)).rejects.toThrow(
      unavailable(/name or address that is in the certificate/),
    )
  })

  it('that confuses http and https is told so', async () => {
    const url = await startManager(own)
    const plain = await startManager({})
    const transport = new Transport({ ca: authority.certificate })
    for (const address of [url.replace('https', 'http'), plain.replace('http', 'https')]) {
      await expect(request(`${address}/healthz`, { transport })).rejects.toThrow(
        unavailable(/begins with http: or https:/),
      )
    }
  })

  it('cannot fall back to old versions of TLS', async () => {
    const { port } = new URL(await startManager(own))
    const socket = connect({
      port: Number(port),
      rejectUnauthorized: false,
      minVersion: 'TLSv1.1',
      maxVersion: 'TLSv1.1',
    })
    await expect(
      new Promise((resolve, reject) => socket.on('secureConnect', resolve).on('error', reject)),
    ).rejects.toThrow(/protocol version|no protocols/)
  })

  it.runIf(other !== undefined)('sends no key unencrypted to another host', async () => {
    const address = `http://${String(other)}:9`
    await expect(Client.connect(address, { key: keys.tenant('alice') })).rejects.toThrow(
      failure('ERR_RFAAS_INVALID_ARGUMENT', /not encrypted.*--allow-plaintext/),
    )
    const reader = events(`${address}/v1/leases/l-1/events`, { token: 'secret' })
    await expect(reader.next()).rejects.toThrow(
      failure('ERR_RFAAS_INVALID_ARGUMENT', /not encrypted/),
    )
  })
})

describe('a manager', () => {
  it.each([
    ['a key that others may read', (key: string) => chmodSync(key, 0o644), /chmod 600/],
    ['the key of another certificate', swapKey, /the key that of the certificate/],
    ['a key that is none', (key: string) => writeFileSync(key, 'none'), /must be PEM files/],
  ])('does not start with %s', async (_what, spoil, message) => {
    spoil(own.tlsKey)
    await expect(startManager(own)).rejects.toThrow(failure('ERR_RFAAS_INVALID_ARGUMENT', message))
  })

  function swapKey(key: string): void {
    copyFileSync(authority.issue('another').key, key)
  }

  it('serves a new certificate without a restart, and keeps the old one until it is whole', async () => {
    const { lines, logger } = recordingLogger()
    const url = await startManager({ ...own, logger })
    const { port } = new URL(url)
    const renewed = authority.issue('renewed')
    renameSync(renewed.key, own.tlsKey)
    await expect
      .poll(() => lines.filter((line) => line.includes('certificates not usable')).length, {
        timeout: 15_000,
      })
      .toBe(1)
    expect(await commonName(Number(port))).toBe('manager')
    renameSync(renewed.cert, own.tlsCert)
    await expect.poll(() => commonName(Number(port)), { timeout: 15_000 }).toBe('renewed')
  })

  it('is not held up at its end by connections that say nothing', async () => {
    const url = await startManager(own)
    const { connect: plain } = await import('node:net')
    const socket = plain(Number(new URL(url).port), '127.0.0.1')
    await new Promise((resolve) => socket.once('connect', resolve))
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.on('error', () => undefined)
    await cleanUp()
    await closed
  })
})

describe('a node', () => {
  it('needs its own certificate besides its key, when nodes have an authority', async () => {
    const nodes = new Authority('nodes')
    const url = await startManager({ ...own, keysFile: keys.path, nodeCa: nodes.certificate })
    const key = keys.node('node-1')
    const beat = (files: { cert?: string; key?: string }, token = key) =>
      request(`${url}/v1/nodes/node-1/heartbeat`, {
        method: 'POST',
        token,
        body: { hostId: 'h', leases: [] },
        transport: new Transport({ ca: authority.certificate, ...files }),
      })
    const refused = (message: RegExp) => failure('ERR_RFAAS_UNAUTHORIZED', message)
    await expect(beat({})).rejects.toThrow(refused(/certificate.*none was shown/))
    await expect(beat(authority.issue('node-1'))).rejects.toThrow(refused(/not valid/))
    await expect(beat(nodes.issue('node-2'))).rejects.toThrow(refused(/that of CN=node-2/))
    await expect(beat(nodes.issue('NODE-1'))).rejects.toThrow(refused(/that of CN=NODE-1/))
    const right = nodes.issue('node-1')
    await expect(beat(right, keys.node('node-2'))).rejects.toThrow(refused(/node-2/))
    // It is known, and has to register.
    await expect(beat(right)).rejects.toThrow(failure('ERR_RFAAS_NOT_FOUND', /register/))
    // Clients need none.
    const transport = new Transport({ ca: authority.certificate })
    await request(`${url}/v1/nodes`, { token: keys.tenant('alice'), transport, schema: NodeList })
  })

  it('proves itself anew on every connection: sessions are not resumed', async () => {
    const url = await startManager({ ...own, keysFile: keys.path, nodeCa: authority.certificate })
    const address = new URL(url).host
    for (const version of ['-tls1_2', '-tls1_3']) {
      const args = ['s_client', '-connect', address, version, '-reconnect', '-no_ign_eof']
      const running = promisify(execFile)('openssl', args, { timeout: 20_000 })
      running.child.stdin?.end('Q\n')
      const { stdout } = await running
      expect(stdout).toMatch(/^New, /m)
      expect(stdout).not.toMatch(/^Reused, /m)
    }
  })

  it('takes no token of another lease, tenant or node', async () => {
    const url = await startManager({ ...own, keysFile: keys.path })
    const ca = authority.certificate
    const start = (name: string) =>
      startNode({ name, resourceManager: url, key: keys.node(name), ca, ...own })
    const urls = { 'node-1': await start('node-1'), 'node-2': await start('node-2') }
    const transport = new Transport({ ca })
    const grant = (tenant: string, node: string) =>
      request(`${url}/v1/leases`, {
        method: 'POST',
        token: keys.tenant(tenant),
        transport,
        body: { cores: 1, memoryBytes: 2 ** 26, durationMs: 60_000, node },
        schema: LeaseGrant,
      })
    const alice = await grant('alice', 'node-1')
    const bob = await grant('bob', 'node-2')
    const end = (node: string, id: string, token: string | null | undefined) =>
      request(`${node}/v1/leases/${id}`, { method: 'DELETE', token: token ?? '', transport })
    const [token] = bob.tokens
    await expect(end(urls['node-1'], alice.lease.id, token)).rejects.toThrow(/is for node node-2/)
    await expect(end(urls['node-2'], alice.lease.id, token)).rejects.toThrow(/token is for lease/)
    await end(urls['node-1'], alice.lease.id, alice.tokens[0])
  })
})

/** Of the certificate that is served now. */
function commonName(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN))
      socket.destroy()
    }).on('error', reject)
  })
}
