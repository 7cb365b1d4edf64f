// One connection that carries many requests and their events, next to requests of HTTP.
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import type { Socket } from 'node:net'
import { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { Type } from 'typebox'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

import type { EventStream } from '../../lib/control/event-stream.js'
import { events, request, type ServerEvent } from '../../lib/control/http.js'
import { createLogger } from '../../lib/control/log.js'
import { createServer, type ControlServer, type ServerOptions } from '../../lib/control/server.js'
import { RfaasError } from '../../lib/errors.js'

const Things = Type.Object({ count: Type.Integer({ minimum: 1 }) }, { additionalProperties: false })
const inSession = true
const garbage: [what: string, line: string][] = [
  ['no JSON', 'GET / HTTP/1.1\n'],
  ['no object', '[1]\n'],
  ['no id', '{"method":"GET","path":"/healthz"}\n'],
  ['an unknown field', '{"id":1,"method":"GET","path":"/healthz","more":1}\n'],
  ['a poisoned prototype', '{"id":1,"method":"POST","path":"/things/a","body":{"__proto__":1}}\n'],
  ['a method without a path', '{"id":1,"method":"GET"}\n'],
  ['one id twice', '{"id":1,"method":"GET","path":"/wait"}\n'.repeat(2)],
  ['a line without an end', `{"id":1,"path":"${'x'.repeat(2 ** 19)}`],
]

let server: ControlServer
let url: string
let log: string
let upgrades: number
let streams: EventStream[]
/** Connections to the server. */
const open = new Set<unknown>()
/** Of requests to /wait: until they are answered, and why they were given up. */
let waiting: { answer: () => void; caller: AbortSignal }[]

async function start(options: Partial<ServerOptions> = {}): Promise<void> {
  log = ''
  upgrades = 0
  open.clear()
  streams = []
  waiting = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      log += chunk.toString()
      done()
    },
  })
  const logger = createLogger({ name: 'test', level: 'info', stream })
  server = await createServer({ title: 'test', logger, ...options })
  server.app.server.prependListener('upgrade', () => (upgrades += 1))
  server.app.server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  server.operation({
    method: 'POST',
    path: '/things/:name',
    summary: 'things',
    params: Type.Object({ name: Type.String({ pattern: '^[a-z ]+$' }) }),
    query: Type.Object(
      { twice: Type.Optional(Type.Literal('yes')) },
      { additionalProperties: false },
    ),
    body: Things,
    status: 201,
    answer: Type.Object({ name: Type.String(), count: Type.Integer() }),
    handle: ({ params, query, body }) => {
      if (params.name === 'broken') throw new TypeError('a secret of the inside')
      if (params.name === 'over') {
        throw new RfaasError('ERR_RFAAS_LEASE_ENDED', 'the lease is over', { field: 'name' })
      }
      return { name: params.name, count: query.twice === 'yes' ? 2 * body.count : body.count }
    },
  })
  server.operation({
    method: 'GET',
    path: '/wait',
    summary: 'waits',
    handle: ({ caller }) =>
      new Promise<void>((resolve) => waiting.push({ answer: resolve, caller: caller() })),
  })
  server.operation({
    method: 'GET',
    path: '/events',
    summary: 'events',
    answersEvents: true,
    handle: (call) => void streams.push(call.events()),
  })
  url = await server.listen('127.0.0.1', 0)
}

beforeEach(() => start())
afterEach(() => server.close())

async function until(what: () => boolean): Promise<void> {
  while (!what()) await delay(2)
}

/** A session by hand. */
async function upgrade(): Promise<Socket> {
  const headers = { connection: 'Upgrade', upgrade: 'rfaas-session' }
  const sent = httpRequest(`${url}/v1/session`, { headers }).end()
  const [, socket] = (await once(sent, 'upgrade')) as [unknown, Socket]
  socket.on('error', () => undefined)
  return socket
}

async function outcome(path: string, body: unknown, session: boolean): Promise<unknown> {
  const schema = Type.Unknown()
  try {
    return await request(url + path, { method: 'POST', body, schema, inSession: session })
  } catch (error) {
    const { code, message, field, status, allowed } = error as RfaasError
    return { code, message, field, status, allowed }
  }
}

