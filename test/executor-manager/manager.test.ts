// The executor manager without workers: tokens, code, input, and its line to the resource manager.
import { createHash, generateKeyPairSync } from 'node:crypto'
import { chmodSync, readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { ExecutorInfo } from '../../lib/control/schemas.js'
import { signToken } from '../../lib/control/token.js'
import { startExecutorManager } from '../../executor-manager/src/index.js'
import { chooseCores, parseCoreList } from '../../executor-manager/src/node.js'
import {
  answer,
  childrenOf,
  claimsOf,
  cleanUp,
  eventually,
  listen,
  MiB,
  scriptManager,
  small,
  startExecutor,
  startNode,
  temporaryDirectory,
  upload,
} from './support.js'

afterEach(cleanUp)

const sha = (text: string): string => createHash('sha256').update(text).digest('hex')
const functions = 'export const echo = (i, o) => { o.set(i); return i.length }'

describe('tokens', () => {
  it('that are missing, forged, expired or for something else open nothing', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const stranger = generateKeyPairSync('ed25519').privateKey
    const wrong: [string, string | undefined, string][] = [
      ['none', undefined, 'no lease token'],
      ['nonsense', 'abc', 'malformed'],
      ['forged', signToken(claimsOf(), stranger), 'not signed by'],
      ['expired', script.token({ expiresAtMs: Date.now() - 1 }), 'expired at'],
      ['of another node', script.token({ node: 'node-2' }), 'is for node node-2'],
    ]
    const routes = [
      ['PUT', `/v1/code/${sha('x')}`],
      ['POST', '/v1/executors'],
      ['DELETE', '/v1/executors/x-1'],
      ['GET', '/v1/leases/l-1/events'],
      ['PUT', '/v1/leases/l-1/token'],
      ['DELETE', '/v1/leases/l-1'],
    ] as const
    for (const [what, token, words] of wrong) {
      for (const [method, path] of routes) {
        const { status, code, message } = await answer(url, method, path, { token })
        expect([status, code], `${what}: ${method} ${path}`).toEqual([
          401,
          'ERR_RFAAS_UNAUTHORIZED',
        ])
        expect(message).toContain(words)
      }
    }
  })

  it('of one lease do not reach another', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    for (const [method, path, body] of [
      ['GET', '/v1/leases/l-2/events', undefined],
      ['DELETE', '/v1/leases/l-2', undefined],
      ['PUT', '/v1/leases/l-2/token', { token }],
    ] as const) {
      expect((await answer(url, method, path, { token, body })).status, method).toBe(403)
    }
    const other = script.token({ lease: 'l-2' })
    const renewal = await answer(url, 'PUT', '/v1/leases/l-1/token', {
      token,
      body: { token: other },
    })
    expect(renewal.status).toBe(403)
  })

  it('for cores that the node does not lend are refused', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const body = { ...small, runtime: 'node', package: sha('x') }
    const foreign = script.token({ cores: [60_000] })
    expect(await answer(url, 'POST', '/v1/executors', { token: foreign, body })).toMatchObject({
      status: 403,
    })
  })

  it('of a renewal move the expiry, older ones do not move it back', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const short = script.token({ expiresAtMs: Date.now() + 400 })
    const heard = listen(url, 'l-1', short)
    const renewed = script.token({ expiresAtMs: Date.now() + 1500, epoch: 2 })
    const put = { method: 'PUT', token: short, body: { token: renewed } } as const
    await eventually(
      () => request(`${url}/v1/leases/l-1/token`, put).then(() => true),
      'the renewal arrives',
    )
    await request(`${url}/v1/leases/l-1/token`, { ...put, body: { token: short } })
    const from = Date.now()
    expect(await heard.next('lease-ended')).toEqual({ reason: 'expired' })
    expect(Date.now() - from).toBeGreaterThan(700)
    await eventually(() => script.closed[0]?.lease === 'l-1', 'the end is confirmed')
  })
})

