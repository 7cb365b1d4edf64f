// Runs calls: hot, it spins in native code for the next one between turns of the event loop; warm,
// after `hotTimeoutUs` without a call, it sleeps until the completion channel wakes the loop.
import { setImmediate as nextTurn } from 'node:timers/promises'

import { native, type NativeWorker } from '../../../lib/internal.js'
import { report, type Configuration } from './manager.js'

/** What the package exports. A number is the length of what was written to `output`; bytes that are
 * returned are copied there. */
export type NodeFunction = (input: Uint8Array, output: Uint8Array, context: CallContext) => unknown

const { callStatuses, workerRecord } = native.constants
const payloadOffset = 64
const again = -11 // EAGAIN
// One spin in native code; timers, promises and sockets of the functions wait for so long.
const spinUs = 200
// The same bound while calls keep coming.
const callsPerTurn = 512
// An asynchronous function that ignores its aborted signal for so long takes its worker down.
const deadlineGraceMs = 1_000
const timedOut = 124 // exit code, as of the native executor

/** The third argument of a function. */
export class CallContext {
  /** Index of this worker in its lease. */
  readonly worker: number
  /** Date.now() at which the call's time is over; undefined: never. */
  readonly deadlineMs: number | undefined
  readonly #requestIdLow: number
  readonly #requestIdHigh: number
  #abort: AbortController | undefined
  #expired = false

  constructor(worker: number, timeoutUs: number, requestIdLow: number, requestIdHigh: number) {
    this.worker = worker
    this.deadlineMs = timeoutUs === 0 ? undefined : Date.now() + timeoutUs / 1000
    this.#requestIdLow = requestIdLow
    this.#requestIdHigh = requestIdHigh
  }

