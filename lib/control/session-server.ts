// The manager's side of sessions (session-wire.ts). What arrives is from another process, perhaps a hostile
// one: lines are bounded in length and in the time that they may take, requests in number, and what
// nobody reads is not written any further.
import { STATUS_CODES, type IncomingMessage, type Server } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { RfaasError, invalidArgument } from '../errors.js'
import { keepAliveMs } from './caller.js'
import { check, checkArgument } from './check.js'
import type { OpenStream } from './event-stream.js'
import type { Logger } from './log.js'
import { statusOf, type Asker, type Call, type OperationTable } from './operations.js'
import { badRequest, bodyOf, translate } from './refusal.js'
import {
  Asked,
  LineReader,
  longestLine,
  sessionPath,
  upgradeName,
  type Told,
} from './session-wire.js'

// At a time in one session. Whoever needs more opens another one, or asks by HTTP.
const mostRequests = 1024
// What may wait to be read: an answer may be long, but then nothing else is taken until it has left.
const maxUnreadBytes = 1024 * 1024
const maxUnreadEventBytes = 8 * 1024 * 1024
const lingerMs = 2000

export interface SessionOptions {
  operations: OperationTable
  /** Throws when whoever asks may not: before anything of the body is looked at. */
  admit(asker: Asker): void
  /** Sessions are refused while it is false. */
  open(): boolean
  /** In which a line must have arrived. */
  lineTimeoutMs: number
  /** Silence after which a session without requests ends. */
  idleMs: number
  heartbeatMs: number
  /** When a request is answered. */
  answered(request: { method: string; route: string; status: number; seconds: number }): void
  /** Events that go out now, for whoever looks after all of them. */
  streams: Set<OpenStream>
  logger: Logger
}

export class Sessions {
  readonly #options: SessionOptions
  readonly #sessions = new Set<Session>()

  constructor(options: SessionOptions) {
    this.#options = options
  }