describe('input', () => {
  it('that is wrong is refused with the name of the field, on every route', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    const good = { ...small, runtime: 'node', package: sha('x') }
    const bad: [method: string, path: string, body: unknown, field: string][] = [
      ['PUT', '/v1/code/abc', {}, 'sha256'],
      ['PUT', `/v1/code/${sha('x').toUpperCase()}`, {}, 'sha256'],
      ['POST', '/v1/executors', { ...good, package: '../../etc/passwd' }, 'package'],
      ['POST', '/v1/executors', { ...good, package: undefined }, 'package'],
      ['POST', '/v1/executors', { ...good, runtime: 'python' }, 'runtime'],
      ['POST', '/v1/executors', { ...good, provider: 'tcp' }, 'provider'],
      ['POST', '/v1/executors', { ...good, slots: 0 }, 'slots'],
      ['POST', '/v1/executors', { ...good, slots: '8' }, 'slots'],
      ['POST', '/v1/executors', { ...good, payloadBytes: 2 ** 40 }, 'payloadBytes'],
      ['POST', '/v1/executors', { ...good, outputBytes: 1.5 }, 'outputBytes'],
      ['POST', '/v1/executors', { ...good, hotTimeoutMs: -1 }, 'hotTimeoutMs'],
      ['POST', '/v1/executors', { ...good, user: 'root' }, 'user'],
      ['DELETE', '/v1/executors/%20', undefined, 'id'],
      ['PUT', '/v1/leases/l-1/token', { token: 5 }, 'token'],
      ['PUT', '/v1/leases/l-1/token', {}, 'token'],
      ['GET', '/v1/leases/a%20b/events', undefined, 'id'],
      ['DELETE', '/v1/leases/%0a', undefined, 'id'],
    ]
    for (const [method, path, body, field] of bad) {
      const refused = await answer(url, method, path, { token, body })
      expect([refused.status, refused.field], `${method} ${path} ${JSON.stringify(body)}`).toEqual([
        400,
        field,
      ])
    }
  })

  it('that asks for more buffers than the lease has memory is refused with the sums', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const body = { ...small, runtime: 'node', package: sha('x'), slots: 64, payloadBytes: MiB }
    const refused = await answer(url, 'POST', '/v1/executors', { token: script.token(), body })
    expect(refused).toMatchObject({ status: 409, code: 'ERR_RFAAS_NO_CAPACITY', field: 'slots' })
    expect(refused.message).toContain('need 64.3 MiB')
    expect(refused.message).toContain('has 64 MiB left')
  })

  it('of options is refused before anything is started', async () => {
    const wrong: [object, string][] = [
      [{ host: '0.0.0.0' }, 'host'],
      [{ host: '0.0.0.0', allowPlaintext: true }, 'advertise'],
      [{ host: '::', allowPlaintext: true }, 'advertise'],
      [{ port: 70_000 }, 'port'],
      [{ name: 'a b' }, 'name'],
      [{ cores: 0 }, 'cores'],
      [{ cores: '60000' }, 'cores'],
      [{ cores: '3-1' }, 'cores'],
      [{ memoryBytes: '1EiB' }, 'memoryBytes'],
      [{ resourceManager: 'file:///etc' }, 'resourceManager'],
      [{ verbsAddress: 'somewhere' }, 'verbsAddress'],
      [{ providers: ['tcp'] }, 'providers'],
      [{ runtimeDir: '/'.padEnd(90, 'x') }, 'runtimeDir'],
      [{ graceMs: '5' }, 'graceMs'],
    ]
    for (const [options, field] of wrong) {
      await expect(startExecutorManager(options), JSON.stringify(options)).rejects.toMatchObject({
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        field,
      })
    }
    expect(parseCoreList('0-2,8,1')).toEqual([0, 1, 2, 8])
    expect(chooseCores('4,2', [1, 2, 4])).toEqual([2, 4])
    expect(chooseCores(2, [1, 2, 4])).toEqual([1, 2])
  })
})

describe('code', () => {
  it('is stored once, under its own hash, whoever uploads it at the same time', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const { url } = await startNode(script.url, { dataDir })
    const token = script.token()
    await Promise.all(Array.from({ length: 8 }, () => upload(url, token, functions)))
    await request(`${url}/v1/code/${sha(functions)}`, { method: 'HEAD', token })
    const packages = join(dataDir, 'packages')
    expect(readdirSync(packages)).toEqual([sha(functions)])
    expect(readFileSync(join(packages, sha(functions)), 'utf8')).toBe(functions)
    expect(statSync(join(packages, sha(functions))).mode & 0o777).toBe(0o444)
    expect(statSync(packages).mode & 0o777).toBe(0o700)
    const metrics = await (await fetch(`${url}/metrics`)).text()
    expect(metrics).toMatch(/^rfaas_node_packages_stored_total [1-8]$/m)
  })

  it('that does not match its hash, is empty or too long is refused and leaves nothing', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const { url } = await startNode(script.url, { dataDir, maxPackageBytes: 1024 })
    const token = script.token()
    const put = (name: string, body: string | ReadableStream): Promise<Response> =>
      fetch(`${url}/v1/code/${name}`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' },
        body,
        duplex: 'half',
      } as RequestInit)
    expect((await put(sha('a'), 'b')).status).toBe(400)
    expect((await put(sha(''), '')).status).toBe(400)
    expect((await put(sha('a'), 'a'.repeat(2000))).status).toBe(413)
    // Without a length, only what has arrived tells.
    const chunks = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(512)),
    })
    const status = await put(sha('a'), chunks).then(
      (response) => response.status,
      () => 413, // the connection was closed while the body was still being sent
    )
    expect(status).toBe(413)
    await eventually(
      () => readdirSync(join(dataDir, 'packages')).length === 0,
      'nothing is left of the uploads',
    )
  })

  it('that is short may come with the request to start it, and is kept if it has its hash', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const { url } = await startNode(script.url, { dataDir })
    const token = script.token()
    const start = (code: Buffer): Promise<ExecutorInfo> =>
      request(`${url}/v1/executors`, {
        ...{ method: 'POST', token, schema: ExecutorInfo },
        body: {
          ...{ runtime: 'node', ...small },
          ...{ package: sha(functions), code: code.toString('base64') },
        },
      })
    await expect(start(Buffer.from(`${functions} `))).rejects.toMatchObject({
      ...{ status: 400, code: 'ERR_RFAAS_PACKAGE', field: 'sha256' },
    })
    await expect(start(Buffer.alloc(70_000))).rejects.toMatchObject({ status: 400, field: 'code' })
    expect(readdirSync(join(dataDir, 'packages'))).toEqual([])
    expect((await start(Buffer.from(functions))).workers).toHaveLength(1)
    await request(`${url}/v1/code/${sha(functions)}`, { method: 'HEAD', token })
    // It is here: what comes along is not looked at.
    expect((await start(Buffer.from('something else'))).workers).toHaveLength(1)
  })

  it('that was damaged while the node was away is as if it were not there', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const first = await startNode(script.url, { dataDir })
    await upload(first.url, script.token(), functions)
    await first.close()
    const path = join(dataDir, 'packages', sha(functions))
    chmodSync(path, 0o644)
    truncateSync(path, 10)
    const { url } = await startNode(script.url, { dataDir })
    const token = script.token()
    const head = { method: 'HEAD', token } as const
    await expect(request(`${url}/v1/code/${sha(functions)}`, head)).rejects.toMatchObject({
      status: 404,
    })
    await upload(url, token, functions)
    await request(`${url}/v1/code/${sha(functions)}`, head)
    expect(readFileSync(path, 'utf8')).toBe(functions)
  })

  it('that nothing uses makes room for new code', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const { url } = await startNode(script.url, { dataDir, maxStoreBytes: 250 })
    const token = script.token()
    for (const letter of ['a', 'b', 'c']) {
      await upload(url, token, letter.repeat(100))
      await new Promise((resolve) => setTimeout(resolve, 10)) // file times tell their order
    }
    const kept = ['b', 'c'].map((letter) => sha(letter.repeat(100))).sort()
    expect(readdirSync(join(dataDir, 'packages')).sort()).toEqual(kept)
  })
})

