// The functions of a deployed package: calls from the first one to the last.
//
// `invokeSync` is the shortest way there is: it writes a record, crosses into native code once and
// spins there until the result is in the caller's memory. `invoke` sends the same record and leaves
// the waiting to the event loop.
import type { ExecutorInfo, WorkerEndpoint } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { native, type NativeDevice, type NativeInvoker } from '../native.js'
import {
  defaultTimeoutMs,
  timeoutOf,
  type CallOptions,
  type InvokeOptions,
  type MapOptions,
} from './call-options.js'
import {
  iFunction,
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutcomes,
  iOutputCapacity,
  iOutputOffset,
  iOutputRegion,
  iPatience,
  iResultLength,
  iSlot,
  iTimeout,
  iWorker,
  oLength,
  oSlot,
  oStatus,
  outcomeWords,
  oWorker,
} from './call-record.js'
import { CallMemory, type Place } from './memory.js'
import { callError, sendError } from './outcome.js'
import { Staging } from './staging.js'
import { WaitingCalls, type Waiting } from './waiting.js'
import { WorkerConnection } from './worker-connection.js'

const { callStatuses, workerDown } = native.constants
const { ok, workerLost } = callStatuses

// The worker enforces a deadline and says so; only if it cannot does the client, a little later.
const graceUs = 50_000

export interface FunctionsSettings {
  slots: number
  payloadBytes: number
  outputBytes: number
  /** How long the event loop polls for results after the last one before it sleeps. */
  hotWaitMs: number
}

/** Made by `Lease.deploy`. */
export class Functions {
  /** Names of the package's functions. */
  readonly names: readonly string[]
  readonly #executor: ExecutorInfo
  readonly #settings: FunctionsSettings
  readonly #invoker: NativeInvoker
  readonly #memory: CallMemory
  readonly #record: Uint32Array
  readonly #indices: ReadonlyMap<string, number>
  readonly #workers: readonly WorkerConnection[]
  readonly #waiting: WaitingCalls
  readonly #onClose: (functions: Functions) => Promise<void>
  #closed: RfaasError | undefined
  #closing: Promise<void> | undefined
  // The last name and views that a synchronous call used, and where they lie: most programs use the
  // same again, and asking a view for its buffer costs as much as crossing into native code. A view
  // of registered memory never changes its place or length.
  #lastName = ''
  #lastIndex = -1
  #lastInput: Uint8Array | undefined
  #lastInputPlace: Place | undefined
  #lastOutput: Uint8Array | undefined
  #lastOutputPlace: Place | undefined

  private constructor(
    device: NativeDevice,
    executor: ExecutorInfo,
    settings: FunctionsSettings,
    onClose: (functions: Functions) => Promise<void>,
  ) {
    this.#executor = executor
    this.#settings = settings
    this.#onClose = onClose
    this.names = executor.functions
    this.#indices = new Map(executor.functions.map((name, index) => [name, index]))
    this.#invoker = native.createInvoker(device, executor.workers.length, settings.slots)
    this.#record = new Uint32Array(this.#invoker.record)
    this.#memory = new CallMemory(device, this.#invoker)
    const { slots, payloadBytes, outputBytes } = settings
    this.#workers = executor.workers.map((endpoint) => {
      const staging = new Staging(this.#memory, slots, payloadBytes, outputBytes)
      const onConnected = (): void => this.#waiting.pump()
      return new WorkerConnection(this.#invoker, endpoint, slots, staging, onConnected)
    })
    this.#waiting = new WaitingCalls((call) => this.#send(call))
  }

