// The client side of the control plane: JSON requests and server-sent events over the global fetch.
// What comes back is from another process: bounded, parsed, checked against its schema.
import type { Static, TSchema } from 'typebox'
import { RfaasError, type ErrorCode } from '../errors.js'
import { check, inspect } from './check.js'
import { ErrorBody } from './schemas.js'

export { check, checkArgument } from './check.js'

const defaultTimeoutMs = 10_000
const maxAnswerBytes = 64 * 1024 * 1024
const maxEventBytes = 1024 * 1024
// Servers send a comment every 15 s (server.ts): a stream silent for longer has lost its server.
const defaultIdleTimeoutMs = 45_000

export interface CallOptions {
  /** Lease token, sent as `Authorization: Bearer`. */
  token?: string | undefined
  signal?: AbortSignal | undefined
  /** For the whole request; for `events()`, until the stream is open. Default 10 s. */
  timeoutMs?: number | undefined
}

export interface RequestOptions extends CallOptions {
  method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Bytes go as they are (application/octet-stream), anything else as JSON. */
  body?: unknown
}

export interface EventsOptions extends CallOptions {
  /** Ends the stream with ERR_RFAAS_UNAVAILABLE when not even a comment came for so long. */
  idleTimeoutMs?: number
}

export interface ServerEvent {
  event: string
  /** The parsed JSON of the event: to be checked by whoever knows its schema. */
  data: unknown
}

/** The checked answer of a manager. Without a `schema` the answer's body is ignored. */
export async function request<S extends TSchema>(
  url: string,
  options: RequestOptions & { schema: S },
): Promise<Static<S>>
export async function request(url: string, options?: RequestOptions): Promise<void>
export async function request(
  url: string,
  options: RequestOptions & { schema?: TSchema } = {},
): Promise<unknown> {
  const method = options.method ?? 'GET'
  using call = new Call(`${method} ${url}`, url, options)
  const response = await call.open(method, options.body)
  const text = await call.text(response)
  if (!response.ok) throw errorFrom(call.name, response, text)
  if (options.schema === undefined) return undefined
  return check(options.schema, parseJson(text, call.name, response), `the answer to ${call.name}`)
}

/** Server-sent events, in order. Ends when the server ends the stream or `signal` aborts; throws
 * ERR_RFAAS_UNAVAILABLE when the server cannot be reached or is gone. Leaving the loop closes it. */
export async function* events(
  url: string,
  options: EventsOptions = {},
): AsyncGenerator<ServerEvent, void, undefined> {
  using call = new Call(`GET ${url}`, url, options)
  try {
    const response = await call.open('GET', undefined, 'text/event-stream')
    if (!response.ok) throw errorFrom(call.name, response, await call.text(response))
    const type = response.headers.get('content-type') ?? 'none'
    if (!type.startsWith('text/event-stream') || response.body === null) {
      throw protocolError(call.name, `content type ${type} instead of text/event-stream`)
    }
    const idleMs = options.idleTimeoutMs ?? defaultIdleTimeoutMs
    const parser = new EventParser(call.name)
    call.restartTimer(idleMs)
    for await (const chunk of call.chunks(response.body)) {
      call.restartTimer(idleMs)
      yield* parser.push(chunk)
    }
  } catch (error) {
    if (options.signal?.aborted === true) return
    throw error instanceof RfaasError ? error : call.failure(error)
  }
}

/** One fetch with its deadline. Timer and listener live exactly as long as the call: AbortSignal.any
 * would keep every call reachable from a long-lived signal. */
class Call {
  readonly name: string
  readonly #url: string
  readonly #options: CallOptions
  readonly #controller = new AbortController()
  readonly #onAbort = (): void => this.#controller.abort()
  // fetch() holds its signal weakly: after a garbage collection an abort may no longer reach it. So
  // nothing here waits for fetch() alone.
  readonly #aborted: Promise<never>
  #timer: NodeJS.Timeout | undefined
  #limitMs = 0
  #timedOut = false

  constructor(name: string, url: string, options: CallOptions) {
    this.name = name
    this.#url = url
    this.#options = options
    const { signal } = this.#controller
    this.#aborted = new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    this.#aborted.catch(() => undefined)
    if (options.signal?.aborted === true) this.#controller.abort()
    options.signal?.addEventListener('abort', this.#onAbort, { once: true })
    this.restartTimer(options.timeoutMs ?? defaultTimeoutMs)
  }

  restartTimer(limitMs: number): void {
    clearTimeout(this.#timer)
    this.#limitMs = limitMs
    this.#timer = setTimeout(() => {
      this.#timedOut = true
      this.#controller.abort()
    }, limitMs)
  }