describe('a session', () => {
  it.each([
    ['an answer', '/things/a', { count: 3 }],
    ['a query', '/things/a?twice=yes', { count: 3 }],
    ['an escaped parameter', '/things/a%20b', { count: 3 }],
    ['a wrong query', '/things/a?thrice=yes', { count: 3 }],
    ['a wrong parameter', '/things/A', { count: 3 }],
    ['a wrong body', '/things/a', { count: 0 }],
    ['a field too many', '/things/a', { count: 1, more: 1 }],
    ['no body', '/things/a', undefined],
    ['an error of the product', '/things/over', { count: 1 }],
    ['an error of the inside', '/things/broken', { count: 1 }],
    ['an unknown path', '/nothing', { count: 1 }],
  ])('answers like HTTP: %s', async (_what, path, body) => {
    const [asked, alone] = [await outcome(path, body, true), await outcome(path, body, false)]
    expect(asked).toEqual(alone)
    expect(upgrades).toBe(1)
    expect(JSON.stringify(asked)).not.toMatch(/secret/)
  })

  it('carries requests side by side, each answered when it is', async () => {
    const slow = request(`${url}/wait`, { inSession })
    await until(() => waiting.length === 1)
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    waiting[0]!.answer()
    await slow
    expect(upgrades).toBe(1)
  })

  it('leaves long requests to HTTP, where the head is looked at first', async () => {
    let alone = 0
    server.app.server.on('request', () => (alone += 1))
    const long = { count: 1, more: 'ä'.repeat(40_000) }
    const short = { count: 1, more: 'ä'.repeat(30_000) }
    expect(await outcome('/things/a', short, true)).toEqual(
      await outcome('/things/a', short, false),
    )
    expect(alone).toBe(1)
    expect(await outcome('/things/a', long, true)).toEqual(await outcome('/things/a', long, false))
    expect(alone).toBe(3)
  })

  it('tells the manager when a caller gives up, and goes on', async () => {
    const abort = new AbortController()
    const asked = request(`${url}/wait`, { inSession, signal: abort.signal })
    await until(() => waiting.length === 1)
    abort.abort()
    await expect(asked).rejects.toMatchObject({ code: 'ERR_RFAAS_ABORTED' })
    await until(() => waiting[0]!.caller.aborted)
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    expect(upgrades).toBe(1)
  })

  it('is left for another one when an answer does not come in time; what else runs in it goes on', async () => {
    const patient = request(`${url}/wait`, { inSession })
    await until(() => waiting.length === 1)
    const hasty = request(`${url}/wait`, { inSession, timeoutMs: 20 })
    await expect(hasty).rejects.toMatchObject({
      code: 'ERR_RFAAS_UNAVAILABLE',
      message: expect.stringMatching(/no answer within 20 ms/) as string,
    })
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    expect(upgrades).toBe(2)
    waiting[0]!.answer()
    await patient
  })

  it('delivers events in order, until the manager ends them', async () => {
    const got: ServerEvent[] = []
    let opened = 0
    const onOpen = (): void => void (opened += 1)
    const reading = (async () => {
      for await (const event of events(`${url}/events`, { inSession, onOpen })) got.push(event)
    })()
    await until(() => streams.length === 1)
    const text = 'two\nlines'
    for (let i = 0; i < 100; ++i) streams[0]!.send('number', { i, text })
    streams[0]!.end()
    await reading
    expect(opened).toBe(1)
    expect(got).toEqual(
      Array.from({ length: 100 }, (_, i) => ({ event: 'number', data: { i, text } })),
    )
    expect(streams[0]!.send('number', {})).toBe(false)
  })

  it('tells the manager when a reader leaves', async () => {
    let closed = 0
    for await (const { event } of (async function* () {
      const all = events(`${url}/events`, { inSession })
      const first = all.next()
      await until(() => streams.length === 1)
      streams[0]!.onClose(() => (closed += 1))
      streams[0]!.send('one', {})
      yield (await first).value as ServerEvent
      await all.return()
    })()) {
      expect(event).toBe('one')
    }
    await until(() => closed === 1)
    expect(streams[0]!.closed).toBe(true)
  })

  it('ends with its manager: who waits hears so, events end, and a new one takes over', async () => {
    const asked = request(`${url}/wait`, { inSession })
    const reading = (async () => {
      for await (const _event of events(`${url}/events`, { inSession }));
    })()
    await until(() => waiting.length === 1 && streams.length === 1)
    const { port } = new URL(url)
    const closing = server.close()
    await reading
    waiting[0]!.answer()
    await asked
    await closing
    await expect(request(`${url}/healthz`, { inSession })).rejects.toMatchObject({
      code: 'ERR_RFAAS_UNAVAILABLE',
    })
    await start()
    await server.close()
    server = await createServer({
      title: 'next',
      logger: createLogger({ name: 'n', level: 'silent' }),
    })
    url = await server.listen('127.0.0.1', Number(port))
    await request(`${url}/healthz`, { inSession })
  })

  it('ends when nothing is asked for a while, and the next request has another one', async () => {
    await server.close()
    await start({ connectionTimeoutMs: 50 })
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    await until(() => open.size === 0)
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    expect(upgrades).toBe(2)
  })

  it('does not let a request without an answer hold up the end of its manager', async () => {
    const asked = request(`${url}/wait`, { inSession })
    asked.catch(() => undefined)
    await until(() => waiting.length === 1)
    await server.close()
    await expect(asked).rejects.toMatchObject({ code: 'ERR_RFAAS_UNAVAILABLE' })
    await until(() => waiting[0]!.caller.aborted)
  })

  it('is no condition: where there is none, requests are sent one by one', async () => {
    await server.close()
    let open = false
    await start({ hasSessions: () => open })
    expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    const reading = events(`${url}/events`, { inSession })
    const first = reading.next()
    await until(() => streams.length === 1)
    streams[0]!.send('one', {})
    expect((await first).value).toEqual({ event: 'one', data: {} })
    await reading.return()
    open = true
    // It is not asked for at once.
    await outcome('/things/a', { count: 1 }, true)
    expect(upgrades).toBe(1)
  })

  it('is asked at the door for each request', async () => {
    await server.close()
    server = await createServer({
      title: 'test',
      logger: createLogger({ name: 'test', level: 'silent' }),
    })
    server.door.guard(server.app, { 'GET /guarded': ['operator'] })
    server.operation({
      method: 'GET',
      path: '/guarded',
      summary: 'guarded',
      handle: () => undefined,
    })
    url = await server.listen('127.0.0.1', 0)
    await request(`${url}/guarded`, { inSession })
    // Led here under a name of somebody else, as a web page may be.
    const headers = { connection: 'Upgrade', upgrade: 'rfaas-session', host: 'elsewhere.example' }
    const sent = httpRequest(`${url}/v1/session`, { headers }).end()
    const [, socket] = (await once(sent, 'upgrade')) as [unknown, Socket]
    socket.write(
      '{"id":1,"method":"GET","path":"/guarded"}\n{"id":2,"method":"GET","path":"/healthz"}\n',
    )
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
    await until(() => text.split('\n').length > 2)
    const told = text
      .split('\n')
      .slice(0, 2)
      .map((line) => JSON.parse(line) as object)
    expect(told).toContainEqual(expect.objectContaining({ id: 1, status: 401 }))
    expect(told).toContainEqual(expect.objectContaining({ id: 2, status: 200 }))
    socket.destroy()
  })
})

