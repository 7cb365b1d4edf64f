// One worker as its client sees it: its slots, the way to it, and getting there again.
//
// A connection can break although its worker lives. Then the calls that the worker has not answered
// are in doubt: their slots stay taken, and as soon as the connection is back the addon asks the
// worker what became of them. Only a worker that is known to have ended leaves them unanswered.
import type { WorkerEndpoint } from '../control/schemas.js'
import { RfaasError } from '../errors.js'
import type { NativeInvoker } from '../native.js'
import { tRecord, tRun, turnWords } from './call-record.js'
import { withResolvers, type PromiseWithResolvers } from '../control/promise.js'
import type { Staging } from './staging.js'
import type { Waiting } from './waiting.js'

const connectTimeoutMs = 10_000
const firstReconnectMs = 10
const lastReconnectMs = 1_000
// How long a lost call waits to hear from the executor manager what became of its worker.
const causeTimeoutMs = 1_000
// How long calls that may be repeated stay in doubt before they are.
const doubtMs = 1_000

// What connecting to a socket says whose owner is gone; another worker never gets its address.
const nobodyListens = new Set([-2, -111]) // ENOENT, ECONNREFUSED

export interface ConnectionEvents {
  /** Whether somebody tells what becomes of the worker: its executor manager is heard. */
  watched(): boolean
  /** Calls may be sent again. */
  connected(): void
  /** The connection has been down for a while. */
  doubtful(): void
  /** The addon has outcomes that no descriptor tells of. */
  outcomes(): void
}

export class WorkerConnection {
  /** Calls are sent to workers that are connected, answer in time and refuse nothing. */
  ready = false
  /** Slots without a call. */
  readonly free: number[]
  /** By slot: the call that waits for its outcome; undefined for one whose caller has gone. */
  readonly calls: (Waiting | undefined)[]
  readonly staging: Staging
  /** By slot: see NativeInvoker.turns. */
  readonly #turns: Uint32Array
  readonly #invoker: NativeInvoker
  readonly #events: ConnectionEvents
  readonly #late = new Set<number>()
  #endpoint: WorkerEndpoint
  #connected = false
  #refusal = 0
  #attempt = 0
  #reconnecting: NodeJS.Timeout | undefined
  #reconnectMs = firstReconnectMs
  #doubting: NodeJS.Timeout | undefined
  #mourning: NodeJS.Timeout | undefined
  #cancelConnect: (() => void) | undefined
  #cause: PromiseWithResolvers<string> | undefined
  /** Who waits for a new process to be reached, by whichever attempt. */
  #reached: PromiseWithResolvers<null> | undefined
  #closed = false

  constructor(
    invoker: NativeInvoker,
    endpoint: WorkerEndpoint,
    slots: number,
    turns: Uint32Array,
    staging: Staging,
    events: ConnectionEvents,
  ) {
    this.#invoker = invoker
    this.#endpoint = endpoint
    this.free = Array.from({ length: slots }, (_, i) => slots - 1 - i)
    this.calls = new Array<Waiting | undefined>(slots)
    this.staging = staging
    this.#turns = turns
    this.#events = events
  }

  get connected(): boolean {
    return this.#connected
  }

  /** The status with which it refuses all new calls, or 0. */
  get refusal(): number {
    return this.#refusal
  }

  /** Whether this is the process that we are connected to. */
  isAt({ ticket }: WorkerEndpoint): boolean {
    return this.#connected && this.#endpoint.ticket === ticket
  }

  /** Rejects when this attempt fails; there will be others until the worker is reached. */
  async connect(endpoint: WorkerEndpoint = this.#endpoint): Promise<void> {
    const attempt = ++this.#attempt
    if (endpoint.ticket !== this.#endpoint.ticket) this.#refusal = 0
    this.#endpoint = endpoint
    this.#setConnected(false)
    clearTimeout(this.#reconnecting)
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
      const ticket = Buffer.from(endpoint.ticket, 'hex')
      this.#invoker.connect(endpoint.worker, endpoint.address, ticket, (reason) => {
        if (reason === null) resolve(null)
        else reject(unreachable(endpoint, reason))
      })
    } catch (error) {
      reject(error)
    }
    this.#events.outcomes() // of the process before this one, if it is another
    try {
      await promise
    } catch (error) {
      if (attempt === this.#attempt) this.#failed(error)
      throw error
    }
    this.#cancelConnect = undefined
    this.#established()
  }

  /** Connects to the process that has taken the worker's place. Resolves when it is reached, by this
   * attempt or a later one; rejects when yet another one takes its place first. */
  async reach(endpoint: WorkerEndpoint): Promise<void> {
    this.#reached?.reject(unreachable(this.#endpoint, 'it was replaced'))
    this.#reached = withResolvers()
    const { promise } = this.#reached
    this.connect(endpoint).catch(() => undefined) // others follow
    await promise
  }