describe('the line to the resource manager', () => {
  it('is looked for until there is one, and again when the node is forgotten', async () => {
    const keys = generateKeyPairSync('ed25519')
    const absent = await scriptManager(0, keys)
    const port = Number(new URL(absent.url).port)
    await absent.close()
    const { url } = await startNode(absent.url)
    const token = signToken(claimsOf(), keys.privateKey)
    expect(await answer(url, 'DELETE', '/v1/leases/l-1', { token })).toMatchObject({ status: 503 })
    const script = await scriptManager(port, keys)
    await eventually(() => script.heartbeats.length > 0, 'the node registers')
    expect(script.registrations[0]).toMatchObject({ name: 'node-1', url, leases: [] })
    script.forgotten = true
    await eventually(() => script.registrations.length > 1, 'the node registers again')
  })

  it('may be cut: leases go on, and their end is confirmed when it is back', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    await startExecutor(url, token, functions)
    await eventually(() => script.active.includes('l-1'), 'the lease is reported as active')
    script.status = 503
    await script.close()
    expect(childrenOf(process.pid)).toHaveLength(1)
    await request(`${url}/v1/leases/l-1`, { method: 'DELETE', token })
    expect(childrenOf(process.pid)).toEqual([])
    const keys = {
      privateKey: script.privateKey,
      publicKey: generateKeyPairSync('ed25519').publicKey,
    }
    const back = await scriptManager(Number(new URL(script.url).port), keys)
    await eventually(() => back.closed.length > 0, 'the end is confirmed')
    // It was still in the list of the node, or it would have been closed without what it used.
    expect(back.registrations[0]?.leases).toEqual(['l-1'])
    expect(back.closed[0]?.lease).toBe('l-1')
    expect(back.closed[0]?.used.heldMs).toBeGreaterThan(0)
  })

  it('ends leases by event and by heartbeat; their tokens are worth nothing after that', async () => {
    const script = await scriptManager()
    const { url } = await startNode(script.url)
    const token = script.token()
    const heard = listen(url, 'l-1', token)
    await startExecutor(url, token, functions)
    await eventually(
      () => script.streams[0]?.send('end', { lease: 'l-1', reason: 'revoked' }),
      'stream',
    )
    expect(await heard.next('lease-ended')).toEqual({ reason: 'revoked' })
    await eventually(() => script.closed.length === 1, 'the end is confirmed')
    expect(childrenOf(process.pid)).toEqual([])
    expect(await answer(url, 'GET', '/v1/leases/l-1/events', { token })).toMatchObject({
      status: 409,
      code: 'ERR_RFAAS_LEASE_ENDED',
    })
    // One that never came to the node is confirmed all the same, once.
    script.end = ['l-2']
    await eventually(() => script.closed.length === 2, 'the second end is confirmed')
    const beats = script.heartbeats.length
    await eventually(() => script.heartbeats.length > beats + 2, 'heartbeats go on')
    expect(script.closed.slice(1)).toEqual([{ lease: 'l-2', used: { heldMs: 0, cpuMs: 0 } }])
  })
})
