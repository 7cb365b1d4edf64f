// Completions of work requests, and the ways of waiting for them.
import { invalidArgument, RfaasError } from '../errors.js'
import {
  native,
  type NativeCompletionQueue,
  type NativeOpcode,
  type NativeStatus,
} from '../native.js'
import { closedError, codeError } from './checks.js'
import { startWait, type Wait, type WaitOptions } from './wait.js'

export type Opcode = NativeOpcode
/** How a request ended. Check it: only 'success' says that the bytes are there. */
export type Status = NativeStatus

export interface Completion {
  /** The id that the request was posted with. */
  readonly id: number
  readonly status: Status
  readonly opcode: Opcode
  /** QueuePair.number of the queue pair it was posted to. */
  readonly queuePair: number
  /** Bytes that arrived; meaningful for receives, reads and atomics. */
  readonly byteLength: number
  /** The peer's immediate value; undefined if it sent none. */
  readonly immediate: number | undefined
}

export interface SpinOptions {
  /** How long to spin at most. Give one of the two. */
  timeoutMs?: number
  budgetNs?: number
}

const layout = native.constants.completionRecord
const words = layout.size / 4
const opcodes = namesByNumber<Opcode>(native.constants.opcodes)
const statuses = namesByNumber<Status>(native.constants.statuses)

function namesByNumber<Name extends string>(numbers: Readonly<Record<Name, number>>): Name[] {
  const names: Name[] = []
  for (const name of Object.keys(numbers) as Name[]) names[numbers[name]] = name
  return names
}

/** @internal what a device is to the objects that it makes */
export interface DeviceScope {
  readonly closed: boolean
  /** What has something pending and must hear of it when the device closes. */
  readonly children: Set<{ close(): void }>
}

/**
 * Where the requests of one or more queue pairs complete.
 *
 * Three ways of looking, from the cheapest: `poll()` looks once; `spin()` is the *hot* wait, it
 * blocks the thread and polls within one native call; `wait()` is the *warm* one, it sleeps in the
 * event loop. `pollRecords()` and `spinRecords()` do the same without making objects: they return
 * a count, and the accessors (`idAt()` and so on) read the completions until the next look.
 */
export class CompletionQueue {
  readonly #native: NativeCompletionQueue
  readonly #bytes: Uint8Array
  readonly #words: Uint32Array
  #waiting: Wait<undefined> | undefined
  #closed = false
  readonly #owner: DeviceScope
  readonly depth: number
  /** The most completions that one look returns. */
  readonly batch: number

  /** @internal use Device.createCompletionQueue() */
  constructor(nativeQueue: NativeCompletionQueue, depth: number, owner: DeviceScope) {
    this.#native = nativeQueue
    const { records } = nativeQueue
    this.#bytes = new Uint8Array(records)
    this.#words = new Uint32Array(records)
    this.depth = depth
    this.batch = records.byteLength / layout.size
    this.#owner = owner
  }

  /** @internal */
  get native(): NativeCompletionQueue {
    return this.#native
  }

  /** @internal its live queue pairs, which close with it */
  readonly queuePairs = new Set<{ close(): void }>()

  /** @internal */
  belongsTo(owner: DeviceScope): boolean {
    return owner === this.#owner
  }

  get closed(): boolean {
    return this.#closed || this.#owner.closed
  }

  /** The completions that are there now; an empty array if there are none. */
  poll(max = this.batch): Completion[] {
    return this.#take(this.pollRecords(max), 'poll')
  }

  /** Spins until there is a completion, or returns an empty array when the time is over. */
  spin(options: SpinOptions): Completion[] {
    const { timeoutMs, budgetNs } = options
    if ((timeoutMs === undefined) === (budgetNs === undefined)) {
      throw invalidArgument('options', options, 'exactly one of timeoutMs and budgetNs')
    }
    const budgetUs = timeoutMs === undefined ? (budgetNs ?? 0) / 1000 : timeoutMs * 1000
    if (!(budgetUs >= 0 && budgetUs <= 1e12)) {
      const field = timeoutMs === undefined ? 'budgetNs' : 'timeoutMs'
      throw invalidArgument(field, timeoutMs ?? budgetNs, 'from 0 to eleven days')
    }
    return this.#take(this.spinRecords(this.batch, budgetUs), 'spin')
  }

