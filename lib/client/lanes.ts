// Many calls of one function, in lanes: one `Waiting` stands for all calls that follow each other in a
// slot. One for each call is a third of what short calls cost. Calls over records follow each other in
// the addon, as long as they succeed and nobody else wants the slot. Methods and not functions that are
// made for each map: what runs once a call must become one piece of code.
import { invalidArgument } from '../errors.js'
import type { AwaitedCalls } from './awaited-calls.js'
import { rNext } from './call-record.js'
import type { Records } from './records.js'
import { waitingCall, type Request, type Waiting } from './waiting.js'

const noInput = new Uint8Array(0)

abstract class Lanes {
  readonly #awaited: AwaitedCalls
  readonly #lanes: Waiting[] = []
  readonly #count: number
  readonly #records: Records | undefined
  /** Its first word counts the calls that have begun. The addon counts there, too. */
  readonly #run: Uint32Array
  #open = 1 // until all lanes have begun
  #failure: { error: unknown } | undefined
  #resolve!: () => void
  #reject!: (error: unknown) => void

  /** `records`: results are written to the caller's memory. */
  constructor(awaited: AwaitedCalls, count: number, records?: Records) {
    this.#awaited = awaited
    this.#count = count
    this.#records = records
    this.#run = records?.run ?? new Uint32Array(rNext + 1)
  }

  /** Makes `call` the one number `index`; throws if that cannot be sent. */
  protected abstract begin(call: Waiting, index: number): void
  /** Takes the result of that one, of `length` bytes. */
  protected abstract took(index: number, result: Uint8Array, length: number): void

  /** Resolves when all calls are done. The first that fails rejects, and no further one is sent: at
   * once, or if results are written to the caller's memory, when no other is on its way there. */
  run(request: Request, concurrency: number): Promise<void> {
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw invalidArgument('concurrency', concurrency, 'a whole number of at least 1')
    }
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
      const end = (): void => this.#end()
      const failed = (error: unknown): void => {
        this.#fail(error)
        this.#end()
      }
      while (this.#lanes.length < concurrency) {
        const call = waitingCall(request, noInput, end, failed, this, this.#records)
        if (!this.#takeNext(call)) break
        this.#lanes.push(call)
        this.#open += 1
        this.#awaited.begin(call)
      }
      this.#end()
      this.#awaited.sendQueued()
    })
  }

  /** Takes the result of a lane's call and makes it the next one; false: there is none. */
  goOn(call: Waiting, result: Uint8Array, length: number): boolean {
    this.took(call.tag, result, length)
    return this.#takeNext(call)
  }

  #takeNext(call: Waiting): boolean {
    const index = this.#run[rNext]!
    if (index >= this.#count) return false
    try {
      this.begin(call, index)
    } catch (error) {
      this.#fail(error)
      return false
    }
    this.#run[rNext] = index + 1
    call.tag = index
    return true
  }

  #fail(error: unknown): void {
    this.#run[rNext] = this.#count
    this.#failure ??= { error }
    if (this.#records === undefined) this.#reject(error)
    for (const lane of this.#lanes) this.#awaited.withdraw(lane)
  }

  #end(): void {
    this.#open -= 1
    if (this.#open > 0) return
    if (this.#failure === undefined) this.#resolve()
    else this.#reject(this.#failure.error)
  }
}

export type Many = Pick<Lanes, 'goOn'>

/** `results` gets a copy of each result. */
export class InputLanes extends Lanes {
  readonly #inputs: readonly Uint8Array[]
  readonly #results: Uint8Array[]
  readonly #check: (input: Uint8Array) => void

  constructor(
    awaited: AwaitedCalls,
    inputs: readonly Uint8Array[],
    results: Uint8Array[],
    check: (input: Uint8Array) => void,
  ) {
    super(awaited, inputs.length)
    this.#inputs = inputs
    this.#results = results
    this.#check = check
  }

  protected begin(call: Waiting, index: number): void {
    const input = this.#inputs[index]!
    this.#check(input)
    call.input = input
  }

  protected took(index: number, result: Uint8Array): void {
    this.#results[index] = result
  }
}

export class RecordLanes extends Lanes {
  readonly #lengths: Uint32Array

  constructor(awaited: AwaitedCalls, records: Records) {
    super(awaited, records.lengths.length, records)
    this.#lengths = records.lengths
  }

  protected begin(): void {}

  protected took(index: number, _: Uint8Array, length: number): void {
    this.#lengths[index] = length
  }
}
