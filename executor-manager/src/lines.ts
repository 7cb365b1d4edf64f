// Reading from a process that may send anything: lines of bounded length, at a bounded rate.
import type { Readable } from 'node:stream'

export interface LineHandlers {
  line(text: string): void
  /** A line exceeded `maxBytes`. 'cut' hands its first part to `line` and drops the rest. */
  tooLong(): 'cut' | 'end'
}

/** Calls back for each line of the stream; what follows the last line end counts as a line. */
export function readLines(stream: Readable, maxBytes: number, handlers: LineHandlers): void {
  let parts: Buffer[] = []
  let length = 0
  let dropping = false
  let done = false

  const flush = (): void => {
    if (length > 0 && !dropping) handlers.line(Buffer.concat(parts, length).toString('utf8'))
    parts = []
    length = 0
    dropping = false
  }
  const take = (part: Buffer): void => {
    if (dropping || done || part.byteLength === 0) return
    const room = maxBytes - length
    parts.push(part.subarray(0, room))
    length += Math.min(part.byteLength, room)
    if (part.byteLength <= room) return
    if (handlers.tooLong() === 'end') {
      done = true
      return
    }
    flush()
    dropping = true
  }

  stream.on('data', (chunk: Buffer) => {
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1 && !done; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      if (done) return
      flush()
      start = end + 1
    }
    take(chunk.subarray(start))
  })
  stream.on('end', () => {
    if (!done) flush()
  })
  // The other end is gone: `close` follows, and the process's exit says why.
  stream.on('error', () => undefined)
}

/** At most `perSecond` in each second; counts what it refused since it last let one through. */
export class RateLimit {
  readonly #perSecond: number
  #windowStart = 0
  #taken = 0
  #refused = 0

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  take(): boolean {
    const now = performance.now()
    if (now - this.#windowStart >= 1000) {
      this.#windowStart = now
      this.#taken = 0
    }
    if (this.#taken >= this.#perSecond) {
      this.#refused += 1
      return false
    }
    this.#taken += 1
    return true
  }

  takeRefused(): number {
    const refused = this.#refused
    this.#refused = 0
    return refused
  }
}