describe('whoever opens a session', () => {
  it.each(garbage)(
    'is cut off when it sends %s, once and for all, and is logged',
    async (_what, line) => {
      const socket = await upgrade()
      socket.write(line)
      socket.resume()
      await until(() => socket.closed)
      expect(log.match(/makes no sense/g)).toHaveLength(1)
      expect(await outcome('/things/a', { count: 1 }, true)).toEqual({ name: 'a', count: 1 })
    },
  )

  it('is cut off when a line does not end in time', async () => {
    await server.close()
    await start({ requestTimeoutMs: 50 })
    const socket = await upgrade()
    socket.write('{"id":1,')
    socket.resume()
    await until(() => socket.closed)
  })

  it('is heard however its lines are cut', async () => {
    const socket = await upgrade()
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const line = '{"id":7,"method":"POST","path":"/things/ä","body":{"count":1}}\n\n'
    const bytes = Buffer.from(line.replace('ä', 'a') + line.replace('7', '8'))
    for (const byte of bytes) socket.write(Buffer.of(byte))
    await until(() => text.split('\n').length > 2)
    const told = text.split('\n').map((told) => (told === '' ? {} : JSON.parse(told)) as object)
    expect(told).toContainEqual({ id: 7, status: 201, body: { name: 'a', count: 1 } })
    expect(told).toContainEqual(expect.objectContaining({ id: 8, status: 400 }))
    socket.destroy()
  })

  it('has no more than so many requests at a time', async () => {
    const socket = await upgrade()
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
    for (let id = 1; id <= 1025; ++id) socket.write(`{"id":${id},"method":"GET","path":"/wait"}\n`)
    await until(() => text.includes('\n'))
    expect(JSON.parse(text)).toMatchObject({ id: 1025, status: 503 })
    expect(waiting).toHaveLength(1024)
    socket.destroy()
    await until(() => waiting.every(({ caller }) => caller.aborted))
  })

  it('is refused any other protocol, with a reason', async () => {
    const headers = { connection: 'Upgrade', upgrade: 'websocket' }
    const sent = httpRequest(`${url}/v1/session`, { headers }).end()
    const [response] = (await once(sent, 'response')) as [
      NodeJS.ReadableStream & { statusCode: number },
    ]
    expect(response.statusCode).toBe(400)
    let text = ''
    for await (const chunk of response) text += String(chunk)
    expect(text).toMatch(/must be Upgrade: rfaas-session with GET/)
  })

  it('cannot make time series of its own', async () => {
    const socket = await upgrade()
    socket.write('{"id":1,"method":"BREW","path":"/coffee"}\n')
    await once(socket, 'data')
    socket.destroy()
    const metrics = await server.registry.metrics()
    expect(metrics).toMatch(
      /duration_seconds_count\{method="unknown",route="unknown",status="404"\} 1/,
    )
    expect(metrics).not.toMatch(/BREW|coffee/)
  })
})
