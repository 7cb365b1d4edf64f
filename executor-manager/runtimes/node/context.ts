// The third argument of a function. Made for every call, so what costs is made when it is looked at.

export const deadlinePassed = 'the deadline has passed'

export class CallContext {
  /** Index of this worker in its lease. */
  readonly worker: number
  readonly #requestIdLow: number
  readonly #requestIdHigh: number
  readonly #deadline: number
  #deadlineMs = 0
  #controller: AbortController | undefined
  #timer: NodeJS.Timeout | undefined
  #ended = false
  #reason: string | undefined

  /** `deadline`: in milliseconds of the monotonic clock. */
  constructor(worker: number, requestIdLow: number, requestIdHigh: number, deadline: number) {
    this.worker = worker
    this.#requestIdLow = requestIdLow
    this.#requestIdHigh = requestIdHigh
    this.#deadline = deadline
  }

  /** Unique among the calls of one client. */
  get requestId(): bigint {
    return (BigInt(this.#requestIdHigh) << 32n) | BigInt(this.#requestIdLow)
  }

  /** Unix time in ms; Infinity when the call has no deadline. */
  get deadlineMs(): number {
    if (this.#deadlineMs === 0) {
      const nowMs = Number(process.hrtime.bigint()) / 1e6
      this.#deadlineMs = Date.now() + this.#deadline - nowMs
    }
    return this.#deadlineMs
  }

  /** Aborts at the deadline, or when the caller is gone. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#reason !== undefined) {
        this.#controller.abort(new Error(this.#reason))
      } else if (!this.#ended && this.deadlineMs !== Infinity) {
        const restMs = Math.max(0, this.deadlineMs - Date.now())
        this.#timer = setTimeout(() => this.abort(deadlinePassed), restMs)
      }
    }
    return this.#controller.signal
  }

  /** Timers may fire a fraction before the clock shows their time, so it is not asked alone. */
  get timedOut(): boolean {
    return this.#reason === deadlinePassed || Date.now() >= this.deadlineMs
  }

  abort(reason: string): void {
    this.#reason ??= reason
    clearTimeout(this.#timer)
    this.#controller?.abort(new Error(reason))
  }

  /** The call is answered. */
  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }
}