  /** For a caller that holds the thread: connects again within `budgetUs`. */
  resume(budgetUs: number): boolean {
    if (this.#closed) return false
    ++this.#attempt
    this.#cancelConnect?.()
    this.#cancelConnect = undefined
    const { worker, address, ticket } = this.#endpoint
    this.#setConnected(false)
    if (this.#invoker.reconnect(worker, address, Buffer.from(ticket, 'hex'), budgetUs) < 0) {
      this.down()
      return false
    }
    this.#established()
    return true
  }

  /** A call could not be sent: the connection is broken, and the addon is about to say so. */
  suspect(): void {
    this.#setConnected(false)
  }

  /** The connection has ended. If the worker has ended too, the executor manager tells so, and where
   * the next one is; trying to get there fails meanwhile. */
  down(): void {
    this.#setConnected(false)
    if (this.#closed) return
    this.#doubting ??= setTimeout(() => this.#events.doubtful(), doubtMs).unref()
    this.#reconnect()
  }

  /** The worker has ended. Of the calls that it has not answered only those up to the request
   * `lastStarted` may have run; Infinity: nobody knows. */
  ended(cause: string, lastStarted: number): void {
    if (this.#closed) return
    this.#cause ??= withResolvers()
    this.#cause.resolve(cause)
    this.#events.outcomes() // what it answered before it ended
    this.#invoker.abandon(this.#endpoint.worker, lastStarted)
    this.#events.outcomes()
  }

  /** The worker refuses new calls with `status` from now on. */
  refuse(status: number): void {
    this.#refusal = status
    this.#setConnected(this.#connected)
  }

  /** The call in this slot has not been answered in time: who knows what is wrong with the worker. */
  late(slot: number): void {
    this.#late.add(slot)
    this.#setConnected(this.#connected)
  }

  /** The addon goes on with the run (0: does not) when the call of this record has succeeded. */
  setTurn(slot: number, run: number, record: number): void {
    this.#turns[turnWords * slot + tRun] = run
    this.#turns[turnWords * slot + tRecord] = record
  }

  /** The record that was sent last. */
  turnOf(slot: number): number {
    return this.#turns[turnWords * slot + tRecord]!
  }

  /** Nothing is owed for this slot any more. */
  release(slot: number): void {
    this.calls[slot] = undefined
    this.#turns[turnWords * slot + tRun] = 0
    this.free.push(slot)
    if (this.#late.size === 0) return
    this.#late.delete(slot)
    this.#setConnected(this.#connected)
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

  close(): void {
    this.#closed = true
    this.#setConnected(false)
    clearTimeout(this.#reconnecting)
    clearTimeout(this.#doubting)
    clearTimeout(this.#mourning)
    this.#cancelConnect?.()
    this.#cause?.resolve('')
    this.#reached?.reject(unreachable(this.#endpoint, 'the functions are closed'))
  }

  #setConnected(connected: boolean): void {
    this.#connected = connected
    this.ready = connected && this.#refusal === 0 && this.#late.size === 0
  }

  #established(): void {
    this.#setConnected(true)
    this.#cause = undefined
    this.#reconnectMs = firstReconnectMs
    for (const timer of [this.#reconnecting, this.#doubting, this.#mourning]) clearTimeout(timer)
    this.#doubting = this.#mourning = undefined
    this.#reached?.resolve(null)
    this.#reached = undefined
    this.#events.connected()
  }

  #failed(error: unknown): void {
    if (this.#closed) return
    if (error instanceof RfaasError && nobodyListens.has(error.errno ?? 0)) {
      // The executor manager knows more, and says so if it can. If it is gone as well, what it says when
      // it is back is the end of the lease, and no call has to wait for that.
      if (!this.#events.watched()) this.ended('', Infinity)
      else this.#mourning ??= setTimeout(() => this.ended('', Infinity), causeTimeoutMs).unref()
    }
    this.#reconnect()
  }

  #reconnect(): void {
    clearTimeout(this.#reconnecting)
    this.#reconnecting = setTimeout(() => {
      if (!this.#closed && !this.#connected) this.connect().catch(() => undefined)
    }, this.#reconnectMs)
    this.#reconnecting.unref()
    this.#reconnectMs = Math.min(2 * this.#reconnectMs, lastReconnectMs)
  }
}

/** The worker with the most free slots, or -1; one that is late only if there is no other. */
export function pickWorker(workers: readonly WorkerConnection[], slots: number): number {
  let best = -1
  let most = 0
  for (let i = 0; i < workers.length; ++i) {
    const worker = workers[i]
    if (worker !== undefined && worker.ready && worker.free.length > most) {
      best = i
      most = worker.free.length
      if (most === slots) break
    }
  }
  if (best >= 0 || workers.some(({ ready }) => ready)) return best
  return workers.findIndex(takesCalls)
}

const takesCalls = (worker: WorkerConnection): boolean =>
  worker.connected && worker.refusal === 0 && worker.free.length > 0

/** The status with which all workers refuse calls, or 0. */
export function refusalOf(workers: readonly WorkerConnection[]): number {
  return workers.every(({ refusal }) => refusal !== 0) ? (workers[0]?.refusal ?? 0) : 0
}

function unreachable({ worker, address }: WorkerEndpoint, reason: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `worker ${worker} at ${address} cannot be reached: ${reason}`,
  )
}