  /** Unique per connection. */
  get requestId(): bigint {
    return (BigInt(this.#requestIdHigh) << 32n) | BigInt(this.#requestIdLow)
  }

  /** Aborts when the deadline passes. */
  get signal(): AbortSignal {
    this.#abort ??= new AbortController()
    if (this.#expired) this.expire()
    return this.#abort.signal
  }

  /** @internal */
  expire(): void {
    this.#expired = true
    this.#abort?.abort(new DOMException('the deadline of the call has passed', 'TimeoutError'))
  }
}

export class Calls {
  readonly #worker: NativeWorker
  readonly #names: readonly string[]
  readonly #functions: readonly NodeFunction[]
  readonly #index: number
  readonly #hotMs: number
  readonly #record: Uint32Array
  readonly #input: ArrayBuffer
  readonly #output: ArrayBuffer
  readonly #inputStride: number
  readonly #outputStride: number
  /** Slots whose call has begun and is not answered. */
  readonly #running = new Set<number>()
  #pending = 0
  #stopping = false
  #wake: (() => void) | undefined

  constructor(
    worker: NativeWorker,
    functions: ReadonlyMap<string, NodeFunction>,
    configuration: Configuration,
  ) {
    this.#worker = worker
    this.#names = [...functions.keys()]
    this.#functions = [...functions.values()]
    this.#index = configuration.worker
    this.#hotMs = configuration.hotTimeoutUs / 1000
    this.#record = new Uint32Array(worker.record)
    this.#input = worker.input
    this.#output = worker.output
    this.#inputStride = worker.inputStride
    this.#outputStride = worker.outputStride
  }

  /** Until stop(), and until the calls that run then have ended. */
  async run(): Promise<void> {
    let lastCall = performance.now()
    while (!this.#stopping) {
      // What runs asynchronously needs the loop more than a spin does.
      if (this.#serve(this.#pending > 0 ? 0 : Math.min(spinUs, this.#hotMs * 1000))) {
        lastCall = performance.now()
        await nextTurn()
      } else if (performance.now() - lastCall < this.#hotMs) {
        await nextTurn()
      } else {
        await this.#sleep()
        lastCall = performance.now()
      }
    }
    this.#worker.stop()
    while (this.#pending > 0) await new Promise<void>((resolve) => (this.#wake = resolve))
    this.#worker.stop() // lets the last answers out
  }

  stop(): void {
    this.#stopping = true
    this.#wake?.()
  }

  /** The process is about to end: whoever waits for a call learns why. */
  abandon(cause: string): void {
    for (const slot of this.#running) this.#worker.fail(slot, callStatuses.workerLost, cause)
    if (this.#running.size > 0) this.#worker.stop()
    this.#running.clear()
  }

  /** Calls that arrive within the budget, one after the other. False: there was none. */
  #serve(budgetUs: number): boolean {
    let slot = this.#worker.next(budgetUs)
    if (slot === again) return false
    for (let calls = 1; slot >= 0; ++calls) {
      const length = this.#call(slot)
      const more = calls < callsPerTurn && this.#pending === 0 && !this.#stopping
      if (length < 0) {
        if (!more) return true
        slot = this.#worker.next(budgetUs)
      } else if (more) {
        slot = this.#worker.replyNext(slot, length, budgetUs)
      } else {
        this.#worker.reply(slot, length)
        return true
      }
    }
    if (slot !== again) throw new Error(`the fabric failed with errno ${-slot}`)
    return true
  }

  /** Runs one call. The length of its result, or -1 if it is answered or will be. */
  #call(slot: number): number {
    const record = this.#record
    const index = record[workerRecord.function / 4] ?? 0
    const capacity = record[workerRecord.outputCapacity / 4] ?? 0
    const input = new Uint8Array(
      this.#input,
      slot * this.#inputStride + payloadOffset,
      record[workerRecord.inputLength / 4],
    )
    const output = new Uint8Array(this.#output, slot * this.#outputStride, capacity)
    const id = workerRecord.requestId / 4
    const context = new CallContext(
      this.#index,
      record[workerRecord.timeoutUs / 4] ?? 0,
      record[id] ?? 0,
      record[id + 1] ?? 0,
    )
    this.#running.add(slot)
    let result: unknown
    try {
      result = this.#functions[index]?.(input, output, context)
    } catch (error) {
      this.#fail(slot, callStatuses.functionError, describe(error))
      return -1
    }
    if (isThenable(result)) {
      this.#await(slot, index, result, output, context)
      return -1
    }
    return this.#accept(slot, result, output)
  }

  /** The length of a result that is in the output now, or -1 if it had to be refused. */
  #accept(slot: number, result: unknown, output: Uint8Array): number {
    const length = result instanceof Uint8Array ? result.byteLength : result
    if (typeof length !== 'number' || !Number.isInteger(length) || length < 0) {
      const what = result === null ? 'null' : typeof result === 'number' ? result : typeof result
      this.#fail(
        slot,
        callStatuses.functionError,
        `the function returned ${what}, must be a Uint8Array or the number of bytes that it wrote`,
      )
      return -1
    }
    if (length > output.byteLength) {
      this.#fail(
        slot,
        callStatuses.outputTooSmall,
        `the result has ${length} bytes, the output takes ${output.byteLength}`,
      )
      return -1
    }
    if (result instanceof Uint8Array) output.set(result)
    this.#running.delete(slot)
    return length
  }

  #await(
    slot: number,
    index: number,
    result: PromiseLike<unknown>,
    output: Uint8Array,
    context: CallContext,
  ): void {
    this.#pending += 1
    // The slot's memory is the function's until it settles. So a deadline aborts its signal and
    // waits; the client has its own clock. A function that goes on all the same loses its worker.
    let expired = false
    let timer: NodeJS.Timeout | undefined
    const { deadlineMs } = context
    if (deadlineMs !== undefined) {
      timer = setTimeout(
        () => {
          expired = true
          context.expire()
          timer = setTimeout(() => this.#expire(slot, index, context), deadlineGraceMs)
        },
        Math.max(0, deadlineMs - Date.now()),
      )
    }
    const settle = (answer: () => void): void => {
      clearTimeout(timer)
      this.#pending -= 1
      if (expired) {
        this.#fail(slot, callStatuses.deadline, 'the deadline passed before the function ended')
      } else {
        answer()
      }
      if (this.#stopping) this.#wake?.()
    }
    result.then(
      (value) =>
        settle(() => {
          const length = this.#accept(slot, value, output)
          if (length >= 0) this.#worker.reply(slot, length)
        }),
      (error: unknown) =>
        settle(() => this.#fail(slot, callStatuses.functionError, describe(error))),
    )
  }

  #expire(slot: number, index: number, context: CallContext): never {
    report({
      event: 'timeout',
      function: this.#names[index],
      requestId: context.requestId.toString(),
    })
    this.#fail(
      slot,
      callStatuses.deadline,
      'the function ran past its deadline; its worker is being restarted',
    )
    this.abandon('another function of this worker ran past its deadline')
    process.exit(timedOut)
  }

  #fail(slot: number, status: number, text: string): void {
    this.#running.delete(slot)
    this.#worker.fail(slot, status, text)
  }

  async #sleep(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve
      this.#worker.watch(resolve)
    })
    // A call that came before the channel was armed wakes nobody.
    if (!this.#serve(0) && !this.#stopping) await woken
    this.#wake = undefined
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as { then?: unknown }).then === 'function'
  )
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : `it threw ${String(error)}`
}
