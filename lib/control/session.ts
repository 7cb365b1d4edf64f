// The asking side of a session (session-wire.ts): one connection to a manager for all requests to it. Its
// process may end while nothing is asked.
import type { Socket } from 'node:net'
import { check } from './check.js'
import { withResolvers } from './promise.js'
import { LineReader, Told, type Asked } from './session-wire.js'

const maxLineBytes = 64 * 1024 * 1024
// The manager gives a sign of life every 15 s while it has something to answer (server.ts): silent for
// longer, it is lost. Without requests the session ends, well before the manager would end it.
const silentMs = 45_000

export interface SessionAnswer {
  status: number
  body: unknown
}

export interface AskedInSession {
  /** Rejects with a plain Error when the session ends before it. */
  answer: Promise<SessionAnswer>
  /** Nobody waits for it any more. */
  giveUp(reason: Error): void
}

interface Waiting {
  answer(answer: SessionAnswer): void
  fail(error: Error): void
  event: ((event: string, data: unknown) => void) | undefined
}

export class Session {
  readonly #socket: Socket
  readonly #lines = new LineReader(maxLineBytes)
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #usable = true

  /** The session's from now on; `head` came with the answer that began it. */
  constructor(socket: Socket, head: Buffer) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 15_000)
    socket.unref()
    // Those of the HTTP agent it came from.
    socket.removeAllListeners('timeout')
    socket.setTimeout(silentMs, () => {
      if (this.#waiting.size === 0) this.retire()
      else socket.destroy(new Error(`silent for ${silentMs / 1000} s`))
    })
    socket.on('data', (chunk) => this.#take(chunk))
    let reason: Error | undefined
    socket.on('error', (error) => (reason = error))
    socket.once('close', () => {
      this.retire()
      for (const waiting of this.#waiting.values()) waiting.fail(reason ?? hungUp())
      this.#waiting.clear()
    })
    socket.once('end', () => this.retire())
    if (head.length > 0) this.#take(head)
  }

  /** Whether it takes further requests. */
  get usable(): boolean {
    return this.#usable
  }

  /** Takes no more requests: it seems not to be heard. Those that run go on. */
  retire(): void {
    this.#usable = false
    if (this.#waiting.size === 0) this.#socket.end()
  }

  /** `body`: JSON. `onEvent`: asks for events, as many as come before the answer. */
  ask(
    request: Omit<Asked, 'id' | 'body'>,
    body: string | undefined,
    onEvent?: (event: string, data: unknown) => void,
  ): AskedInSession {
    const id = ++this.#lastId
    const { promise: answer, resolve, reject } = withResolvers<SessionAnswer>()
    if (!this.#socket.writable) {
      reject(hungUp())
      return { answer, giveUp: () => undefined }
    }
    if (this.#waiting.size === 0) this.#socket.ref()
    this.#waiting.set(id, { answer: resolve, fail: reject, event: onEvent })
    const head = JSON.stringify({ id, ...request })
    this.#write(body === undefined ? head : `${head.slice(0, -1)},"body":${body}}`)
    const giveUp = (reason: Error): void => {
      if (!this.#waiting.has(id)) return
      this.#done(id)
      this.#write(JSON.stringify({ id }))
      reject(reason)
    }
    return { answer, giveUp }
  }

  #done(id: number): void {
    this.#waiting.delete(id)
    if (this.#waiting.size > 0) return
    this.#socket.unref()
    if (!this.#usable) this.#socket.end()
  }

  #write(line: string): void {
    if (this.#socket.writable) this.#socket.write(`${line}\n`)
  }

  #take(chunk: Buffer): void {
    try {
      for (const line of this.#lines.push(chunk)) if (line !== '') this.#read(line)
    } catch (error) {
      this.#socket.destroy(error as Error)
    }
  }

  #read(line: string): void {
    const told = check(Told, JSON.parse(line), 'a line of a session')
    if (told.ending === true) return this.retire()
    // One that was given up is answered all the same.
    const waiting = this.#waiting.get(told.id ?? 0)
    if (waiting === undefined) return
    if (told.status !== undefined) {
      this.#done(told.id!)
      waiting.answer({ status: told.status, body: told.body })
    } else if (told.event !== undefined) {
      waiting.event?.(told.event, told.data)
    }
  }
}

function hungUp(): Error {
  return Object.assign(new Error('the manager closed the connection'), { code: 'ECONNRESET' })
}
