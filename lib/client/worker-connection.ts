// One worker as its client sees it: its slots, the way to it, and getting there again.
import type { WorkerEndpoint } from '../control/schemas.js'
import { RfaasError } from '../errors.js'
import type { NativeInvoker } from '../native.js'
import { withResolvers, type PromiseWithResolvers } from './promise.js'
import type { Staging } from './staging.js'
import type { Waiting } from './waiting.js'

const connectTimeoutMs = 10_000
const firstReconnectMs = 200
const lastReconnectMs = 5_000
// How long a lost call waits to hear from the executor manager what became of its worker.
const causeTimeoutMs = 1_000

export class WorkerConnection {
  /** Calls may be sent. */
  connected = false
  /** Slots without a call. */
  readonly free: number[]
  /** By slot: the call that waits for its outcome; undefined for one whose caller has gone. */
  readonly calls: (Waiting | undefined)[]
  readonly staging: Staging
  readonly #invoker: NativeInvoker
  readonly #onConnected: () => void
  #endpoint: WorkerEndpoint
  #reconnecting: NodeJS.Timeout | undefined
  #cancelConnect: (() => void) | undefined
  #cause: PromiseWithResolvers<string> | undefined
  #closed = false

  constructor(
    invoker: NativeInvoker,
    endpoint: WorkerEndpoint,
    slots: number,
    staging: Staging,
    onConnected: () => void,
  ) {
    this.#invoker = invoker
    this.#endpoint = endpoint
    this.free = Array.from({ length: slots }, (_, i) => slots - 1 - i)
    this.calls = new Array<Waiting | undefined>(slots)
    this.staging = staging
    this.#onConnected = onConnected
  }

  async connect(endpoint: WorkerEndpoint = this.#endpoint): Promise<void> {
    this.#endpoint = endpoint
    clearTimeout(this.#reconnecting)
    const ticket = Buffer.from(endpoint.ticket, 'hex')
    const { promise, resolve, reject } = withResolvers<null>()
    // The invoker has one connection per worker: a later attempt replaces this one.
    this.#cancelConnect?.()
    this.#cancelConnect = () => reject(unreachable(endpoint, 'there is a newer attempt'))
    const timer = setTimeout(() => {
      this.#invoker.disconnect(endpoint.worker)
      reject(unreachable(endpoint, `no answer within ${connectTimeoutMs} ms`))
    }, connectTimeoutMs)
    promise.finally(() => clearTimeout(timer)).catch(() => undefined)
    try {
      this.#invoker.connect(endpoint.worker, endpoint.address, ticket, (reason) => {
        if (reason === null) resolve(null)
        else reject(unreachable(endpoint, reason))
      })
    } catch (error) {
      reject(error)
    }
    await promise
    this.#cancelConnect = undefined
    this.connected = true
    this.#cause = undefined
    this.#onConnected()
  }

  /** The connection has ended. It can break without its worker: then the worker listens still. If
   * the worker ended, the executor manager tells where the next one is, and trying fails meanwhile. */
  down(): void {
    this.connected = false
    clearTimeout(this.#reconnecting)
    if (!this.#closed) this.#reconnect(firstReconnectMs)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#reconnecting)
    this.#cancelConnect?.()
    this.#cause?.resolve('')
  }

  /** What the executor manager says of the worker's end. */
  tellCause(cause: string): void {
    this.#cause ??= withResolvers()
    this.#cause.resolve(cause)
  }

  /** Why the worker ended; empty if nobody says so in time. */
  async causeOfEnd(): Promise<string> {
    let timer: NodeJS.Timeout | undefined
    const unknown = new Promise<string>((resolve) => {
      timer = setTimeout(resolve, causeTimeoutMs, '')
    })
    this.#cause ??= withResolvers()
    try {
      return await Promise.race([this.#cause.promise, unknown])
    } finally {
      clearTimeout(timer)
    }
  }

  #reconnect(delayMs: number): void {
    this.#reconnecting = setTimeout(() => {
      if (this.#closed || this.connected) return
      this.connect().catch(() => {
        if (!this.#closed) this.#reconnect(Math.min(2 * delayMs, lastReconnectMs))
      })
    }, delayMs)
    this.#reconnecting.unref()
  }
}

function unreachable({ worker, address }: WorkerEndpoint, reason: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `worker ${worker} at ${address} cannot be reached: ${reason}`,
  )
}