  /** Takes requests to upgrade. Others of that kind are refused: the server speaks nothing else. */
  listen(server: Pick<Server, 'on'>): void {
    server.on('upgrade', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
      if (!(stream instanceof Socket)) throw new TypeError('a connection that is no socket')
      const socket = stream
      // It may be gone already.
      socket.on('error', () => socket.destroy())
      const asked = request.headers.upgrade?.toLowerCase() === upgradeName
      if (!asked || request.method !== 'GET' || request.url !== sessionPath) {
        const allowed = `Upgrade: ${upgradeName} with GET ${sessionPath}, or no Upgrade at all`
        refuse(socket, 400, invalidArgument('upgrade', request.headers.upgrade, allowed))
      } else if (!this.#options.open()) {
        const message = 'no sessions here now: requests are served all the same'
        refuse(socket, 503, new RfaasError('ERR_RFAAS_UNAVAILABLE', message))
      } else {
        socket.write(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${upgradeName}\r\n\r\n`,
        )
        const session = new Session(socket, request.headers.host ?? '', this.#options)
        this.#sessions.add(session)
        socket.once('close', () => this.#sessions.delete(session))
        if (head.length > 0) session.take(head)
      }
    })
  }

  /** Each ends when the requests that run in it are answered. */
  end(): void {
    for (const session of this.#sessions) session.end()
  }

  destroy(): void {
    for (const session of this.#sessions) session.destroy()
  }
}

class Session {
  readonly #socket: Socket
  readonly #hostname: string
  readonly #options: SessionOptions
  readonly #lines = new LineReader(longestLine)
  readonly #running = new Map<number, AbortController>()
  readonly #heartbeat: NodeJS.Timeout
  #lineTimer: NodeJS.Timeout | undefined
  #ending = false

  /** `host`: what it was asked under, with or without a port. */
  constructor(socket: Socket, host: string, options: SessionOptions) {
    this.#socket = socket
    this.#hostname = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
    this.#options = options
    socket.setNoDelay(true)
    // A host that vanishes is noticed, however long an answer takes.
    socket.setKeepAlive(true, keepAliveMs)
    // The one of HTTP would cut it.
    socket.removeAllListeners('timeout')
    socket.setTimeout(options.idleMs, () => this.#running.size === 0 && this.end())
    socket.on('data', (chunk) => this.take(chunk))
    // Nobody listens there any more.
    socket.once('end', () => socket.destroy())
    socket.on('drain', () => socket.resume())
    socket.once('close', () => {
      clearInterval(this.#heartbeat)
      clearTimeout(this.#lineTimer)
      for (const caller of this.#running.values()) caller.abort()
    })
    this.#heartbeat = setInterval(() => {
      if (this.#running.size > 0) socket.write('\n')
    }, options.heartbeatMs).unref()
  }

  take(chunk: Buffer): void {
    try {
      for (const line of this.#lines.push(chunk)) if (line !== '') this.#read(line)
    } catch (error) {
      // Not what is spoken here. There is no telling what the rest would mean.
      const { remoteAddress: remote } = this.#socket
      this.#options.logger.warn({ remote, err: error }, 'a session ends that makes no sense')
      this.destroy()
      return
    }
    if (this.#lines.partial) {
      this.#lineTimer ??= setTimeout(() => this.destroy(), this.#options.lineTimeoutMs).unref()
    } else {
      clearTimeout(this.#lineTimer)
      this.#lineTimer = undefined
    }
  }

  /** Takes no more requests; ends when those that run are answered. */
  end(): void {
    if (this.#ending) return
    this.#ending = true
    this.#tell({ ending: true })
    this.#endWhenDone()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  #read(line: string): void {
    if (line.includes('"__proto__"')) throw new SyntaxError('a poisoned prototype')
    const { id, method, path, token, body } = check(Asked, JSON.parse(line), 'a line of a session')
    if (method === undefined) {
      this.#running.get(id)?.abort()
      return
    }
    if (path === undefined || this.#running.has(id))
      throw new SyntaxError(`request ${id} of nothing, or twice`)
    if (this.#ending || this.#running.size >= mostRequests) {
      const reason = this.#ending ? 'this session ends' : 'too many requests in one session'
      const error = new RfaasError('ERR_RFAAS_UNAVAILABLE', `${reason}: try again`)
      this.#tell({ id, status: 503, body: bodyOf(error) })
      return
    }
    const caller = new AbortController()
    this.#running.set(id, caller)
    void this.#answer(id, caller, method, path, token, body)
  }

  async #answer(
    id: number,
    caller: AbortController,
    method: string,
    path: string,
    token: string | undefined,
    body: unknown,
  ): Promise<void> {
    const { operations, admit, answered, logger } = this.#options
    const began = performance.now()
    const [plain = '', search] = path.split('?', 2)
    const found = operations.find(method, plain)
    const route = found?.operation.path ?? 'unknown'
    const opened: SessionStream[] = []
    let status: number
    let answer: unknown
    try {
      if (found === undefined) {
        const message = `${method} ${plain.slice(0, 200)} does not exist: see /openapi.json`
        throw new RfaasError('ERR_RFAAS_NOT_FOUND', message, { status: 404 })
      }
      const { operation, params } = found
      const asker = this.#asker(method, route, token)
      admit(asker)
      operation.admit?.(asker)
      const query = Object.fromEntries(new URLSearchParams(search))
      const call: Call = {
        asker,
        params: operation.params
          ? checkArgument(operation.params, decoded(params), 'params')
          : params,
        query: operation.query ? checkArgument(operation.query, query, 'querystring') : query,
        body: operation.body ? checkArgument(operation.body, body ?? null, 'body') : undefined,
        caller: () => caller.signal,
        events: () => {
          const stream = new SessionStream(asker, caller, (told) => this.#event(id, told))
          opened.push(stream)
          return stream
        },
      }
      const result: unknown = await operation.handle(call)
      if (operation.answer !== undefined) answer = result
      for (const stream of opened) await this.#last(stream)
      status = statusOf(operation)
    } catch (error) {
      const known = translate(error)
      const place = { method, route, err: error }
      if (known.status === 500) logger.error(place, 'request failed')
      else logger.debug(place, 'request refused')
      status = known.status
      answer = bodyOf(known)
      for (const stream of opened) stream.end()
    }
    this.#running.delete(id)
    this.#tell({ id, status, ...(answer !== undefined && { body: answer }) })
    // Never what was sent: clients must not be able to create time series.
    const known = found === undefined ? 'unknown' : method
    answered({ method: known, route, status, seconds: (performance.now() - began) / 1000 })
    this.#endWhenDone()
  }

  /** With the last answer read, the other side hangs up. */
  #endWhenDone(): void {
    if (!this.#ending || this.#running.size > 0) return
    this.#socket.end()
    setTimeout(() => this.destroy(), lingerMs).unref()
  }

  /** Resolves when its reader is gone or there are no more events. */
  async #last(stream: SessionStream): Promise<void> {
    const { streams } = this.#options
    streams.add(stream)
    await new Promise<void>((resolve) => stream.onClose(resolve))
    streams.delete(stream)
  }

  #asker(method: string, url: string, token: string | undefined): Asker {
    return {
      method,
      routeOptions: { url },
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      ip: this.#socket.remoteAddress ?? '',
      hostname: this.#hostname,
      socket: this.#socket,
    }
  }

  #event(id: number, told: Pick<Told, 'event' | 'data'>): boolean {
    if (this.#socket.writableLength <= maxUnreadEventBytes) return this.#tell({ id, ...told })
    // Its reader is stuck. It has to come again and catch up by asking for the state.
    this.destroy()
    return false
  }

  #tell(told: Told): boolean {
    if (!this.#socket.writable) return false
    this.#socket.write(`${JSON.stringify(told)}\n`)
    // Who does not read is not heard either.
    if (this.#socket.writableLength > maxUnreadBytes) this.#socket.pause()
    return true
  }
}

class SessionStream implements OpenStream {
  readonly asker: Asker
  readonly #caller: AbortController
  readonly #write: (told: Pick<Told, 'event' | 'data'>) => boolean

  /** `caller` aborts when the stream is over, whoever ends it. */
  constructor(
    asker: Asker,
    caller: AbortController,
    write: (told: Pick<Told, 'event' | 'data'>) => boolean,
  ) {
    this.asker = asker
    this.#caller = caller
    this.#write = write
    // The reader knows now that it is subscribed.
    write({ event: 'open' })
  }

  get closed(): boolean {
    return this.#caller.signal.aborted
  }

  send(event: string, data: unknown): boolean {
    return !this.closed && this.#write({ event, data })
  }

  end(): void {
    this.#caller.abort()
  }

  onClose(listener: () => void): void {
    if (this.closed) listener()
    else this.#caller.signal.addEventListener('abort', listener, { once: true })
  }
}

function decoded(params: Record<string, string>): Record<string, string> {
  try {
    return Object.fromEntries(
      Object.entries(params).map(([name, value]) => [name, decodeURIComponent(value)]),
    )
  } catch {
    throw badRequest(`the path has an escape that is none: ${Object.values(params).join(' ')}`)
  }
}

function refuse(socket: Socket, status: number, error: RfaasError): void {
  const body = JSON.stringify(bodyOf(error))
  socket.write(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  // Whether or not the other side hangs up.
  socket.destroySoon()
}
