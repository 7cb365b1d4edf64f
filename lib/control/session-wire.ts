// A session: one connection to a manager that carries many requests, their answers and its events. It
// begins as an HTTP request with `Upgrade: rfaas-session` on the manager's port (RFC 9110, 7.8), so
// it is found, encrypted and passed through firewalls like every other. Then both sides send lines of JSON.
//
// Whoever asks:   {"id":1,"method":"POST","path":"/v1/leases","token":"rfk_…","body":{…}}
//                 {"id":1}                                       nobody waits for the answer any more
// The manager:    {"id":1,"status":201,"body":{…}}               the answer
//                 {"id":2,"event":"worker-lost","data":{…}}      of a request for events; the first is "open"
//                 {"id":2,"status":204}                          no more of them
//                 {"ending":true}                                it takes no more requests in this session
//                 an empty line                                  a sign of life
//
// Requests are short. A long one is sent by HTTP: there its head says whose it is before anything of its body is
// read. Answers may be long.
//
// Between two processes of Node.js such a line costs a fifth of an HTTP request, and there and back takes
// a quarter of the time when both had slept.
import { Type, type Static } from 'typebox'

export const upgradeName = 'rfaas-session'
export const sessionPath = '/v1/session'

/** In characters of JSON. */
export const longestBody = 32 * 1024
/** In bytes, of whoever asks: with a body, and a token that names every core of a large node. */
export const longestLine = 256 * 1024

const closed = { additionalProperties: false }

/** What comes from whoever asks; without a method, the request with this id is given up. */
export const Asked = Type.Object(
  {
    id: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    method: Type.Optional(Type.String({ maxLength: 10 })),
    path: Type.Optional(Type.String({ minLength: 1, maxLength: 4096 })),
    token: Type.Optional(Type.String({ minLength: 1, pattern: '^[^\\s]+$' })),
    body: Type.Optional(Type.Unknown()),
  },
  closed,
)
export type Asked = Static<typeof Asked>

/** What comes from the manager. */
export const Told = Type.Object(
  {
    id: Type.Optional(Type.Integer({ minimum: 1 })),
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599 })),
    body: Type.Optional(Type.Unknown()),
    event: Type.Optional(Type.String()),
    data: Type.Optional(Type.Unknown()),
    ending: Type.Optional(Type.Literal(true)),
  },
  closed,
)
export type Told = Static<typeof Told>

/** Bytes as they arrive, cut into lines. Holds one line that is not complete yet, of `limit` bytes at
 * most. */
export class LineReader {
  readonly #limit: number
  #parts: Buffer[] = []
  #held = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Whether a line has begun and not ended. */
  get partial(): boolean {
    return this.#held > 0
  }

  /** The lines that are complete now; throws a RangeError when one is too long. */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      this.#hold(chunk.subarray(from, at))
      lines.push(
        (this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts)).toString(),
      )
      this.#parts = []
      this.#held = 0
      from = at + 1
    }
    if (from < chunk.length) this.#hold(chunk.subarray(from))
    return lines
  }

  #hold(bytes: Buffer): void {
    this.#held += bytes.length
    if (this.#held > this.#limit) throw new RangeError(`a line longer than ${this.#limit} bytes`)
    this.#parts.push(bytes)
  }
}
