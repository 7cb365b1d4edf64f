// The worker's loop. Hot, it spins inside the addon for a short budget and turns the event loop in
// between, so that promises and timers of functions make progress; warm, it sleeps on the event loop
// until the addon wakes it. Functions that return promises run concurrently, up to the slots.
import type { Channel } from './channel.js'
import { CallContext, deadlinePassed } from './context.js'
import { errorOf, resultOf, type Outcome, type PackageFunction } from './invoke.js'

// One look at the fabric: long enough to hide the turn of the event loop, short enough for timers.
const spinUs = 50
// Calls that keep coming must not hold up the event loop for longer, by the times at which they were
// taken: to read a clock here would cost a tenth of a short call.
const maxTurnMs = 1
// How long an asynchronous function may take to heed its signal before its worker is ended.
const deadlineGraceMs = 100
// How long calls go on without their client, whose connection may only have been cut: then their
// signals abort. What they return until then, or after it, waits for the client.
const lingerMs = 30_000

export interface ServerOptions {
  worker: number
  hotTimeoutUs: number
  functions: readonly (readonly [name: string, call: PackageFunction])[]
  /** A function did not settle after its deadline: whatever it still writes must not reach the next
   * call's output, so the process ends. */
  overdue(name: string, requestId: bigint): never
  stopped(): void
}

interface Call {
  slot: number
  name: string
  context: CallContext
  output: Uint8Array
  timer: NodeJS.Timeout | undefined
}

export class CallServer {
  readonly #channel: Channel
  readonly #options: ServerOptions
  readonly #hotMs: number
  /** Calls whose promise is not settled, by slot. */
  readonly #pending = new Map<number, Call>()
  /** By performance.now(); without a client there is nothing to be hot for. */
  #lastCall = -Infinity
  #scheduled = false
  #stopping = false
  #finished = false
  #lingering: NodeJS.Timeout | undefined
  /** The call that has the thread, for the report of a process that ends inside of it. */
  #current: Call | undefined

  constructor(channel: Channel, options: ServerOptions) {
    this.#channel = channel
    this.#options = options
    this.#hotMs = options.hotTimeoutUs / 1000
  }

  /** What runs now, or was started longest ago. */
  get running(): { function: string; requestId: string } | undefined {
    const [first] = this.#pending.values()
    const call = this.#current ?? first
    return call && { function: call.name, requestId: String(call.context.requestId) }
  }

  /** The process ends now, because of the call that has the thread or, if none has, of one that is
   * not settled: its caller learns why, the others that their worker was lost. */
  abandon(cause: string): void {
    const call = this.#current ?? [...this.#pending.values()].pop()
    this.#pending.clear()
    this.#current = undefined
    if (call !== undefined) this.#channel.failLast(call.slot, 'workerLost', cause)
  }

  start(): void {
    this.#schedule()
  }

  /** The lease is being revoked: running calls finish, all others are refused. */
  drain(): void {
    this.#channel.refuse('leaseRevoked')
    this.#schedule()
  }

  /** Running calls finish, queued ones are refused; then the worker has ended. */
  stop(): void {
    this.#stopping = true
    this.#channel.refuse('leaseEnded')
    this.#schedule()
  }

