// Server-sent events, the side that sends them.
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import { invalidArgument } from '../errors.js'
import type { Asker } from './operations.js'

const maxUnreadBytes = 1024 * 1024

/** A stream of events to one reader. */
export interface EventStream {
  /** False when the stream is closed, or was just closed because its reader does not keep up. */
  send(event: string, data: unknown): boolean
  end(): void
  readonly closed: boolean
  /** Called once, at once if the stream is closed already. */
  onClose(listener: () => void): void
}

/** A stream, and who follows it. */
export interface OpenStream extends EventStream {
  readonly asker: Asker
}

export class SseStream implements OpenStream {
  readonly asker: Asker
  readonly #raw: ServerResponse
  readonly #timer: NodeJS.Timeout
  readonly #listeners: (() => void)[] = []
  #closed = false

  constructor(reply: FastifyReply, open: Set<OpenStream>, heartbeatMs: number) {
    this.asker = reply.request
    reply.hijack()
    this.#raw = reply.raw
    this.#raw.on('close', () => {
      this.#closed = true
      clearInterval(this.#timer)
      open.delete(this)
      for (const listener of this.#listeners.splice(0)) listener()
    })
    // A write to a connection that has just gone: `close` follows and cleans up.
    this.#raw.on('error', () => undefined)
    this.#raw.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      // A stream ends with its connection, so that a closing server has nothing to wait for.
      connection: 'close',
    })
    // The head leaves with the first bytes: the reader knows now that it is subscribed.
    this.#raw.write(': open\n\n')
    this.#timer = setInterval(() => this.#write(': alive\n\n'), heartbeatMs)
    open.add(this)
  }

  get closed(): boolean {
    return this.#closed
  }

  send(event: string, data: unknown): boolean {
    if (/[\r\n]/.test(event)) throw invalidArgument('event', event, 'one line')
    return this.#write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  end(): void {
    this.#closed = true
    clearInterval(this.#timer)
    this.#raw.end()
  }

  onClose(listener: () => void): void {
    if (this.#raw.closed) listener()
    else this.#listeners.push(listener)
  }

  #write(text: string): boolean {
    if (this.#closed) return false
    // What is written now counts at the next write: it may be long, and has had no time to leave.
    if (this.#raw.writableLength <= maxUnreadBytes) {
      this.#raw.write(text)
      return true
    }
    // Its reader is stuck. It has to reconnect and catch up by asking for the state.
    this.#closed = true
    this.#raw.destroy()
    return false
  }
}