  /** Connects to all workers of an executor. @internal */
  static async connect(
    device: NativeDevice,
    executor: ExecutorInfo,
    settings: FunctionsSettings,
    onClose: (functions: Functions) => Promise<void>,
  ): Promise<Functions> {
    const functions = new Functions(device, executor, settings, onClose)
    try {
      await Promise.all(functions.#workers.map((worker) => worker.connect()))
    } catch (error) {
      functions.#invoker.close()
      throw error
    }
    return functions
  }

  /** The executor's id. @internal */
  get id(): string {
    return this.#executor.id
  }

  get workers(): number {
    return this.#workers.length
  }

  /** Registered memory for inputs and outputs: such bytes are not copied on this side. It belongs to
   * these functions and is gone when they are closed. */
  allocate(bytes: number): Uint8Array {
    if (this.#closed) throw this.#closed
    return this.#memory.allocate(bytes)
  }

  /**
   * Calls `name` and spins until its result is in `output`; returns the length of the result.
   * Blocks the thread: for functions that take microseconds. Views of `allocate()`d memory are used
   * in place, other bytes are copied.
   */
  invokeSync(name: string, input: Uint8Array, output: Uint8Array, options?: CallOptions): number {
    const record = this.#record
    const index = name === this.#lastName ? this.#lastIndex : this.#indexOf(name)
    const timeoutUs = options === undefined ? defaultTimeoutMs * 1000 : timeoutOf(options)
    let worker = this.#closed === undefined ? this.#pick() : -1
    if (worker < 0) worker = this.#spinForSlot(name, timeoutUs)
    const connection = this.#workers[worker] as WorkerConnection
    const slot = connection.free.pop() as number

    record[iWorker] = worker
    record[iSlot] = slot
    record[iFunction] = index
    record[iTimeout] = timeoutUs
    record[iPatience] = timeoutUs + graceUs

    if (input !== this.#lastInput) {
      this.#lastInputPlace = this.#memory.find(input)
      this.#lastInput = input
    }
    const from = this.#lastInputPlace
    if (from !== undefined) {
      record[iInputRegion] = from.index
      record[iInputOffset] = from.offset
      record[iInputLength] = from.length
    } else {
      this.#stageInput(connection, slot, input)
    }
    if (output !== this.#lastOutput) {
      this.#lastOutputPlace = this.#memory.find(output)
      this.#lastOutput = output
    }
    const to = this.#lastOutputPlace
    if (to !== undefined) {
      record[iOutputRegion] = to.index
      record[iOutputOffset] = to.offset
      record[iOutputCapacity] = to.length
    } else {
      const capacity = Math.min(output.byteLength, this.#settings.outputBytes)
      connection.staging.nameOutput(record, slot, capacity)
    }

    const status = this.#invoker.call()
    const length = record[iResultLength] ?? 0
    if (status === ok) {
      connection.free.push(slot)
      if (to === undefined) output.set(connection.staging.output(slot, length))
      return length
    }
    return this.#failSync(name, connection, worker, slot, status, length)
  }

  /** Calls `name` and resolves with a copy of its result. Waits for a free slot if there is none. */
  async invoke(name: string, input: Uint8Array, options: InvokeOptions = {}): Promise<Uint8Array> {
    if (this.#closed) throw this.#closed
    if (!(input instanceof Uint8Array)) throw invalidArgument('input', input, 'a Uint8Array')
    const index = this.#indexOf(name)
    if (input.byteLength > this.#settings.payloadBytes) throw this.#tooLarge(name, input)
    const timeoutUs = timeoutOf(options)
    options.signal?.throwIfAborted()
    return new Promise((resolve, reject) => {
      const call: Waiting = {
        name,
        index,
        input,
        timeoutUs,
        deadline: performance.now() + (timeoutUs + graceUs) / 1000,
        resolve,
        reject,
        signal: options.signal,
        onAbort: undefined,
        settled: false,
      }
      this.#waiting.add(call)
    })
  }

  /** Calls `name` once per input, in parallel over the workers; the results are in the same order.
   * The first failure rejects, and no further input is sent. */
  async map(
    name: string,
    inputs: readonly Uint8Array[],
    options: MapOptions = {},
  ): Promise<Uint8Array[]> {
    const { concurrency = this.#workers.length * this.#settings.slots, ...rest } = options
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw invalidArgument('concurrency', concurrency, 'a whole number of at least 1')
    }
    const results = new Array<Uint8Array>(inputs.length)
    const entries = inputs.entries()
    let failed = false
    const lane = async (): Promise<void> => {
      for (const [i, input] of entries) {
        if (failed) return
        try {
          results[i] = await this.invoke(name, input, rest)
        } catch (error) {
          failed = true
          throw error
        }
      }
    }
    await Promise.all(Array.from({ length: Math.min(concurrency, inputs.length) }, lane))
    return results
  }

  /** Waits for the calls in flight, then ends the executor. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** Ends all calls with `error`, now. Idempotent. */
  destroy(error = new RfaasError('ERR_RFAAS_CLOSED', 'the functions are closed')): void {
    if (this.#closed) return
    this.#closed = error
    for (const worker of this.#workers) worker.close()
    this.#invoker.close()
    this.#waiting.close(error)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    if (this.#closed) return
    await this.#waiting.drained()
    this.destroy()
    await this.#onClose(this)
  }

  // ── what the executor manager tells ─────────────────────────────────────────────────────────

  /** @internal */
  workerLost(worker: number, cause: string): void {
    if (this.#closed) return
    this.#workers[worker]?.tellCause(cause)
    // What it answered before it ended is still to be had; the rest ends with the connection.
    this.#onOutcomes(this.#invoker.poll())
    this.#invoker.disconnect(worker)
    this.#onOutcomes(this.#invoker.poll())
  }

  /** Its lease is over on its node: nobody takes its place. @internal */
  workerGone(worker: number, cause: string): void {
    this.workerLost(worker, cause)
    this.#workers[worker]?.close()
  }

  /** @internal */
  async workerReady(endpoint: WorkerEndpoint): Promise<void> {
    const worker = this.#workers[endpoint.worker]
    if (this.#closed || worker === undefined || worker.connected) return
    await worker.connect(endpoint)
  }

  // ── calls ───────────────────────────────────────────────────────────────────────────────────

  /** The connected worker with the most free slots, or -1. */
  #pick(): number {
    let best = -1
    let most = 0
    const workers = this.#workers
    for (let i = 0; i < workers.length; ++i) {
      const worker = workers[i]
      if (worker !== undefined && worker.connected && worker.free.length > most) {
        best = i
        most = worker.free.length
        if (most === this.#settings.slots) break
      }
    }
    return best
  }

  /** A worker with a free slot: awaited calls hold them all, and their outcomes set one free. */
  #spinForSlot(name: string, timeoutUs: number): number {
    if (this.#closed) throw this.#closed
    const deadline = performance.now() + timeoutUs / 1000
    for (;;) {
      if (!this.#workers.some(({ connected }) => connected)) throw sendError(name, -107)
      this.#takeOutcomes(this.#invoker.poll())
      const worker = this.#pick()
      if (worker >= 0) {
        // Slots that were freed here are for the calls that wait, once ours has its own.
        queueMicrotask(() => this.#waiting.pump())
        return worker
      }
      if (performance.now() >= deadline) throw sendError(name, -11)
    }
  }

  /** False: there is no free slot now. */
  #send(call: Waiting): boolean {
    const worker = this.#pick()
    const connection = worker < 0 ? undefined : this.#workers[worker]
    const slot = connection?.free.pop()
    if (connection === undefined || slot === undefined) return false
    const record = this.#record
    const from = this.#memory.find(call.input)
    record[iWorker] = worker
    record[iSlot] = slot
    record[iFunction] = call.index
    record[iTimeout] = call.timeoutUs
    if (from !== undefined) {
      record[iInputRegion] = from.index
      record[iInputOffset] = from.offset
      record[iInputLength] = from.length
    } else {
      this.#stageInput(connection, slot, call.input)
    }
    connection.staging.nameOutput(record, slot, this.#settings.outputBytes)
    const errno = this.#invoker.submit()
    if (errno < 0) {
      connection.free.push(slot)
      if (errno === -107)
        connection.connected = false // the loss is about to be delivered
      else this.#waiting.reject(call, sendError(call.name, errno))
      return errno !== -107
    }
    connection.calls[slot] = call
    this.#attend()
    return true
  }

  #attend(): void {
    this.#invoker.attend(this.#onOutcomes, this.#settings.hotWaitMs * 1000)
  }

  readonly #onOutcomes = (count: number): void => {
    this.#takeOutcomes(count)
    this.#waiting.pump()
  }

  #takeOutcomes(count: number): void {
    const record = this.#record
    for (let i = 0, at = iOutcomes; i < count; ++i, at += outcomeWords) {
      const worker = record[at + oWorker] ?? 0
      const slot = record[at + oSlot] ?? 0
      const status = record[at + oStatus] ?? 0
      const length = record[at + oLength] ?? 0
      const connection = this.#workers[worker]
      if (connection === undefined) continue
      if (slot === workerDown) {
        connection.down()
        continue
      }
      const call = connection.calls[slot]
      connection.calls[slot] = undefined
      if (call !== undefined && !call.settled)
        this.#settle(call, connection, worker, slot, status, length)
      connection.free.push(slot)
    }
  }

  #settle(
    call: Waiting,
    connection: WorkerConnection,
    worker: number,
    slot: number,
    status: number,
    length: number,
  ): void {
    if (status === ok) {
      this.#waiting.resolve(call, connection.staging.output(slot, length).slice())
      return
    }
    const text = length === 0 ? '' : this.#invoker.errorText(worker, slot, length)
    if (status !== workerLost || text !== '') {
      this.#waiting.reject(call, callError(call.name, status, text))
      return
    }
    // The connection broke: the executor manager knows why, and says so in a moment.
    void connection.causeOfEnd().then((cause) => {
      const said = cause === '' ? '' : `${cause}; the call may or may not have run`
      this.#waiting.reject(call, callError(call.name, status, said))
    })
  }

  #failSync(
    name: string,
    connection: WorkerConnection,
    worker: number,
    slot: number,
    status: number,
    length: number,
  ): never {
    if (status < 0) {
      connection.free.push(slot)
      if (status === -107) connection.connected = false
      throw sendError(name, status)
    }
    const late = status === callStatuses.deadline && length === 0
    // The worker has not answered: the slot stays taken until it does, or is lost.
    if (late) this.#attend()
    else connection.free.push(slot)
    if (status === workerLost) connection.connected = false
    throw callError(name, status, length === 0 ? '' : this.#invoker.errorText(worker, slot, length))
  }

  #indexOf(name: string): number {
    const index = this.#indices.get(name)
    if (index === undefined) {
      const known = this.names.slice(0, 10).join(', ') + (this.names.length > 10 ? ', …' : '')
      throw new RfaasError(
        'ERR_RFAAS_UNKNOWN_FUNCTION',
        `the package has no function ${JSON.stringify(name)}; it has ${known}`,
        { field: 'name', value: name },
      )
    }
    this.#lastName = name
    this.#lastIndex = index
    return index
  }

  #tooLarge(name: string, input: Uint8Array): RfaasError {
    const { payloadBytes } = this.#settings
    return new RfaasError(
      'ERR_RFAAS_PAYLOAD_TOO_LARGE',
      `${name}: the input has ${input.byteLength} bytes, a slot takes ${payloadBytes} (deploy with a larger payload)`,
      { field: 'input', value: input.byteLength, allowed: `at most ${payloadBytes} bytes` },
    )
  }

  #stageInput(connection: WorkerConnection, slot: number, input: Uint8Array): void {
    if (input.byteLength > this.#settings.payloadBytes) {
      connection.free.push(slot)
      throw this.#tooLarge('invoke', input)
    }
    connection.staging.putInput(this.#record, slot, input)
  }
}
