import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { Type } from 'typebox'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { events, request } from '../../lib/control/http.js'
import { createLogger } from '../../lib/control/log.js'
import type { ErrorBody } from '../../lib/control/schemas.js'
import { LeaseRequest } from '../../lib/control/schemas.js'
import { createServer, type ControlServer, type ServerOptions } from '../../lib/control/server.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import { RfaasError } from '../../lib/errors.js'

let server: ControlServer
let url: string
let lines: string[]
let streams: EventStream[]

async function start(options: Partial<ServerOptions> = {}): Promise<void> {
  lines = []
  streams = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString())
      done()
    },
  })
  server = await createServer({
    title: 'test',
    logger: createLogger({ name: 'test', level: 'info', stream }),
    ...options,
  })
  server.app.post(
    '/echo',
    { schema: { body: LeaseRequest, response: { 200: LeaseRequest } } },
    (call) => call.body,
  )
  server.app.get('/things/:id', { schema: { response: { 200: Type.Object({}) } } }, () => {
    throw new RfaasError('ERR_RFAAS_LEASE_ENDED', 'the lease is over', { field: 'id' })
  })
  server.app.get('/broken', () => {
    throw new TypeError('a secret of the inside')
  })
  server.app.get('/slow', async () => {
    await delay(150)
    return {}
  })
  server.operation({
    method: 'GET',
    path: '/events',
    summary: 'events',
    answersEvents: true,
    handle: ({ events }) => void streams.push(events()),
  })
  url = await server.listen('127.0.0.1', 0)
}

beforeEach(() => start())
afterEach(() => server.close())

async function answer(path: string, init?: RequestInit): Promise<[number, ErrorBody['error']]> {
  const response = await fetch(url + path, init)
  return [response.status, ((await response.json()) as ErrorBody).error]
}

async function open(): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  await once(socket, 'connect')
  return socket
}

async function readAll(socket: Socket): Promise<string> {
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  socket.on('error', () => undefined)
  if (!socket.closed) await once(socket, 'close')
  return text
}

describe('a control server', () => {
  it('names field, value and what is allowed when a body is wrong', async () => {
    const init = {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ cores: 0, memoryBytes: 2 ** 20, durationMs: 1000 }),
    }
    expect(await answer('/echo', init)).toEqual([
      400,
      {
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        message: 'cores is 0, must be an integer from 1 to 4096',
        field: 'cores',
        allowed: 'an integer from 1 to 4096',
      },
    ])
  })

  it.each([
    ['broken JSON', 'application/json', '{"cores":', 400, /not valid JSON|JSON/],
    ['no JSON at all', 'application/json', '', 400, /empty/],
    ['another media type', 'text/html', '<p>', 415, /Media Type/],
    ['too much', 'application/json', `"${'x'.repeat(2 ** 20)}"`, 413, /longer/],
    ['a poisoned prototype', 'application/json', '{"__proto__":{}}', 400, /JSON/],
  ])('refuses %s in the same shape', async (_what, type, body, status, message) => {
    const init = { method: 'POST', headers: { 'content-type': type }, body }
    const [got, error] = await answer('/echo', init)
    expect(got).toBe(status)
    expect(error.code).toBe('ERR_RFAAS_INVALID_ARGUMENT')
    expect(error.message).toMatch(message)
  })

  it('answers unknown routes, methods and unreadable paths in the same shape', async () => {
    expect(await answer('/nothing?token=x')).toEqual([
      404,
      {
        code: 'ERR_RFAAS_NOT_FOUND',
        message: 'GET /nothing does not exist: see /openapi.json',
      },
    ])
    expect((await answer('/echo'))[0]).toBe(404)
    expect(await answer('/things/%zz')).toEqual([
      400,
      { code: 'ERR_RFAAS_INVALID_ARGUMENT', message: expect.stringMatching(/%zz/) as string },
    ])
  })

  it('passes errors of the product on with their code and keeps all others inside', async () => {
    expect(await answer('/things/1')).toEqual([
      409,
      { code: 'ERR_RFAAS_LEASE_ENDED', message: 'the lease is over', field: 'id' },
    ])
    const [status, error] = await answer('/broken')
    expect(status).toBe(500)
    expect(error.code).toBe('ERR_RFAAS_INTERNAL')
    expect(error.message).not.toContain('secret')
    expect(lines.join('')).toContain('a secret of the inside')
  })

  it('serves health, metrics with bounded labels, and a description with every route', async () => {
    await request(`${url}/healthz`, {
      schema: Type.Object({ status: Type.Literal('ok'), uptimeMs: Type.Integer() }),
    })
    await fetch(`${url}/no/such/path`)
    const metrics = await (await fetch(`${url}/metrics`)).text()
    expect(metrics).toMatch(/rfaas_http_request_duration_seconds_count\{.*route="\/healthz"/)
    expect(metrics).toContain('process_resident_memory_bytes')
    expect(metrics).not.toContain('/no/such/path')
    const description = (await (await fetch(`${url}/openapi.json`)).json()) as {
      paths: Record<string, { post?: { responses: object } }>
    }
    expect(Object.keys(description.paths)).toEqual(
      expect.arrayContaining(['/healthz', '/metrics', '/echo', '/things/{id}']),
    )
    expect(Object.keys(description.paths['/echo']?.post?.responses ?? {})).toEqual(
      expect.arrayContaining(['200', '4XX', '5XX']),
    )
  })

  it('answers garbage that goes on once, and logs it once', async () => {
    const socket = await open()
    socket.on('error', () => undefined)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.write(Buffer.alloc(8 * 1024 * 1024, 'this is not HTTP\r\n'))
    await closed
    expect(lines.filter((line) => line.includes('refused a malformed request'))).toHaveLength(1)
  })

  it('refuses garbage on a socket, logs it once and goes on serving others', async () => {
    const other = fetch(`${url}/slow`)
    const socket = await open()
    socket.write('\x16\x03\x01 this is not HTTP\r\n\r\n')
    const text = await readAll(socket)
    expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(JSON.parse(text.split('\r\n\r\n')[1] ?? '')).toEqual({
      error: { code: 'ERR_RFAAS_INVALID_ARGUMENT', message: 'this is not an HTTP request' },
    })
    expect((await other).status).toBe(200)
    expect(lines.filter((line) => line.includes('malformed'))).toHaveLength(1)
  })

  it('gives up on a request that trickles in', async () => {
    await server.close()
    await start({ requestTimeoutMs: 300 })
    const socket = await open()
    socket.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n')
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('never logs tokens or tickets', () => {
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        lines.push(chunk.toString())
        done()
      },
    })
    const logger = createLogger({ name: 'test', stream })
    lines.splice(0)
    const secret = 'do-not-show'
    logger.info({ token: secret, headers: { authorization: secret } }, 'one')
    logger.info({ workers: [{ ticket: secret }], grant: { token: secret } }, 'two')
    expect(lines).toHaveLength(2)
    expect(lines.join('')).not.toContain(secret)
  })
})

