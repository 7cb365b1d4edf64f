// The functions of a deployed package: calls from the first one to the last.
//
// `invokeSync` is the shortest way there is: it writes a record, crosses into native code once and
// spins there until the result is in the caller's memory. `invoke` sends the same record and leaves
// the waiting to the event loop.
import type { ExecutorInfo, WorkerEndpoint } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { native, type NativeDevice, type NativeInvoker } from '../native.js'
import { AwaitedCalls } from './awaited-calls.js'
import {
  defaultTimeoutMs,
  graceUs,
  timeoutOf,
  type CallOptions,
  type FunctionsSettings,
  type InvokeOptions,
  type MapOptions,
  type RecordOptions,
} from './call-options.js'
import {
  iFunction,
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutputCapacity,
  iOutputOffset,
  iOutputRegion,
  iPatience,
  iResultLength,
  iSlot,
  iTimeout,
  iWorker,
  turnWords,
} from './call-record.js'
import { InputLanes, RecordLanes } from './lanes.js'
import { CallMemory, PlaceFinder } from './memory.js'
import { callError, errnos, sendError } from './outcome.js'
import { Records } from './records.js'
import { Staging } from './staging.js'
import type { Request } from './waiting.js'
import { pickWorker, refusalOf, WorkerConnection } from './worker-connection.js'

const { ok, deadline, workerLost, leaseRevoked, leaseEnded, notReceived } =
  native.constants.callStatuses

// How long a synchronous call tries to reach a worker when none is connected.
const resumeUs = 1_000_000