  async open(method: string, body: unknown, accept = 'application/json'): Promise<Response> {
    const headers: Record<string, string> = { accept }
    if (this.#options.token !== undefined)
      headers['authorization'] = `Bearer ${this.#options.token}`
    const init: RequestInit = {
      method,
      headers,
      signal: this.#controller.signal,
      // A redirect would carry the token to somebody else.
      redirect: 'error',
    }
    if (body instanceof Uint8Array) {
      headers['content-type'] = 'application/octet-stream'
      init.body = body as Uint8Array<ArrayBuffer>
    } else if (body !== undefined) {
      headers['content-type'] = 'application/json'
      init.body = JSON.stringify(body)
    }
    try {
      return await Promise.race([fetch(this.#url, init), this.#aborted])
    } catch (error) {
      throw this.failure(error)
    }
  }

  /** The body of an answer until it ends; throws when the call is aborted. */
  async *chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = body.getReader()
    try {
      for (;;) {
        const { done, value } = await Promise.race([reader.read(), this.#aborted])
        if (done) return
        yield value
      }
    } finally {
      void reader.cancel().catch(() => undefined)
    }
  }

  async text(response: Response): Promise<string> {
    if (response.body === null) return ''
    const chunks: Uint8Array[] = []
    let length = 0
    try {
      for await (const chunk of this.chunks(response.body)) {
        length += chunk.byteLength
        if (length > maxAnswerBytes) {
          throw protocolError(this.name, `an answer longer than ${maxAnswerBytes} bytes`)
        }
        chunks.push(chunk)
      }
    } catch (error) {
      throw error instanceof RfaasError ? error : this.failure(error)
    }
    return Buffer.concat(chunks).toString('utf8')
  }

  failure(error: unknown): RfaasError {
    if (this.#timedOut) {
      return new RfaasError(
        'ERR_RFAAS_UNAVAILABLE',
        `${this.name}: no answer within ${this.#limitMs} ms: check that the manager is alive and the network lets it through`,
      )
    }
    if (this.#options.signal?.aborted === true) {
      return new RfaasError('ERR_RFAAS_ABORTED', `${this.name} was aborted by its caller`, {
        cause: this.#options.signal.reason,
      })
    }
    return new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `${this.name} failed: ${causeOf(error)}: check that the manager runs and that its URL is right`,
      { cause: error },
    )
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
    // Frees the socket of an answer that was not read to its end; no effect on a finished one.
    this.#controller.abort()
  }
}

/** Incremental parser of text/event-stream; holds at most one event of `maxEventBytes`. */
class EventParser {
  readonly #name: string
  readonly #decoder = new TextDecoder()
  #rest = ''
  #event = ''
  #data: string[] = []
  #size = 0

  constructor(name: string) {
    this.#name = name
  }

  *push(chunk: Uint8Array): Generator<ServerEvent> {
    this.#rest += this.#decoder.decode(chunk, { stream: true })
    // A carriage return at the very end may be half of a CRLF: it waits for the next chunk.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/)
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      const event = this.#line(line)
      if (event !== undefined) yield event
    }
    if (this.#size + this.#rest.length > maxEventBytes) {
      throw protocolError(this.#name, `an event longer than ${maxEventBytes} bytes`)
    }
  }

  #line(line: string): ServerEvent | undefined {
    if (line === '') return this.#dispatch()
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.#event = value
    if (field === 'data') {
      this.#data.push(value)
      this.#size += value.length
      if (this.#size > maxEventBytes) {
        throw protocolError(this.#name, `an event longer than ${maxEventBytes} bytes`)
      }
    }
    return undefined
  }

  #dispatch(): ServerEvent | undefined {
    const text = this.#data.join('\n')
    const event = this.#event === '' ? 'message' : this.#event
    const empty = this.#data.length === 0
    this.#event = ''
    this.#data = []
    this.#size = 0
    if (empty) return undefined
    try {
      return { event, data: JSON.parse(text) as unknown }
    } catch {
      throw protocolError(this.#name, `event ${event} with data that is not JSON`)
    }
  }
}

function parseJson(text: string, name: string, response: Response): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw protocolError(name, `${response.status} with a body that is not JSON`)
  }
}

/** The error that the manager raised, with its own code; or what the status alone tells. */
function errorFrom(name: string, response: Response, text: string): RfaasError {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    body = undefined
  }
  if (inspect(ErrorBody, body) === undefined) {
    const { code, message, field, allowed } = (body as ErrorBody).error
    if (/^ERR_RFAAS_[A-Z_]{1,40}$/.test(code)) {
      return new RfaasError(code as ErrorCode, message, {
        status: response.status,
        ...(field === undefined ? {} : { field }),
        ...(allowed === undefined ? {} : { allowed }),
      })
    }
  }
  // Answers to HEAD have no body.
  if (text === '' && response.status === 404) {
    return new RfaasError('ERR_RFAAS_NOT_FOUND', `${name}: not found`, { status: 404 })
  }
  if (text === '' && response.status === 401) {
    return new RfaasError('ERR_RFAAS_UNAUTHORIZED', `${name}: refused`, { status: 401 })
  }
  // A proxy in between, or a manager that is just shutting down.
  if (response.status >= 502 && response.status <= 504) {
    const message = `${name}: unavailable (${response.status}): check that the manager runs`
    return new RfaasError('ERR_RFAAS_UNAVAILABLE', message, { status: response.status })
  }
  return protocolError(name, `${response.status} ${response.statusText}`.trim(), response.status)
}

function protocolError(name: string, got: string, status?: number): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_PROTOCOL',
    `${name} answered ${got}: check that the URL is that of an rfaas manager of this version`,
    status === undefined ? {} : { status },
  )
}

/** fetch says only "fetch failed"; the reason is further down. */
function causeOf(error: unknown): string {
  let current = error
  while (current instanceof Error && current.cause instanceof Error) current = current.cause
  if (!(current instanceof Error)) return String(current)
  if (current instanceof AggregateError && current.errors[0] instanceof Error) {
    return current.errors[0].message
  }
  return current.message === '' ? current.name : current.message
}