  /**
   * Sleeps until there is a completion, and keeps the process alive meanwhile. One wait at a time:
   * two would have to guess whose completion it is.
   */
  async wait(options: WaitOptions = {}): Promise<Completion[]> {
    if (this.#waiting !== undefined) {
      throw new RfaasError('ERR_RFAAS_FABRIC', 'wait: another wait of this queue is pending', {
        syscall: 'wait',
      })
    }
    const waiting = startWait<undefined>('wait', options, () => {
      this.#waiting = undefined
      this.#owner.children.delete(this)
      this.#native.unwatch()
    })
    this.#waiting = waiting
    this.#owner.children.add(this)
    // The race below takes a rejection or, if completions came first, nobody does.
    waiting.promise.catch(() => undefined)
    try {
      for (;;) {
        const early = this.poll()
        if (early.length > 0) return early
        const failed = this.#native.arm()
        if (failed < 0) throw codeError(failed, 'arm')
        // What came before arm() does not wake anybody.
        const late = this.poll()
        if (late.length > 0) return late
        const woken = new Promise<void>((resolve) => this.#native.watch(resolve))
        await Promise.race([woken, waiting.promise])
      }
    } finally {
      waiting.resolve(undefined)
    }
  }

  /** Looks once: how many completions the accessors can read, or a negative errno. */
  pollRecords(max: number): number {
    return this.#native.poll(max)
  }

  /** As pollRecords(), but spins for up to `budgetUs` microseconds while there is none. */
  spinRecords(max: number, budgetUs: number): number {
    return this.#native.spin(max, budgetUs)
  }

  /** Ids are exact up to 2^53. */
  idAt(i: number): number {
    const at = i * words + layout.id / 4
    return (this.#words[at + 1] ?? 0) * 0x100000000 + (this.#words[at] ?? 0)
  }

  queuePairAt(i: number): number {
    return this.#words[i * words + layout.queuePair / 4] ?? 0
  }

  byteLengthAt(i: number): number {
    return this.#words[i * words + layout.byteLength / 4] ?? 0
  }

  immediateAt(i: number): number | undefined {
    if (this.#bytes[i * layout.size + layout.hasImmediate] === 0) return undefined
    return this.#words[i * words + layout.immediate / 4]
  }

  statusAt(i: number): Status {
    return statuses[this.#bytes[i * layout.size + layout.status] ?? 0] ?? 'fatal'
  }

  opcodeAt(i: number): Opcode {
    return opcodes[this.#bytes[i * layout.size + layout.opcode] ?? 0] ?? 'send'
  }

  completionAt(i: number): Completion {
    return {
      id: this.idAt(i),
      status: this.statusAt(i),
      opcode: this.opcodeAt(i),
      queuePair: this.queuePairAt(i),
      byteLength: this.byteLengthAt(i),
      immediate: this.immediateAt(i),
    }
  }

  /** Closes its queue pairs first. A pending wait fails with ERR_RFAAS_CLOSED. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const queuePair of [...this.queuePairs]) queuePair.close()
    this.#waiting?.reject(closedError('completion queue'))
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #take(count: number, syscall: string): Completion[] {
    if (count < 0) throw codeError(count, syscall)
    const completions: Completion[] = []
    for (let i = 0; i < count; i++) completions.push(this.completionAt(i))
    return completions
  }
}

/** @internal */
export function checkCompletionQueue(
  field: string,
  value: unknown,
  owner: DeviceScope,
): CompletionQueue {
  if (!(value instanceof CompletionQueue) || !value.belongsTo(owner)) {
    throw invalidArgument(field, value, 'a CompletionQueue of the same device')
  }
  if (value.closed) throw closedError('completion queue')
  return value
}
