// Bytes on a manager's port that are no request, or nearly one: the connection ends with an answer of
// HTTP or without, and the next client is served.
import { once } from 'node:events'
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, expect, it } from 'vitest'
import { cleanUp, startManager } from '../resource-manager/support.js'
import { fuzz, mutated, patienceMs } from './fuzz.js'

afterAll(cleanUp)

const body = '{"cores":1,"memoryBytes":1048576,"durationMs":5000}'
const request = Buffer.from(
  `POST /v1/leases HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
)
const chunked = Buffer.from(
  'PUT /v1/nodes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n' +
    '5\r\n12345\r\n0\r\n\r\n',
)

it(
  'bytes that are no request are answered as such or hung up on',
  async () => {
    const { url } = await startManager()
    const port = Number(new URL(url).port)
    await fuzz({
      runs: 200,
      inputs: [
        fc.oneof(
          { arbitrary: mutated(request), weight: 4 },
          { arbitrary: mutated(chunked), weight: 2 },
          // A request hides in the body of another.
          fc.tuple(mutated(request), mutated(request)).map((both) => Buffer.concat(both)),
          fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
          fc.nat(200_000).map((length) => Buffer.from(`GET /${'a'.repeat(length)} HTTP/1.1\r\n`)),
        ),
        fc.nat(100),
      ],
      holds: async (bytes, at) => {
        const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
        let answer = ''
        socket.setEncoding('latin1').on('data', (text: string) => (answer += text))
        socket.on('error', () => undefined)
        const closed = once(socket, 'close')
        socket.write(bytes.subarray(0, at))
        socket.end(bytes.subarray(at))
        await closed
        if (answer !== '') expect(answer).toMatch(/^HTTP\/1\.1 [1-4]\d\d /)
      },
    })
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
  },
  patienceMs,
)
