// The client side of the control plane: JSON requests and server-sent events.
// What comes back is from another process: bounded, parsed, checked against its schema.
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Static, TSchema } from 'typebox'
import { RfaasError, type ErrorCode } from '../errors.js'
import { check, inspect } from './check.js'
import { ErrorBody } from './schemas.js'
import { defaultTransport, type Transport } from './transport.js'

export { check, checkArgument } from './check.js'

const defaultTimeoutMs = 10_000
const maxAnswerBytes = 64 * 1024 * 1024
const maxEventBytes = 1024 * 1024
// Servers send a comment every 15 s (server.ts): a stream silent for longer has lost its server.
const defaultIdleTimeoutMs = 45_000

export interface CallOptions {
  /** Lease token or API key, sent as `Authorization: Bearer`. */
  token?: string | undefined
  /** Default: the authorities of the system, and no certificate. */
  transport?: Transport | undefined
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
  /** Called once, when the stream is open. */
  onOpen?: () => void
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
  if (!isOk(response)) throw errorFrom(call.name, response, text)
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
    if (!isOk(response)) throw errorFrom(call.name, response, await call.text(response))
    const type = response.headers['content-type'] ?? 'none'
    if (!type.startsWith('text/event-stream')) {
      throw protocolError(call.name, `content type ${type} instead of text/event-stream`)
    }
    options.onOpen?.()
    const idleMs = options.idleTimeoutMs ?? defaultIdleTimeoutMs
    const parser = new EventParser(call.name)
    call.restartTimer(idleMs)
    for await (const chunk of response as AsyncIterable<Buffer>) {
      call.restartTimer(idleMs)
      yield* parser.push(chunk)
    }
  } catch (error) {
    if (options.signal?.aborted === true) return
    throw error instanceof RfaasError ? error : call.failure(error)
  }
}

/** One request with its deadline. Timer and listener live exactly as long as the call: AbortSignal.any
 * would keep every call reachable from a long-lived signal. */
class Call {
  readonly name: string
  readonly #url: string
  readonly #options: CallOptions
  readonly #onAbort = (): void => this.#cancel()
  #request: ClientRequest | undefined
  #response: IncomingMessage | undefined
  #timer: NodeJS.Timeout | undefined
  #limitMs = 0
  #timedOut = false

  constructor(name: string, url: string, options: CallOptions) {
    this.name = name
    this.#url = url
    this.#options = options
    options.signal?.addEventListener('abort', this.#onAbort, { once: true })
    this.restartTimer(options.timeoutMs ?? defaultTimeoutMs)
  }

  restartTimer(limitMs: number): void {
    clearTimeout(this.#timer)
    this.#limitMs = limitMs
    this.#timer = setTimeout(() => {
      this.#timedOut = true
      this.#cancel()
    }, limitMs)
  }

  /** Resolves with the head of the answer. */
  async open(method: string, body: unknown, accept = 'application/json'): Promise<IncomingMessage> {
    const { token, signal, transport = defaultTransport } = this.#options
    const headers: Record<string, string | number> = { accept }
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`
    let payload: Uint8Array | undefined
    if (body instanceof Uint8Array) {
      headers['content-type'] = 'application/octet-stream'
      payload = body
    } else if (body !== undefined) {
      headers['content-type'] = 'application/json'
      payload = Buffer.from(JSON.stringify(body))
    }
    if (payload !== undefined) headers['content-length'] = payload.byteLength
    try {
      signal?.throwIfAborted()
      const sent = transport.send(new URL(this.#url), method, headers)
      this.#request = sent
      return await new Promise((resolve, reject) => {
        sent.on('error', reject)
        sent.once('response', (response) => {
          this.#response = response
          // Whoever reads it learns of the error; nobody may be reading.
          response.on('error', () => undefined)
          resolve(response)
        })
        sent.end(payload)
      })
    } catch (error) {
      throw error instanceof RfaasError ? error : this.failure(error)
    }
  }

  async text(response: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = []
    let length = 0
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
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
      `${this.name} failed: ${causeOf(error)}: ${adviceFor(error, this.#url)}`,
      { cause: error },
    )
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
    // The connection of an answer that was read to its end serves the next request.
    if (this.#response?.complete !== true) this.#cancel()
  }

  #cancel(): void {
    this.#request?.destroy(new Error('given up'))
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

function isOk({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300
}

function parseJson(text: string, name: string, response: IncomingMessage): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw protocolError(name, `${response.statusCode} with a body that is not JSON`)
  }
}

/** The error that the manager raised, with its own code; or what the status alone tells. */
function errorFrom(name: string, response: IncomingMessage, text: string): RfaasError {
  const { statusCode: status = 0, statusMessage = '' } = response
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
        status,
        ...(field === undefined ? {} : { field }),
        ...(allowed === undefined ? {} : { allowed }),
      })
    }
  }
  // Answers to HEAD have no body.
  if (text === '' && status === 404) {
    return new RfaasError('ERR_RFAAS_NOT_FOUND', `${name}: not found`, { status: 404 })
  }
  if (text === '' && status === 401) {
    return new RfaasError('ERR_RFAAS_UNAUTHORIZED', `${name}: refused`, { status: 401 })
  }
  // A proxy in between, or a manager that is just shutting down.
  if (status >= 502 && status <= 504) {
    const message = `${name}: unavailable (${status}): check that the manager runs`
    return new RfaasError('ERR_RFAAS_UNAVAILABLE', message, { status })
  }
  return protocolError(name, `${status} ${statusMessage}`.trim(), status)
}

function protocolError(name: string, got: string, status?: number): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_PROTOCOL',
    `${name} answered ${got}: check that the URL is that of an rfaas manager of this version`,
    status === undefined ? {} : { status },
  )
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // Several addresses were tried.
  if (error instanceof AggregateError && error.errors[0] instanceof Error) {
    return error.errors[0].message
  }
  return error.message === '' ? error.name : error.message
}

function adviceFor(error: unknown, url: string): string {
  const { code = '' } = error as NodeJS.ErrnoException
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'use a name or address that is in the certificate of the manager'
  }
  if (/CERT|ISSUER|SIGNATURE/.test(code)) {
    return 'name the authority that signed the certificate of the manager with --ca (ca, RFAAS_CA)'
  }
  if (code === 'EPROTO' || (code === 'ECONNRESET' && !url.startsWith('https:'))) {
    return 'check that the manager runs, and whether its URL begins with http: or https:'
  }
  return 'check that the manager runs and that its URL is right'
}