describe('an event stream', () => {
  it('delivers events in order, with data that contains line breaks', async () => {
    const reader = events(`${url}/events`)
    const first = reader.next()
    await expect.poll(() => streams.length).toBe(1)
    for (const text of ['one', 'two\r\n\r\ndata: forged', 'drei ✓']) {
      expect(streams[0]?.send('note', { text })).toBe(true)
    }
    expect((await first).value).toEqual({ event: 'note', data: { text: 'one' } })
    expect((await reader.next()).value).toEqual({
      event: 'note',
      data: { text: 'two\r\n\r\ndata: forged' },
    })
    expect((await reader.next()).value).toEqual({ event: 'note', data: { text: 'drei ✓' } })
    await reader.return()
  })

  it('notices a reader that leaves and calls its listeners once', async () => {
    const controller = new AbortController()
    const done = (async () => {
      for await (const event of events(`${url}/events`, { signal: controller.signal })) {
        throw new Error(`unexpected ${event.event}`)
      }
    })()
    await expect.poll(() => streams.length).toBe(1)
    let closes = 0
    streams[0]?.onClose(() => (closes += 1))
    controller.abort()
    await done
    await expect.poll(() => closes).toBe(1)
    expect(streams[0]?.closed).toBe(true)
    expect(streams[0]?.send('note', {})).toBe(false)
    streams[0]?.onClose(() => (closes += 1))
    expect(closes).toBe(2)
  })

  it('is kept alive by comments, which the reader does not see', async () => {
    await server.close()
    await start({ streamHeartbeatMs: 20 })
    const reader = events(`${url}/events`, { idleTimeoutMs: 1000 })
    const first = reader.next()
    await expect.poll(() => streams.length).toBe(1)
    await delay(1500)
    streams[0]?.send('note', 1)
    expect((await first).value).toEqual({ event: 'note', data: 1 })
    await reader.return()
  })

  it('delivers an event of any length to a reader that reads', async () => {
    const response = await fetch(`${url}/events`)
    await expect.poll(() => streams.length).toBe(1)
    const text = 'x'.repeat(3 * 2 ** 20)
    expect(streams[0]?.send('note', { text })).toBe(true)
    streams[0]?.end()
    const lines = (await response.text()).split('\n')
    expect(lines).toContain(`data: ${JSON.stringify({ text })}`)
  })

  it('is dropped when its reader does not read', async () => {
    const socket = await open()
    socket.pause()
    socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n')
    await expect.poll(() => streams.length).toBe(1)
    const text = 'x'.repeat(256 * 1024)
    let sent = 0
    while (sent < 1000 && streams[0]?.send('note', { text }) === true) sent += 1
    expect(sent).toBeLessThan(1000)
    await expect.poll(() => streams[0]?.closed).toBe(true)
    socket.destroy()
  })

  it('ends at once when the server closes, as does everything else', async () => {
    const reader = events(`${url}/events`)
    const first = reader.next()
    await expect.poll(() => streams.length).toBe(1)
    const slow = fetch(`${url}/slow`)
    await delay(50)
    const before = performance.now()
    await server.close()
    expect((await first).done).toBe(true)
    expect((await slow).status).toBe(200)
    // Well below the grace time after which connections are cut.
    expect(performance.now() - before).toBeLessThan(1500)
  })

  it('does not let a client that never finishes its request hold up the end', async () => {
    const socket = await open()
    socket.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n')
    const closed = readAll(socket)
    await delay(50)
    await server.close()
    await closed
  })
})
