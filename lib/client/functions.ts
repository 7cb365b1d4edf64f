// The functions of a deployed package: calls from the first one to the last.
//
// `invokeSync` is the shortest way there is: it writes a record, crosses into native code once and
// spins there until the result is in the caller's memory. `invoke` sends the same record and leaves
// the waiting to the event loop.
import type { ExecutorInfo, WorkerEndpoint } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { native, type NativeDevice, type NativeInvoker } from '../native.js'
import { CallMemory, type Place } from './memory.js'
import { callError, sendError } from './outcome.js'
import { WaitingCalls, type Waiting } from './waiting.js'

const { callRecord, outcomeRecord, callStatuses, workerDown } = native.constants
const word = (layout: typeof callRecord | typeof outcomeRecord, offset: number): number => {
  if (offset % 4 !== 0 || offset >= layout.size) throw new RangeError('a record is not of words')
  return offset / 4
}
const iWorker = word(callRecord, callRecord.worker)
const iSlot = word(callRecord, callRecord.slot)
const iFunction = word(callRecord, callRecord.function)
const iInputRegion = word(callRecord, callRecord.inputRegion)
const iInputOffset = word(callRecord, callRecord.inputOffset)
const iInputLength = word(callRecord, callRecord.inputLength)
const iOutputRegion = word(callRecord, callRecord.outputRegion)
const iOutputOffset = word(callRecord, callRecord.outputOffset)
const iOutputCapacity = word(callRecord, callRecord.outputCapacity)
const iTimeout = word(callRecord, callRecord.timeoutUs)
const iPatience = word(callRecord, callRecord.patienceUs)
const iResultLength = word(callRecord, callRecord.resultLength)
const iOutcomes = word(callRecord, callRecord.outcomes)
const outcomeWords = outcomeRecord.size / 4
const oWorker = outcomeRecord.worker / 4
const oSlot = outcomeRecord.slot / 4
const oStatus = outcomeRecord.status / 4
const oLength = outcomeRecord.length / 4

const { ok, workerLost } = callStatuses

/** A call's time when the caller sets none. */
export const defaultTimeoutMs = 30_000
// The worker enforces a deadline and says so; only if it cannot does the client, a little later.
const graceUs = 50_000
const maxTimeoutMs = 3_600_000
const connectTimeoutMs = 10_000
// How long a lost call waits to hear from the executor manager what became of its worker.
const causeTimeoutMs = 1_000
const firstReconnectMs = 200
const lastReconnectMs = 5_000
const alignment = 64

export interface CallOptions {
  /** Default 30 s, at most an hour. */
  timeoutMs?: number
}

export interface InvokeOptions extends CallOptions {
  /** Stops the waiting. The function may still run, and its result is dropped. */
  signal?: AbortSignal
}

export interface MapOptions extends InvokeOptions {
  /** Calls in flight at once; default: as many as the workers have slots. */
  concurrency?: number
}

export interface FunctionsSettings {
  slots: number
  payloadBytes: number
  outputBytes: number
  /** How long the event loop polls for results after the last one before it sleeps. */
  hotWaitMs: number
}

