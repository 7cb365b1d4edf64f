// Calls that wait: for a slot, in order, and for their outcome. Every one of them settles, at the
// latest by its deadline.
import { RfaasError, type ErrorCode } from '../errors.js'
import type { WorkerConnection } from './worker-connection.js'

// How late a deadline may be noticed on this side. One timer for all calls, because one for each
// would cost as much as the call.
const tickMs = 20

export interface Waiting {
  name: string
  index: number
  input: Uint8Array
  timeoutUs: number
  /** By performance.now(). */
  deadline: number
  idempotent: boolean
  resolve: (result: Uint8Array) => void
  reject: (error: unknown) => void
  signal: AbortSignal | undefined
  onAbort: (() => void) | undefined
  settled: boolean
  /** The worker that has it, and in which slot. */
  at: WorkerConnection | undefined
  slot: number
  /** A worker that is gone may have run it. */
  mayHaveRun: boolean
  /** It was not sent at once: its time has been running. */
  waited: boolean
}

export class WaitingCalls {
  readonly #send: (call: Waiting) => boolean
  readonly #open = new Set<Waiting>()
  #queue: Waiting[] = []
  #ticker: NodeJS.Timeout | undefined
  #onDrained: (() => void)[] = []

  /** `send` tries to send a call; false: not now. */
  constructor(send: (call: Waiting) => boolean) {
    this.#send = send
  }

  add(call: Waiting): void {
    this.#open.add(call)
    const { signal } = call
    if (signal !== undefined) {
      call.onAbort = () =>
        this.#giveUp(call, 'ERR_RFAAS_ABORTED', 'the caller stopped waiting', signal.reason)
      signal.addEventListener('abort', call.onAbort, { once: true })
    }
    this.#ticker ??= setInterval(() => this.#tick(), tickMs)
    if (this.#queue.length > 0 || !this.#try(call)) {
      call.waited = true
      this.#queue.push(call)
    }
  }

  /** Sends a call once more, before those that have not been sent yet. */
  repeat(call: Waiting): void {
    call.at = undefined
    call.waited = true
    if (!call.settled) this.#queue.unshift(call)
  }

  /** There may be free slots: sends what waits for one. */
  pump(): void {
    let sent = 0
    for (const call of this.#queue) {
      if (!call.settled && !this.#try(call)) break
      sent += 1
    }
    if (sent > 0) this.#queue = this.#queue.slice(sent)
  }

  resolve(call: Waiting, result: Uint8Array): void {
    if (this.#end(call)) call.resolve(result)
  }

  reject(call: Waiting, error: unknown): void {
    if (this.#end(call)) call.reject(error)
  }

  /** Resolves when no call waits. */
  drained(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#onDrained.push(resolve))
  }

  close(reason: RfaasError): void {
    this.#queue = []
    for (const call of [...this.#open]) this.#giveUp(call, reason.code, reason.message)
  }

  /** Nobody waits any longer; what is known of the function is told. */
  #giveUp(call: Waiting, code: ErrorCode, why: string, cause?: unknown): void {
    const mayHaveRun = call.at !== undefined || call.mayHaveRun
    const state = mayHaveRun ? 'the function may have run, or still run' : 'it did not run'
    const message = `${call.name}: ${why}; ${state}`
    this.reject(call, new RfaasError(code, message, { mayHaveRun, cause }))
  }

  #try(call: Waiting): boolean {
    try {
      return this.#send(call)
    } catch (error) {
      this.reject(call, error)
      return true
    }
  }

  #end(call: Waiting): boolean {
    if (call.settled) return false
    call.settled = true
    if (call.onAbort !== undefined) call.signal?.removeEventListener('abort', call.onAbort)
    this.#open.delete(call)
    if (this.#open.size === 0) {
      for (const resolve of this.#onDrained.splice(0)) resolve()
    }
    return true
  }

  #tick(): void {
    if (this.#open.size === 0) {
      clearInterval(this.#ticker)
      this.#ticker = undefined
      return
    }
    const now = performance.now()
    for (const call of this.#open) {
      if (now < call.deadline) continue
      const time = `within ${call.timeoutUs / 1000} ms`
      if (call.at === undefined) {
        const why = call.mayHaveRun
          ? 'its worker was lost and no other answered'
          : 'no worker took it'
        this.#giveUp(call, 'ERR_RFAAS_DEADLINE', `${why} ${time}`)
      } else if (call.at.connected) {
        call.at.late(call.slot)
        this.#giveUp(call, 'ERR_RFAAS_DEADLINE', `no answer ${time}`)
      } else {
        const why = `the connection to its worker broke and was not back ${time}`
        this.#giveUp(call, 'ERR_RFAAS_DEADLINE', why)
      }
    }
  }
}
