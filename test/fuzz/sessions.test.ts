// Both ends of a session against a peer that sends anything, in pieces of any size.
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { events, request } from '../../lib/control/http.js'
import { inspect } from '../../lib/control/check.js'
import { Health } from '../../lib/control/schemas.js'
import { Asked, sessionPath, Told, upgradeName } from '../../lib/control/session-wire.js'
import { cleanUp, startManager } from '../resource-manager/support.js'
import { fromSchema, type Schema } from './from-schema.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const codes = ['ERR_RFAAS_PROTOCOL', 'ERR_RFAAS_UNAVAILABLE', 'ERR_RFAAS_NOT_FOUND'] as const

const lease = { cores: 1, memoryBytes: 1048576, durationMs: 5000 }
const asked = [
  { id: 1, method: 'POST', path: '/v1/leases', body: lease },
  { id: 2, method: 'GET', path: '/v1/leases?x=1' },
  { id: 1 },
  { id: 3, method: 'GET', path: '/v1/nodes/n%31/events', token: 'rfk_x' },
]
const told = [
  { id: 1, event: 'placed', data: {} },
  { id: 1, status: 200, body: { status: 'ok', uptimeMs: 1, warnings: [] } },
  { ending: true },
]

function linesOf(messages: readonly unknown[]): Buffer {
  return Buffer.from(messages.map((message) => `${JSON.stringify(message)}\n`).join(''))
}

describe('a manager', () => {
  afterAll(cleanUp)

  it(
    'answers what makes sense, hangs up on the rest, and serves whoever comes next',
    async () => {
      const { url } = await startManager()
      await fuzz({
        runs: 250,
        inputs: [
          fc.oneof(
            { arbitrary: mutated(linesOf(asked)), weight: 4 },
            fc.array(fromSchema(Asked as Schema), { maxLength: 4 }).map(linesOf),
            fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
          ),
          fc.nat(100),
        ],
        holds: async (bytes, at) => {
          const headers = { connection: 'Upgrade', upgrade: upgradeName }
          const sent = httpRequest(url + sessionPath, { headers }).end()
          const [, socket] = (await once(sent, 'upgrade')) as [unknown, Socket]
          let answer = ''
          socket.setEncoding('utf8').on('data', (text: string) => (answer += text))
          socket.on('error', () => undefined)
          const closed = new Promise((resolve) => socket.once('close', resolve))
          socket.write(bytes.subarray(0, at))
          socket.end(bytes.subarray(at))
          await closed
          const lines = answer.split('\n').slice(0, -1)
          for (const line of lines) expect(inspect(Told, JSON.parse(line))).toBeUndefined()
        },
      })
      expect((await fetch(`${url}/healthz`)).status).toBe(200)
    },
    patienceMs,
  )
})

describe('a client', () => {
  let pieces: readonly Buffer[] = []
  let sessions = 0
  /** The last connection has ended, and the client knows. */
  let ended: Promise<unknown> = Promise.resolve()
  let server: Server
  let url: string

  beforeAll(async () => {
    server = createServer((socket) => {
      socket.on('error', () => undefined)
      ended = new Promise((resolve) => socket.once('close', resolve))
      socket.once('data', (head: Buffer) => {
        if (!head.includes(upgradeName)) {
          socket.end('HTTP/1.1 404 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
          return
        }
        socket.write(`HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: ${upgradeName}\r\n\r\n`)
        sessions += 1
        socket.once('data', () => {
          for (const piece of pieces) socket.write(piece)
          socket.end()
        })
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => server.close())

  it.each([
    ['an answer', () => request(`${url}/healthz`, { inSession: true, schema: Health })],
    [
      'events',
      async () => {
        for await (const { event } of events(`${url}/e`, { inSession: true })) {
          expect(typeof event).toBe('string')
        }
      },
    ],
  ])(
    'takes from a session what fits (%s), or says what is wrong',
    async (_what, ask) => {
      sessions = 0
      await fuzz({
        runs: 200,
        inputs: [mutated(linesOf(told)), fc.nat(100)],
        holds: async (bytes, at) => {
          pieces = [bytes.subarray(0, at), bytes.subarray(at)]
          await refusal(ask, ...codes)
          await ended
        },
      })
      expect(sessions).toBe(200)
    },
    patienceMs,
  )
})