interface WorkerState {
  /** Slots without a call. */
  free: number[]
  /** By slot: the call that waits for its outcome; undefined for one whose caller has gone. */
  calls: (Waiting | undefined)[]
  connected: boolean
  endpoint: WorkerEndpoint
  reconnecting: NodeJS.Timeout | undefined
  cancelConnect: (() => void) | undefined
  /** This worker's slots of inputs and outputs, for bytes that are not registered. */
  staging: { index: number; bytes: Uint8Array } | undefined
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
  readonly #workers: WorkerState[]
  readonly #waiting: WaitingCalls
  readonly #onClose: (functions: Functions) => Promise<void>
  readonly #causes = new Map<number, PromiseWithResolvers<string>>()
  readonly #inputStride: number
  readonly #outputStride: number
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
    const round = (bytes: number): number => Math.ceil(bytes / alignment) * alignment
    this.#inputStride = round(settings.payloadBytes)
    this.#outputStride = round(settings.outputBytes)
    this.#workers = executor.workers.map((endpoint) => ({
      free: Array.from({ length: settings.slots }, (_, i) => settings.slots - 1 - i),
      calls: new Array<Waiting | undefined>(settings.slots),
      connected: false,
      endpoint,
      reconnecting: undefined,
      cancelConnect: undefined,
      staging: undefined,
    }))
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
      await Promise.all(executor.workers.map((endpoint) => functions.#connect(endpoint)))
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
    const state = this.#workers[worker] as WorkerState
    const slot = state.free.pop() as number

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
      this.#stageInput(state, slot, input)
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
      this.#stageOutput(state, slot, Math.min(output.byteLength, this.#settings.outputBytes))
    }

    const status = this.#invoker.call()
    const length = record[iResultLength] ?? 0
    if (status === ok) {
      state.free.push(slot)
      if (to === undefined) output.set(this.#stagedOutput(state, slot, length))
      return length
    }
    return this.#failSync(name, state, worker, slot, status, length)
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
    for (const state of this.#workers) {
      clearTimeout(state.reconnecting)
      state.cancelConnect?.()
    }
    this.#invoker.close()
    this.#waiting.close(error)
    for (const cause of this.#causes.values()) cause.resolve('')
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
    this.#cause(worker).resolve(cause)
    // What it answered before it ended is still to be had; the rest ends with the connection.
    this.#onOutcomes(this.#invoker.poll())
    this.#invoker.disconnect(worker)
    this.#onOutcomes(this.#invoker.poll())
  }

  /** @internal */
  async workerReady(endpoint: WorkerEndpoint): Promise<void> {
    const state = this.#workers[endpoint.worker]
    if (this.#closed || state === undefined || state.connected) return
    state.endpoint = endpoint
    clearTimeout(state.reconnecting)
    await this.#connect(endpoint)
    this.#waiting.pump()
  }

  /** A connection can break without its worker: then the worker listens still. If the worker ended,
   * the executor manager tells where the next one is, and this here fails meanwhile. */
  #reconnect(state: WorkerState, delayMs = firstReconnectMs): void {
    state.reconnecting = setTimeout(() => {
      if (this.#closed || state.connected) return
      this.#connect(state.endpoint).then(
        () => this.#waiting.pump(),
        () => {
          if (!this.#closed) this.#reconnect(state, Math.min(2 * delayMs, lastReconnectMs))
        },
      )
    }, delayMs)
    state.reconnecting.unref()
  }

  // ── connections ─────────────────────────────────────────────────────────────────────────────

  async #connect(endpoint: WorkerEndpoint): Promise<void> {
    const state = this.#workers[endpoint.worker]
    if (state === undefined) {
      throw new RfaasError('ERR_RFAAS_PROTOCOL', `there is no worker ${endpoint.worker}`)
    }
    const ticket = Buffer.from(endpoint.ticket, 'hex')
    const { promise, resolve, reject } = withResolvers<null>()
    // The invoker has one connection per worker: a later attempt replaces this one.
    state.cancelConnect?.()
    state.cancelConnect = () => reject(this.#unreachable(endpoint, 'there is a newer attempt'))
    const timer = setTimeout(() => {
      this.#invoker.disconnect(endpoint.worker)
      reject(this.#unreachable(endpoint, `no answer within ${connectTimeoutMs} ms`))
    }, connectTimeoutMs)
    promise.finally(() => clearTimeout(timer)).catch(() => undefined)
    try {
      this.#invoker.connect(endpoint.worker, endpoint.address, ticket, (reason) => {
        if (reason === null) resolve(null)
        else reject(this.#unreachable(endpoint, reason))
      })
    } catch (error) {
      reject(error)
    }
    await promise
    state.cancelConnect = undefined
    state.connected = true
    this.#causes.delete(endpoint.worker)
  }

  #unreachable(endpoint: WorkerEndpoint, reason: string): RfaasError {
    return new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `worker ${endpoint.worker} at ${endpoint.address} cannot be reached: ${reason}`,
    )
  }

  // ── calls ───────────────────────────────────────────────────────────────────────────────────

  /** The connected worker with the most free slots, or -1. */
  #pick(): number {
    let best = -1
    let most = 0
    const workers = this.#workers
    for (let i = 0; i < workers.length; ++i) {
      const state = workers[i]
      if (state !== undefined && state.connected && state.free.length > most) {
        best = i
        most = state.free.length
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
      if (!this.#workers.some((state) => state.connected)) throw sendError(name, -107)
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
    const state = worker < 0 ? undefined : this.#workers[worker]
    const slot = state?.free.pop()
    if (state === undefined || slot === undefined) return false
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
      this.#stageInput(state, slot, call.input)
    }
    this.#stageOutput(state, slot, this.#settings.outputBytes)
    const errno = this.#invoker.submit()
    if (errno < 0) {
      state.free.push(slot)
      if (errno === -107)
        state.connected = false // the loss is about to be delivered
      else this.#waiting.reject(call, sendError(call.name, errno))
      return errno !== -107
    }
    state.calls[slot] = call
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
      const state = this.#workers[worker]
      if (state === undefined) continue
      if (slot === workerDown) {
        state.connected = false
        clearTimeout(state.reconnecting)
        if (!this.#closed) this.#reconnect(state)
        continue
      }
      const call = state.calls[slot]
      state.calls[slot] = undefined
      if (call !== undefined && !call.settled)
        this.#settle(call, state, worker, slot, status, length)
      state.free.push(slot)
    }
  }

  #settle(
    call: Waiting,
    state: WorkerState,
    worker: number,
    slot: number,
    status: number,
    length: number,
  ): void {
    if (status === ok) {
      this.#waiting.resolve(call, this.#stagedOutput(state, slot, length).slice())
      return
    }
    const text = length === 0 ? '' : this.#invoker.errorText(worker, slot, length)
    if (status !== workerLost || text !== '') {
      this.#waiting.reject(call, callError(call.name, status, text))
      return
    }
    // The connection broke: the executor manager knows why, and says so in a moment.
    void this.#causeOf(worker).then((cause) => {
      const said = cause === '' ? '' : `${cause}; the call may or may not have run`
      this.#waiting.reject(call, callError(call.name, status, said))
    })
  }

  #failSync(
    name: string,
    state: WorkerState,
    worker: number,
    slot: number,
    status: number,
    length: number,
  ): never {
    if (status < 0) {
      state.free.push(slot)
      if (status === -107) state.connected = false
      throw sendError(name, status)
    }
    const late = status === callStatuses.deadline && length === 0
    // The worker has not answered: the slot stays taken until it does, or is lost.
    if (late) this.#attend()
    else state.free.push(slot)
    if (status === workerLost) state.connected = false
    throw callError(name, status, length === 0 ? '' : this.#invoker.errorText(worker, slot, length))
  }

  #cause(worker: number): PromiseWithResolvers<string> {
    let cause = this.#causes.get(worker)
    if (cause === undefined) this.#causes.set(worker, (cause = withResolvers()))
    return cause
  }

  async #causeOf(worker: number): Promise<string> {
    let timer: NodeJS.Timeout | undefined
    const unknown = new Promise<string>((resolve) => {
      timer = setTimeout(resolve, causeTimeoutMs, '')
    })
    try {
      return await Promise.race([this.#cause(worker).promise, unknown])
    } finally {
      clearTimeout(timer)
    }
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

  // ── staging: copies of what is not registered ───────────────────────────────────────────────

  #staging(state: WorkerState): { index: number; bytes: Uint8Array } {
    if (state.staging === undefined) {
      const perSlot = this.#inputStride + this.#outputStride
      const { index, buffer } = this.#memory.region(perSlot * this.#settings.slots)
      state.staging = { index, bytes: new Uint8Array(buffer) }
    }
    return state.staging
  }

  #stageInput(state: WorkerState, slot: number, input: Uint8Array): void {
    if (input.byteLength > this.#settings.payloadBytes) {
      state.free.push(slot)
      throw this.#tooLarge('invoke', input)
    }
    const staging = this.#staging(state)
    const offset = slot * (this.#inputStride + this.#outputStride)
    staging.bytes.set(input, offset)
    this.#record[iInputRegion] = staging.index
    this.#record[iInputOffset] = offset
    this.#record[iInputLength] = input.byteLength
  }

  #stageOutput(state: WorkerState, slot: number, capacity: number): void {
    this.#record[iOutputRegion] = this.#staging(state).index
    this.#record[iOutputOffset] =
      slot * (this.#inputStride + this.#outputStride) + this.#inputStride
    this.#record[iOutputCapacity] = capacity
  }

  #stagedOutput(state: WorkerState, slot: number, length: number): Uint8Array {
    const begin = slot * (this.#inputStride + this.#outputStride) + this.#inputStride
    return this.#staging(state).bytes.subarray(begin, begin + length)
  }
}

function timeoutOf({ timeoutMs = defaultTimeoutMs }: CallOptions): number {
  if (!(timeoutMs > 0 && timeoutMs <= maxTimeoutMs)) {
    throw invalidArgument('timeoutMs', timeoutMs, `a number above 0 and at most ${maxTimeoutMs}`)
  }
  return Math.ceil(timeoutMs * 1000)
}

interface PromiseWithResolvers<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

/** `Promise.withResolvers`, which Node 20 does not have. */
function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