  connected(): void {
    clearTimeout(this.#lingering)
    this.#lastCall = performance.now()
    this.#schedule()
  }

  /** The client is gone, for good or for a moment. */
  disconnected(): void {
    clearTimeout(this.#lingering)
    this.#lastCall = -Infinity
    this.#lingering = setTimeout(() => {
      for (const call of this.#pending.values()) call.context.abort('the caller is gone')
    }, lingerMs).unref()
  }

  #schedule(): void {
    if (this.#scheduled || this.#finished) return
    this.#scheduled = true
    setImmediate(() => this.#turn())
  }

  #turn(): void {
    this.#scheduled = false
    if (this.#stopping) {
      this.#finish()
      return
    }
    const channel = this.#channel
    let slot = channel.next(this.#budgetUs)
    const called = slot >= 0
    const begin = channel.arrivedMs
    while (slot >= 0) slot = this.#serve(slot, channel.arrivedMs - begin < maxTurnMs)
    const now = performance.now()
    if (called) this.#lastCall = now
    if (now - this.#lastCall < this.#hotMs) this.#schedule()
    else this.#sleep()
  }

  /** Promises wait for the event loop: then it turns without spinning. */
  get #budgetUs(): number {
    return this.#pending.size === 0 && this.#hotMs > 0 ? spinUs : 0
  }

  #sleep(): void {
    // Anew each time: a call that next() took away before it woke us has disarmed the last watch.
    this.#channel.watch(() => {
      this.#lastCall = performance.now()
      this.#schedule()
    })
    // What arrived before the watch began woke nobody.
    const slot = this.#channel.next(0)
    if (slot < 0) return
    this.#serve(slot, false)
    this.#lastCall = performance.now()
    this.#schedule()
  }

  /** Runs one call. Returns the next one's slot if there is one and the turn `goesOn`. */
  #serve(slot: number, goesOn: boolean): number {
    const channel = this.#channel
    const called = this.#options.functions[channel.function]
    if (called === undefined) {
      channel.fail(slot, 'unknownFunction', `the package has no function ${channel.function}`)
      return goesOn ? channel.next(0) : -1
    }
    const context = new CallContext(
      this.#options.worker,
      channel.requestIdLow,
      channel.requestIdHigh,
      channel.deadlineMs,
    )
    const output = channel.output(slot)
    const call: Call = { slot, name: called[0], context, output, timer: undefined }
    let outcome: Outcome
    this.#current = call
    try {
      const value: unknown = called[1](channel.input(slot), output, context)
      if (isThenable(value)) {
        this.#await(slot, call, value)
        // The event loop turns before the next call, and the addon hears that this one has let go
        // of the thread.
        return -1
      }
      outcome = resultOf(value, output)
    } catch (error) {
      outcome = errorOf(error)
    } finally {
      this.#current = undefined
    }
    context.end()
    if (outcome.kind === 'ok' && goesOn) {
      return channel.replyNext(slot, outcome.length, this.#budgetUs)
    }
    this.#answer(slot, outcome)
    return goesOn ? channel.next(0) : -1
  }

  #await(slot: number, call: Call, value: PromiseLike<unknown>): void {
    this.#pending.set(slot, call)
    const restMs = call.context.deadlineMs - Date.now()
    if (restMs !== Infinity) {
      call.timer = setTimeout(() => this.#deadline(call), Math.max(0, restMs))
    }
    const settle = (outcome: Outcome): void => {
      clearTimeout(call.timer)
      call.context.end()
      if (this.#pending.get(slot) !== call) return // the worker is about to end
      this.#pending.delete(slot)
      if (call.context.timedOut) {
        this.#channel.fail(slot, 'deadline', 'the function ended after its deadline')
      } else {
        this.#answer(slot, outcome)
      }
      this.#lastCall = performance.now()
      this.#schedule()
    }
    value.then(
      (result) => settle(resultOf(result, call.output)),
      (error: unknown) => settle(errorOf(error)),
    )
    this.#schedule()
  }

  #deadline(call: Call): void {
    call.context.abort(deadlinePassed)
    call.timer = setTimeout(() => {
      this.#pending.clear()
      const message = 'the function ran past its deadline; its worker is being restarted'
      this.#channel.failLast(call.slot, 'deadline', message)
      this.#options.overdue(call.name, call.context.requestId)
    }, deadlineGraceMs)
  }

  #answer(slot: number, outcome: Outcome): void {
    if (outcome.kind === 'ok') this.#channel.reply(slot, outcome.length)
    else this.#channel.fail(slot, outcome.kind, outcome.message)
  }

  #finish(): void {
    this.#channel.settle()
    if (this.#pending.size > 0) {
      // Each settling call comes back here; the manager's patience is the limit.
      return
    }
    this.#finished = true
    this.#options.stopped()
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as { then?: unknown }).then === 'function'
  )
}
