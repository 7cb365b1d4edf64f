// What a hostile worker writes to its executor manager: lines in pieces of any size, events that are
// none.
import { PassThrough } from 'node:stream'
import { once } from 'node:events'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readLines } from '../../executor-manager/src/lines.js'
import { parseWorkerEvent } from '../../executor-manager/src/worker-events.js'
import { fuzz, mutated, patienceMs } from './fuzz.js'

const maxBytes = 32
const ready = '{"event":"ready","address":"/run/w0","functions":["echo","thumbnail"]}'
const kinds = ['ready', 'error', 'connected', 'disconnected', 'refused', 'running', 'timeout']
const known = [...kinds, 'unconfined']

describe("a worker's lines", () => {
  it(
    'are the same whatever the pieces that they come in, and none is longer than allowed',
    () =>
      fuzz({
        runs: 1500,
        inputs: [
          fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 12 }),
          fc.constantFrom<'cut' | 'end'>('cut', 'end'),
        ],
        holds: async (pieces, policy) => {
          const whole = Buffer.concat(pieces)
          const lines: string[] = []
          let tooLong = 0
          const stream = new PassThrough()
          readLines(stream, maxBytes, {
            line: (text) => lines.push(text),
            tooLong: () => {
              tooLong += 1
              return policy
            },
          })
          const ended = once(stream, 'end')
          for (const piece of pieces) stream.write(piece)
          stream.end()
          await ended

          const expected: string[] = []
          let long = 0
          for (const line of splitLines(whole)) {
            if (line.length > maxBytes) long += 1
            if (line.length > maxBytes && policy === 'end') break
            if (line.length > 0) expected.push(line.subarray(0, maxBytes).toString('utf8'))
          }
          expect(lines).toEqual(expected)
          expect(tooLong).toBe(long)
        },
      }),
    patienceMs,
  )

  it(
    'are events or ended with what is wrong',
    () =>
      fuzz({
        runs: 2000,
        inputs: [
          fc.oneof(
            mutated(Buffer.from(ready)).map((bytes) => bytes.toString('utf8')),
            fc.json(),
            fc.string({ maxLength: 50 }),
            fc
              .tuple(fc.constantFrom(...kinds), fc.dictionary(fc.string(), fc.jsonValue()))
              .map(([event, more]) => JSON.stringify({ ...more, event })),
          ),
        ],
        holds: (line) => {
          const event = parseWorkerEvent(line)
          if (typeof event === 'string') expect(event).toMatch(/^sent an event that/)
          else expect(known).toContain(event.event)
        },
      }),
    patienceMs,
  )
})

function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  let rest = bytes
  for (let end = rest.indexOf(10); end !== -1; end = rest.indexOf(10)) {
    lines.push(rest.subarray(0, end))
    rest = rest.subarray(end + 1)
  }
  return [...lines, rest]
}
