// One request with its deadline and whoever may give it up, whichever way it goes.
import type { ClientRequest, IncomingMessage } from 'node:http'
import { RfaasError } from '../errors.js'
import { adviceFor, causeOf, protocolError } from './answer.js'
import type { SessionAnswer } from './session.js'
import { longestBody } from './session-wire.js'
import { defaultTransport, type Transport } from './transport.js'

const defaultTimeoutMs = 10_000
const maxAnswerBytes = 64 * 1024 * 1024

export interface CallOptions {
  /** Lease token or API key, sent as `Authorization: Bearer`. */
  token?: string | undefined
  /** Default: the authorities of the system, and no certificate. */
  transport?: Transport | undefined
  /** There will be more for this manager: ask in a session, if it has one. */
  inSession?: boolean | undefined
  signal?: AbortSignal | undefined
  /** For the whole request; for `events()`, until the stream is open. Default 10 s. */
  timeoutMs?: number | undefined
}

/** Timer and listener live exactly as long as the call: AbortSignal.any would keep every call reachable from
 * a long-lived signal. */
export class Call {
  readonly name: string
  readonly #method: string
  readonly #url: string
  readonly #options: CallOptions
  readonly #onAbort = (): void => this.#cancel()
  /** Ends what is waited for. */
  #giveUp: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #limitMs = 0
  #timedOut = false

  constructor(method: string, url: string, options: CallOptions) {
    this.name = `${method} ${url}`
    this.#method = method
    this.#url = url
    this.#options = options
    options.signal?.addEventListener('abort', this.#onAbort, { once: true })
    this.restartTimer(options.timeoutMs ?? defaultTimeoutMs)
  }

  restartTimer(limitMs: number): void {
    this.stopTimer()
    this.#limitMs = limitMs
    this.#timer = setTimeout(() => {
      this.#timedOut = true
      this.#cancel()
    }, limitMs)
  }

  stopTimer(): void {
    clearTimeout(this.#timer)
  }

  /** In the session with the manager. Undefined when there is none, or the body is too long for it: nothing was
   * sent. */
  async askInSession(
    body: unknown,
    onEvent?: (event: string, data: unknown) => void,
  ): Promise<SessionAnswer | undefined> {
    const { token, signal, transport = defaultTransport } = this.#options
    const text = body === undefined ? undefined : JSON.stringify(body)
    if (text !== undefined && text.length > longestBody) return undefined
    try {
      signal?.throwIfAborted()
      const url = new URL(this.#url)
      const opening = transport.session(url, token !== undefined)
      const session = opening instanceof Promise ? await this.#orGivenUp(opening) : opening
      if (session === undefined) return undefined
      const { answer, giveUp } = session.ask(
        {
          method: this.#method,
          path: url.pathname + url.search,
          ...(token !== undefined && { token }),
        },
        text,
        onEvent,
      )
      this.#giveUp = () => {
        // Whether it is the request that takes long or the line that is dead: others need not find out.
        if (this.#timedOut) session.retire()
        giveUp(givenUp())
      }
      try {
        return await answer
      } finally {
        this.#giveUp = undefined
      }
    } catch (error) {
      throw error instanceof RfaasError ? error : this.failure(error)
    }
  }

  /** As an HTTP request of its own. Resolves with the head of the answer. */
  async send(body: unknown, accept = 'application/json'): Promise<IncomingMessage> {
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
      const sent = transport.send(new URL(this.#url), this.#method, headers)
      return await this.#response(sent, payload)
    } catch (error) {
      throw error instanceof RfaasError ? error : this.failure(error)
    }
  }

  #response(sent: ClientRequest, payload: Uint8Array | undefined): Promise<IncomingMessage> {
    const giveUp = (): void => void sent.destroy(givenUp())
    this.#giveUp = giveUp
    return new Promise((resolve, reject) => {
      sent.on('error', reject)
      sent.once('response', (response) => {
        // The connection of an answer that was read to its end serves the next request.
        this.#giveUp = () => response.complete || giveUp()
        // Whoever reads it learns of the error; nobody may be reading.
        response.on('error', () => undefined)
        resolve(response)
      })
      sent.end(payload)
    })
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
    // What was not read to its end.
    this.#cancel()
  }

  /** What others wait for, too: they go on. */
  #orGivenUp<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#giveUp = () => reject(givenUp())
      work.then(resolve, reject)
    })
  }

  #cancel(): void {
    this.#giveUp?.()
  }
}

function givenUp(): Error {
  return new Error('given up')
}
