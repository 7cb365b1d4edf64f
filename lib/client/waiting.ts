// Calls that wait: for a slot, in order, and for their outcome. Every one of them settles, at the
// latest by its deadline.
import { RfaasError, type ErrorCode } from '../errors.js'
import { graceUs } from './call-options.js'
import type { Many } from './lanes.js'
import type { Records } from './records.js'
import type { WorkerConnection } from './worker-connection.js'

// One timer for all calls, because one for each would cost as much as the call: a deadline may be
// noticed two ticks late on this side.
const tickMs = 20

/** Of calls whose results are in the caller's memory, or that have none. */
export const noResult = new Uint8Array(0)

/** What the caller said of a call, or of many. */
export interface Request {
  name: string
  index: number
  timeoutUs: number
  idempotent: boolean
  signal: AbortSignal | undefined
}

export interface Waiting extends Request {
  input: Uint8Array
  /** By performance.now(); Infinity: no clock has been read for it yet. */
  deadline: number
  resolve: (result: Uint8Array) => void
  /** Of a call that stands for many, one after the other. */
  many: Many | undefined
  /** Which of the many it is now. */
  tag: number
  /** Where inputs and results of the many are, if they are records; else results are copies. */
  records: Records | undefined
  reject: (error: unknown) => void
  onAbort: (() => void) | undefined
  settled: boolean
  /** The worker that has it, and in which slot. */
  at: WorkerConnection | undefined
  slot: number
  /** A worker that is gone may have run it. */
  mayHaveRun: boolean
  /** It was not sent at once: its time has been running. */
  waited: boolean
  /** Neighbours among the open calls. */
  previous: Waiting | undefined
  next: Waiting | undefined
}

/** A call that has not been sent yet. */
export function waitingCall(
  { name, index, timeoutUs, signal, idempotent }: Request,
  input: Uint8Array,
  resolve: Waiting['resolve'],
  reject: Waiting['reject'],
  many?: Many,
  records?: Records,
): Waiting {
  // In this order: what changes with each of many calls is in two cache lines and not in three, and the
  // calls in flight fit a core's first cache.
  return {
    index,
    timeoutUs,
    input,
    // Not 0: a field that was made for a small integer and gets another number changes the shape of all
    // such objects, and V8 may go on making them in the old one and changing each, which takes thrice as
    // long as the call.
    deadline: Infinity,
    many,
    tag: 0,
    records,
    settled: false,
    at: undefined,
    slot: 0,
    mayHaveRun: false,
    waited: false,
    name,
    idempotent,
    resolve,
    reject,
    signal,
    onAbort: undefined,
    previous: undefined,
    next: undefined,
  }
}

/** What calls that wait need of those who send them. */
export interface Sending {
  /** Tries to send a call; false: not now. */
  send(call: Waiting): boolean
  /** Whether calls wait for a slot has changed. */
  hold(queued: boolean): void
  /** Takes outcomes that are there. Asked for once a tick: a worker that answers many calls does not make
   * sure that it wakes somebody who goes to sleep in that very moment. */
  look(): void
}

export class WaitingCalls {
  readonly #sending: Sending
  // A list through the calls themselves: an entry in a Set costs a tenth of a call.
  #first: Waiting | undefined
  #queue: Waiting[] = []
  #ticker: NodeJS.Timeout | undefined
  #onDrained: (() => void)[] = []

  constructor(sending: Sending) {
    this.#sending = sending
  }

  /** Calls wait for their turn to be sent. */
  get queued(): boolean {
    return this.#queue.length > 0
  }

  /** From now on the call is open: it settles, whatever becomes of it. */
  open(call: Waiting): void {
    call.next = this.#first
    if (this.#first !== undefined) this.#first.previous = call
    this.#first = call
    const { signal } = call
    if (signal !== undefined) {
      call.onAbort = () =>
        this.#giveUp(call, 'ERR_RFAAS_ABORTED', 'the caller stopped waiting', signal.reason)
      signal.addEventListener('abort', call.onAbort, { once: true })
    }
    this.#ticker ??= setInterval(() => this.#tick(), tickMs)
  }

  /** Sends an open call when those before it are sent. */
  enqueue(call: Waiting): void {
    this.#waits(call)
    this.#queue.push(call)
    this.#sending.hold(true)
  }

  /** Sends a call once more, before those that have not been sent yet. */
  repeat(call: Waiting): void {
    call.at = undefined
    this.#waits(call)
    if (call.settled) return
    this.#queue.unshift(call)
    this.#sending.hold(true)
  }

  /** There may be free slots: sends what waits for one. */
  pump(): void {
    let sent = 0
    for (const call of this.#queue) {
      if (!call.settled && !this.#try(call)) break
      sent += 1
    }
    if (sent > 0) this.#queue = this.#queue.slice(sent)
    this.#sending.hold(this.queued)
  }

  resolve(call: Waiting, result: Uint8Array): void {
    if (this.#end(call)) call.resolve(result)
  }

  reject(call: Waiting, error: unknown): void {
    if (this.#end(call)) call.reject(error)
  }

  /** A call that is not on its way to a worker is not sent any more; what becomes of the others is
   * waited for. */
  withdraw(call: Waiting): void {
    if (call.at === undefined) this.resolve(call, noResult)
  }

  /** Resolves when no call waits. */
  drained(): Promise<void> {
    if (this.#first === undefined) return Promise.resolve()
    return new Promise((resolve) => this.#onDrained.push(resolve))
  }

  close(reason: RfaasError): void {
    this.#queue = []
    while (this.#first !== undefined) this.#giveUp(this.#first, reason.code, reason.message)
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
      return this.#sending.send(call)
    } catch (error) {
      this.reject(call, error)
      return true
    }
  }

  #end(call: Waiting): boolean {
    if (call.settled) return false
    call.settled = true
    if (call.onAbort !== undefined) call.signal?.removeEventListener('abort', call.onAbort)
    this.#unlink(call)
    if (this.#first === undefined) {
      for (const resolve of this.#onDrained.splice(0)) resolve()
    }
    return true
  }

  #unlink(call: Waiting): void {
    if (call.previous === undefined) this.#first = call.next
    else call.previous.next = call.next
    if (call.next !== undefined) call.next.previous = call.previous
    call.previous = call.next = undefined
  }

  #waits(call: Waiting): void {
    call.waited = true
    startTime(call, performance.now())
  }

  #tick(): void {
    if (this.#first !== undefined) this.#sending.look()
    if (this.#first === undefined) {
      clearInterval(this.#ticker)
      this.#ticker = undefined
      return
    }
    const now = performance.now()
    let next: Waiting | undefined
    for (let call: Waiting | undefined = this.#first; call !== undefined; call = next) {
      next = call.next // if that ends together with this one, the others are for the next tick
      catchUp(call)
      startTime(call, now)
      if (call.settled || now < call.deadline) continue
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

/** Calls over records follow each other in a slot without being told of: `call` becomes the one that was
 * sent last. */
export function catchUp(call: Waiting): void {
  if (call.records === undefined || call.at === undefined) return
  const record = call.at.turnOf(call.slot)
  if (record === call.tag) return
  call.tag = record
  renew(call)
}

/** It stands for the next of many calls. */
export function renew(call: Waiting): void {
  call.deadline = Infinity
  call.waited = call.mayHaveRun = false
}

/** A call's time runs from the first tick that it sees: one that takes microseconds sees none, and
 * reading the clock for it would be a tenth of what it costs. */
function startTime(call: Waiting, now: number): void {
  if (call.deadline === Infinity) call.deadline = now + (call.timeoutUs + graceUs) / 1000
}
