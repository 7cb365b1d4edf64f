// What a client makes of answers and event streams: from a server that sends anything, in pieces of
// any size.
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { events, request, type ServerEvent } from '../../lib/control/http.js'
import { inspect } from '../../lib/control/check.js'
import { ErrorBody, LeaseGrant, LeaseInfo } from '../../lib/control/schemas.js'
import { fromSchema, type Schema } from './from-schema.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

/** The server's next answer, in pieces. */
let pieces: readonly Buffer[] = []
let server: Server
let url: string

beforeAll(async () => {
  server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => {
      for (const piece of pieces) socket.write(piece)
      socket.end()
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())

const status = fc.constantFrom(200, 201, 204, 302, 400, 401, 404, 409, 500, 503)
const head = (code: number, type: string): string =>
  `HTTP/1.1 ${code} X\r\nConnection: close\r\nContent-Type: ${type}\r\n\r\n`

/** Cuts `bytes` at some of its places. */
function inPieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  return [...places, bytes.length].map((end, index) => bytes.subarray(places[index - 1] ?? 0, end))
}

const cuts = fc.array(fc.nat(4096), { maxLength: 6 })
const codes = [
  'ERR_RFAAS_PROTOCOL',
  'ERR_RFAAS_UNAVAILABLE',
  'ERR_RFAAS_NOT_FOUND',
  'ERR_RFAAS_UNAUTHORIZED',
] as const

describe('a client', () => {
  it(
    'takes from an answer what fits its schema, or says what is wrong',
    () =>
      fuzz({
        runs: 250,
        inputs: [
          status,
          fc.oneof(
            fromSchema(LeaseGrant as Schema).map((value) => Buffer.from(JSON.stringify(value))),
            fromSchema(ErrorBody as Schema).map((value) => Buffer.from(JSON.stringify(value))),
            fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
          ),
          cuts,
        ],
        holds: async (code, body, places) => {
          pieces = inPieces(
            Buffer.concat([Buffer.from(head(code, 'application/json')), body]),
            places,
          )
          const failure = await request(`${url}/v1/leases/x`, { schema: LeaseInfo }).then(
            (value) => expect(inspect(LeaseInfo, value)).toBeUndefined(),
            (error: unknown) => error,
          )
          if (failure === undefined) return
          // An answer may say any code of ours.
          const { code: said, message } = failure as { code: string; message: string }
          expect(said).toMatch(/^ERR_RFAAS_[A-Z_]+$/)
          expect(typeof message).toBe('string')
        },
      }),
    patienceMs,
  )

  it(
    'survives what is no answer at all',
    () =>
      fuzz({
        runs: 200,
        inputs: [mutated(Buffer.from(`${head(200, 'application/json')}{"a":1}`)), cuts],
        holds: async (bytes, places) => {
          pieces = inPieces(bytes, places)
          await refusal(() => request(url, { timeoutMs: 5000 }), ...codes)
        },
      }),
    patienceMs,
  )

  it(
    'reads the same events whatever the pieces that they come in',
    () =>
      fuzz({
        runs: 250,
        inputs: [
          fc.array(
            fc.record({
              event: fc.stringMatching(/^[a-z-]{1,12}$/),
              data: fc.jsonValue({ maxDepth: 2 }),
              comment: fc.boolean(),
            }),
            { maxLength: 6 },
          ),
          fc.constantFrom('\n', '\r\n', '\r'),
          cuts,
        ],
        holds: async (sent, end, places) => {
          const text = sent
            .map(
              ({ event, data, comment }) =>
                `${comment ? `: still here${end}` : ''}event: ${event}${end}` +
                `data: ${JSON.stringify(data)}${end}${end}`,
            )
            .join('')
          pieces = inPieces(Buffer.from(head(200, 'text/event-stream') + text), places)
          const seen: ServerEvent[] = []
          for await (const event of events(url)) seen.push(event)
          const expected = sent.map(({ event, data }) => ({
            event,
            data: JSON.parse(JSON.stringify(data)) as unknown,
          }))
          // A carriage return at the very end may be half of a line end: its event is not complete.
          if (end === '\r' && seen.length === expected.length - 1) expected.pop()
          expect(seen).toEqual(expected)
        },
      }),
    patienceMs,
  )

  it(
    'reads a broken stream up to where it breaks, and says so',
    () =>
      fuzz({
        runs: 200,
        inputs: [
          mutated(Buffer.from('event: end\ndata: {"lease":"l-1"}\n\n: alive\n\nid: 7\ndata\n\n')),
          cuts,
        ],
        holds: async (bytes, places) => {
          const start = Buffer.from(head(200, 'text/event-stream'))
          pieces = inPieces(Buffer.concat([start, bytes]), places)
          await refusal(
            async () => {
              for await (const { event } of events(url)) expect(typeof event).toBe('string')
            },
            ...codes,
          )
        },
      }),
    patienceMs,
  )
})