const connectionBroke = 'the connection to its worker broke; the call may or may not have run'

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
  readonly #awaited: AwaitedCalls
  readonly #onClose: (functions: Functions) => Promise<void>
  #closed: RfaasError | undefined
  #closing: Promise<void> | undefined
  readonly #inputs: PlaceFinder
  readonly #outputs: PlaceFinder
  // Most programs call the same function again.
  #lastName = ''
  #lastIndex = -1

  private constructor(
    device: NativeDevice,
    executor: ExecutorInfo,
    settings: FunctionsSettings,
    watched: (worker: number) => boolean,
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
    this.#inputs = new PlaceFinder(this.#memory)
    this.#outputs = new PlaceFinder(this.#memory)
    const { slots, payloadBytes, outputBytes } = settings
    const turns = new Uint32Array(this.#invoker.turns)
    this.#workers = executor.workers.map((endpoint) => {
      const first = endpoint.worker * slots * turnWords
      const staging = new Staging(this.#memory, slots, payloadBytes, outputBytes)
      const worker: WorkerConnection = new WorkerConnection(
        this.#invoker,
        endpoint,
        slots,
        turns.subarray(first, first + slots * turnWords),
        staging,
        {
          watched: () => watched(endpoint.worker),
          connected: () => this.#connected(),
          doubtful: () => this.#awaited.repeatDoubtful(worker),
          outcomes: () => this.#awaited.collect(),
        },
      )
      return worker
    })
    this.#awaited = new AwaitedCalls(
      this.#invoker,
      this.#record,
      this.#memory,
      this.#workers,
      settings,
    )
  }

  /** Connects to all workers of an executor. `watched`: whether somebody calls `workerLost` should
   * this one end. @internal */
  static async connect(
    device: NativeDevice,
    executor: ExecutorInfo,
    settings: FunctionsSettings,
    watched: (worker: number) => boolean,
    onClose: (functions: Functions) => Promise<void>,
  ): Promise<Functions> {
    const functions = new Functions(device, executor, settings, watched, onClose)
    try {
      await Promise.all(functions.#workers.map((worker) => worker.connect()))
    } catch (error) {
      functions.destroy()
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
    let worker = this.#closed === undefined ? pickWorker(this.#workers, this.#settings.slots) : -1
    if (worker < 0) worker = this.#spinForSlot(name, timeoutUs)
    const connection = this.#workers[worker] as WorkerConnection
    const slot = connection.free.pop() as number

    record[iWorker] = worker
    record[iSlot] = slot
    record[iFunction] = index
    record[iTimeout] = timeoutUs
    record[iPatience] = timeoutUs + graceUs

    const from = this.#inputs.find(input)
    if (from !== undefined) {
      record[iInputRegion] = from.index
      record[iInputOffset] = from.offset
      record[iInputLength] = from.length
    } else {
      this.#stageInput(connection, slot, input)
    }
    const to = this.#outputs.find(output)
    if (to !== undefined) {
      record[iOutputRegion] = to.index
      record[iOutputOffset] = to.offset
      record[iOutputCapacity] = to.length
    } else {
      const capacity = Math.min(output.byteLength, this.#settings.outputBytes)
      connection.staging.nameOutput(record, 0, slot, capacity)
    }

    const status = this.#invoker.call()
    const length = record[iResultLength] ?? 0
    if (status === ok) {
      connection.free.push(slot)
      if (to === undefined) output.set(connection.staging.output(slot, length))
      return length
    }
    return this.#finishSync(name, input, output, options, status)
  }

  /** Calls `name` and resolves with a copy of its result. Waits for a free slot if there is none. */
  invoke(name: string, input: Uint8Array, options: InvokeOptions = {}): Promise<Uint8Array> {
    try {
      this.#check(name, input)
      return this.#awaited.start(this.#request(name, options), input)
    } catch (error) {
      return Promise.reject(error as Error)
    }
  }

  /** Calls `name` once per input, in parallel over the workers; the results are in the same order.
   * The first failure rejects, and no further input is sent. */
  async map(
    name: string,
    inputs: readonly Uint8Array[],
    options: MapOptions = {},
  ): Promise<Uint8Array[]> {
    const results = new Array<Uint8Array>(inputs.length)
    const check = (input: Uint8Array): void => this.#check(name, input)
    const lanes = new InputLanes(this.#awaited, inputs, results, check)
    await lanes.run(this.#request(name, options), this.#concurrencyOf(options))
    return results
  }

  /**
   * `map` for many small inputs: `inputs` and `outputs` are `allocate()`d memory, or views of it, that
   * consists of records of `inputBytes` and `outputBytes`. Each input is sent from where it is and each
   * result written to its place in `outputs`; neither is copied on this side and nothing is allocated
   * for a call. Resolves with the length of each result; a shorter one leaves the rest of its record
   * as it was.
   *
   * Until the promise settles the memory belongs to the calls. A failure rejects when no other call
   * is waited for any longer. But a call that ran out of time, was aborted or lost its connection may
   * still run, and then writes to its own record when it is done, as long as the functions are open.
   */
  async mapRecords(
    name: string,
    inputs: Uint8Array,
    outputs: Uint8Array,
    options: RecordOptions,
  ): Promise<Uint32Array> {
    if (this.#closed) throw this.#closed
    const records = new Records(this.#memory, inputs, outputs, options)
    this.#checkFits(name, options.inputBytes)
    const request = this.#request(name, options)
    const lanes = new RecordLanes(this.#awaited, records)
    records.begin(this.#invoker, request)
    try {
      await lanes.run(request, this.#concurrencyOf(options))
    } finally {
      records.end(this.#invoker)
    }
    return records.lengths
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
    this.#awaited.close(error)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Resolves when no call is in flight. @internal */
  drained(): Promise<void> {
    return this.#awaited.drained()
  }

  async #close(): Promise<void> {
    if (this.#closed) return
    await this.drained()
    this.destroy()
    await this.#onClose(this)
  }

  // ── what the executor manager tells ─────────────────────────────────────────────────────────

  /** @internal */
  workerLost(worker: number, cause: string, lastStarted: number): void {
    this.#workers[worker]?.ended(cause, lastStarted)
  }

  /** Its lease is over on its node: nobody takes its place. @internal */
  workerGone(worker: number, cause: string): void {
    this.#workers[worker]?.refuse(leaseEnded)
    this.#workers[worker]?.ended(cause, Infinity)
    this.#workers[worker]?.close()
  }

  /** @internal */
  async workerReady(endpoint: WorkerEndpoint): Promise<void> {
    const worker = this.#workers[endpoint.worker]
    if (this.#closed || worker === undefined || worker.isAt(endpoint)) return
    await worker.reach(endpoint)
  }

  #connected(): void {
    // What the worker says of calls in doubt needs somebody who listens.
    this.#awaited.attend()
    this.#awaited.pump()
  }

  // ── synchronous calls that take longer ──────────────────────────────────────────────────────

  /** A worker with a free slot: awaited calls hold them all, and their outcomes set one free. Or no
   * worker is connected, and one can be reached again at once. */
  #spinForSlot(name: string, timeoutUs: number): number {
    if (this.#closed) throw this.#closed
    const end = performance.now() + timeoutUs / 1000
    // Slots that are freed here are for the calls that wait, once ours has its own.
    queueMicrotask(() => this.#awaited.pump())
    this.#awaited.hold()
    let resumed = false
    for (;;) {
      this.#awaited.poll()
      const worker = pickWorker(this.#workers, this.#settings.slots)
      if (worker >= 0) return worker
      const refusal = refusalOf(this.#workers)
      if (refusal !== 0) throw callError(name, refusal, '')
      if (!this.#workers.some(({ connected }) => connected)) {
        const budgetUs = Math.min(timeoutUs, resumeUs)
        if (resumed || !this.#workers.some((other) => other.resume(budgetUs))) {
          throw sendError(name, errnos.notConnected)
        }
        resumed = true
      }
      if (performance.now() >= end) throw sendError(name, errnos.noSlot)
    }
  }

  /** The call in the record has ended with `status`: its error, or another try. */
  #finishSync(
    name: string,
    input: Uint8Array,
    output: Uint8Array,
    options: CallOptions | undefined,
    status: number,
  ): number {
    const record = this.#record
    const worker = record[iWorker] ?? 0
    const slot = record[iSlot] ?? 0
    const connection = this.#workers[worker] as WorkerConnection
    if (status === errnos.inDoubt) status = this.#resumeSync(connection, worker, slot)
    const length = record[iResultLength] ?? 0
    const again = (mayHaveRun: boolean): number =>
      this.#invokeAgain(name, input, output, options, mayHaveRun)
    const late = status === deadline && length === 0
    if (late || status === errnos.inDoubt) {
      // Nobody has answered: the slot stays taken until somebody does, or the worker has ended.
      if (late) connection.late(slot)
      this.#awaited.attend()
      if (late) throw callError(name, status, '')
      if (options?.idempotent === true) return again(true)
      throw callError(name, workerLost, connectionBroke)
    }
    const said = status > 0 && length > 0 ? this.#invoker.errorText(worker, slot, length) : ''
    connection.release(slot)
    switch (status) {
      case ok:
        if (this.#outputs.find(output) === undefined)
          output.set(connection.staging.output(slot, length))
        return length
      case errnos.notConnected:
        connection.suspect()
        return again(false)
      case notReceived:
        return again(false)
      case leaseRevoked:
      case leaseEnded:
        connection.refuse(status)
        return again(false)
      case workerLost:
        if (said === '' && options?.idempotent === true) return again(true)
    }
    throw status < 0 ? sendError(name, status) : callError(name, status, said)
  }

  /** The connection broke under a synchronous call: asks its worker, if that can be reached. */
  #resumeSync(connection: WorkerConnection, worker: number, slot: number): number {
    const record = this.#record
    for (;;) {
      const leftUs = record[iPatience] ?? 0
      const begin = performance.now()
      if (leftUs === 0 || !connection.resume(leftUs)) return errnos.inDoubt
      // Awaited calls that waited for the connection have used the record meanwhile.
      record[iWorker] = worker
      record[iSlot] = slot
      record[iPatience] = Math.max(0, leftUs - (performance.now() - begin) * 1000)
      const status = this.#invoker.finish()
      if (status !== errnos.inDoubt) return status
    }
  }

  #invokeAgain(
    name: string,
    input: Uint8Array,
    output: Uint8Array,
    options: CallOptions | undefined,
    mayHaveRun: boolean,
  ): number {
    const leftUs = (this.#record[iPatience] ?? 0) - graceUs
    try {
      if (leftUs <= 0) throw sendError(name, errnos.notConnected)
      return this.invokeSync(name, input, output, { ...options, timeoutMs: leftUs / 1000 })
    } catch (error) {
      if (!mayHaveRun || !(error instanceof RfaasError) || error.mayHaveRun !== false) throw error
      throw callError(name, workerLost, `${connectionBroke}. Then: ${error.message}`)
    }
  }

  #concurrencyOf({
    concurrency = this.#workers.length * this.#settings.slots,
  }: MapOptions): number {
    return concurrency
  }

  #request(name: string, options: InvokeOptions): Request {
    const index = name === this.#lastName ? this.#lastIndex : this.#indexOf(name)
    const timeoutUs = timeoutOf(options)
    const { signal, idempotent = false } = options
    signal?.throwIfAborted()
    return { name, index, timeoutUs, idempotent, signal }
  }

  #check(name: string, input: Uint8Array): void {
    if (this.#closed) throw this.#closed
    if (!(input instanceof Uint8Array)) throw invalidArgument('input', input, 'a Uint8Array')
    this.#checkFits(name, input.byteLength)
  }

  #checkFits(name: string, inputBytes: number): void {
    if (inputBytes > this.#settings.payloadBytes) throw this.#tooLarge(name, inputBytes)
  }

  #tooLarge(name: string, inputBytes: number): RfaasError {
    const { payloadBytes } = this.#settings
    return new RfaasError(
      'ERR_RFAAS_PAYLOAD_TOO_LARGE',
      `${name}: the input has ${inputBytes} bytes, a slot takes ${payloadBytes} (deploy with a larger payload)`,
      { field: 'input', value: inputBytes, allowed: `at most ${payloadBytes} bytes` },
    )
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

  #stageInput(connection: WorkerConnection, slot: number, input: Uint8Array): void {
    if (input.byteLength > this.#settings.payloadBytes) {
      connection.free.push(slot)
      throw this.#tooLarge('invoke', input.byteLength)
    }
    connection.staging.putInput(this.#record, 0, slot, input)
  }
}
