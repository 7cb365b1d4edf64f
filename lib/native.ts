// Everything that crosses between TypeScript and the addon, in the order of native/addon. Users
// never see these types. TypeScript has checked every argument before it crosses; the addon trusts
// it. What can be absent is null, so an undefined is a bug.
//
// The control path throws RfaasError. The data path (poll, spin, arm, post, postReceive) returns a
// count or a negative errno and never throws.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { arch, platform, version } from 'node:process'

import { RfaasError } from './errors.js'
import { packageRoot } from './package-root.js'

/** Byte offsets of a record's fields: offsetof() of the C++ struct, so neither side can drift. */
export type RecordLayout<Field extends string> = Readonly<Record<'size' | Field, number>>

export interface NativeConstants {
  /** Send and receive records in a queue pair's buffer. */
  readonly batch: number
  readonly noRegion: number
  readonly stagedRegion: number
  /** Where in a queue pair's buffer the receive records begin; the send records begin at 0. */
  readonly receiveRecords: number
  /** Where the staging slots begin, `inlineBytes` for each send record. */
  readonly stagingArea: number
  readonly segmentRecord: RecordLayout<'region' | 'length' | 'offset'>
  readonly sendRecord: RecordLayout<
    | 'id'
    | 'opcode'
    | 'flags'
    | 'segmentCount'
    | 'immediate'
    | 'segments'
    | 'remoteAddress'
    | 'rkey'
    | 'compareAdd'
    | 'swap'
  >
  readonly receiveRecord: RecordLayout<'id' | 'segment'>
  readonly completionRecord: RecordLayout<
    'id' | 'queuePair' | 'byteLength' | 'immediate' | 'status' | 'opcode' | 'hasImmediate'
  >
  readonly access: Readonly<Record<'remoteWrite' | 'remoteRead' | 'remoteAtomic', number>>
  readonly sendFlags: Readonly<Record<'signaled' | 'inline' | 'fence', number>>
  readonly opcodes: Readonly<Record<NativeOpcode, number>>
  readonly statuses: Readonly<Record<NativeStatus, number>>
  readonly states: Readonly<Record<NativeState, number>>
  readonly events: Readonly<Record<NativeEvent, number>>
  readonly callRecord: RecordLayout<
    | 'worker'
    | 'slot'
    | 'function'
    | 'inputRegion'
    | 'inputOffset'
    | 'inputLength'
    | 'outputRegion'
    | 'outputOffset'
    | 'outputCapacity'
    | 'timeoutUs'
    | 'alone'
    | 'patienceUs'
    | 'resultLength'
    | 'outcomes'
    | 'hold'
    | 'queued'
    | 'queue'
  >
  readonly runRecord: RecordLayout<
    | 'next'
    | 'count'
    | 'function'
    | 'timeoutUs'
    | 'inputRegion'
    | 'inputOffset'
    | 'inputBytes'
    | 'outputRegion'
    | 'outputOffset'
    | 'outputBytes'
  >
  readonly turnRecord: RecordLayout<'run' | 'record'>
  readonly outcomeRecord: RecordLayout<'worker' | 'slot' | 'status' | 'length'>
  readonly workerRecord: RecordLayout<
    | 'budgetUs'
    | 'slot'
    | 'length'
    | 'function'
    | 'inputLength'
    | 'outputCapacity'
    | 'arrivedMs'
    | 'deadlineMs'
    | 'requestId'
  >
  /** The slot of an outcome that stands for the worker's connection itself. */
  readonly workerDown: number
  /** Of `NativeInvoker.submit()`. */
  readonly answered: number
  readonly outcomeBatch: number
  readonly spawnPipe: number
  readonly spawnNull: number
  /** Requests that `callRecord.queue` has room for. */
  readonly queueRoom: number
  readonly callStatuses: Readonly<Record<NativeCallStatus, number>>
}

/** How a call ended: wire::CallStatus. */
export type NativeCallStatus =
  | 'ok'
  | 'functionError'
  | 'unknownFunction'
  | 'outputTooSmall'
  | 'deadline'
  | 'leaseEnded'
  | 'badRequest'
  | 'workerLost'
  | 'leaseRevoked'
  | 'notReceived'

export type NativeOpcode =
  | 'write'
  | 'write-immediate'
  | 'read'
  | 'send'
  | 'send-immediate'
  | 'fetch-add'
  | 'compare-swap'
  | 'receive'
  | 'receive-write'

export type NativeStatus =
  | 'success'
  | 'local-protection'
  | 'local-length'
  | 'remote-access'
  | 'remote-invalid'
  | 'rnr-retry-exceeded'
  | 'transport-retry-exceeded'
  | 'flushed'
  | 'fatal'

export type NativeState = 'connecting' | 'connected' | 'error' | 'closed'
export type NativeEvent = 'established' | 'rejected' | 'unreachable' | 'disconnected'

export interface NativeDeviceInfo {
  provider: string
  name: string
  atomics: boolean
  maxInlineBytes: number
  maxSendDepth: number
  maxReceiveDepth: number
  maxCompletionDepth: number
  maxMessageBytes: number
  maxRequestPrivateData: number
  maxReplyPrivateData: number
}

export interface NativeProviderStatus {
  name: string
  available: boolean
  reason: string | null
  devices: NativeDeviceInfo[]
}

export interface NativeDevice {
  /** Null once closed. */
  readonly info: NativeDeviceInfo | null
  /** `access`: sum of `constants.access`. */
  allocate(bytes: number, access: number): NativeMemoryRegion
  createCompletionQueue(depth: number): NativeCompletionQueue
  /** The queue pair is connecting; watch() tells what became of it. */
  connect(
    address: string,
    privateData: Uint8Array | null,
    sendQueue: NativeCompletionQueue,
    receiveQueue: NativeCompletionQueue,
    sendDepth: number,
    receiveDepth: number,
    inlineBytes: number,
    rnrRetry: number,
  ): NativeQueuePair
  listen(address: string, backlog: number): NativeListener
  /** Closes all that belongs to it first. Idempotent, as every close(). */
  close(): void
}

export interface NativeMemoryRegion {
  /** The pages. Null once closed. */
  readonly buffer: ArrayBuffer | null
  /** How segment records name the region; -1 once closed. */
  readonly index: number
  readonly address: bigint
  readonly rkey: bigint
  readonly inFlight: number
  close(): void
}

export interface NativeCompletionQueue {
  /** Moves completions to `records`; returns how many. */
  poll(max: number): number
  /** poll() until there is something or the budget is used up; blocks the thread. */
  spin(max: number, budgetUs: number): number
  arm(): number
  readonly records: ArrayBuffer
  /** Calls back once when the queue became readable after arm(); keeps the process alive. */
  watch(callback: () => void): void
  unwatch(): void
  close(): void
}

export interface NativeQueuePair {
  /** Posts the first `count` send records; returns how many, or why not even the first. */
  post(count: number): number
  postReceive(count: number): number
  readonly records: ArrayBuffer
  readonly number: number
  readonly state: number
  readonly inlineBytes: number
  /** Calls back with every event, until the connection has ended. `data` is a copy. */
  watch(callback: (event: number, data: Uint8Array) => void): void
  /** While referenced, the watched connection keeps the process alive. */
  ref(): void
  unref(): void
  disconnect(): void
  close(): void
}

export interface NativeListener {
  readonly address: string
  next(): NativeConnectionRequest | null
  /** Calls back once when next() may have something; keeps the process alive. */
  watch(callback: () => void): void
  unwatch(): void
  /** Rejects the requests that are not answered. */
  close(): void
}

export interface NativeConnectionRequest {
  /** A copy; null once answered. */
  readonly privateData: Uint8Array | null
  readonly peer: string
  prepare(
    sendQueue: NativeCompletionQueue,
    receiveQueue: NativeCompletionQueue,
    sendDepth: number,
    receiveDepth: number,
    inlineBytes: number,
    rnrRetry: number,
  ): NativeQueuePair
  accept(queuePair: NativeQueuePair, privateData: Uint8Array | null): void
  reject(privateData: Uint8Array | null): void
}

/** A client's connections to the workers of one executor. */
export interface NativeInvoker {
  /** Runs the request in `record` and spins for its outcome: a call status or a negative errno.
   * -ECONNRESET: the connection broke, and the call is in doubt. */
  call(): number
  /** call() without sending: for the request in `record` that is in flight already. */
  finish(): number
  /** Sends the request in `record`: a negative errno, or 0, and its outcome is delivered later. Or it
   * is there already: its status plus `constants.answered`, its length in `record`. The addon waits
   * for it a moment if the record says that the call is alone, nothing else is in flight, and such
   * calls have been answered within a moment. */
  submit(): number
  /** Sends the first `queued` requests of the record's queue and sets `queued` to 0; as submit(), which
   * does not know them, but what it would return becomes their outcome. poll() and the end of the
   * outcomes' callback do the same. */
  sendQueued(): number
  /** Moves outcomes to `record`; returns how many. */
  poll(): number
  readonly record: ArrayBuffer
  /** For each slot, worker by worker, whose turn it is (`turnRecord`): 0, or the number of a run. */
  readonly turns: ArrayBuffer
  /** Calls over records that follow each other without being told of: `run` is a `runRecord`, `lengths`
   * has a word for each record. Both are the addon's until removeRun(). A slot whose turn names the run
   * and the record that it was sent goes on with the run's next one when that call has succeeded. It
   * does not, and the outcome is delivered, when there is none, when the call has failed, or while the
   * record's `hold` is not 0; then the turn's run is 0, and its record is the one that ended. */
  addRun(run: ArrayBuffer, lengths: ArrayBuffer): number
  removeRun(run: number): void
  /** Calls back once, with null or why the worker cannot be reached; disconnect() cancels. The
   * worker is asked about the calls in doubt; with another ticket they end with `workerLost`. */
  connect(
    worker: number,
    address: string,
    ticket: Uint8Array,
    callback: (reason: string | null) => void,
  ): void
  /** connect() for a caller that holds the thread: 0 or a negative errno. */
  reconnect(worker: number, address: string, ticket: Uint8Array, budgetUs: number): number
  /** Calls in flight on the worker are in doubt from now on. */
  disconnect(worker: number): void
  /** The worker has ended. Calls in flight with ids up to `lastStarted` (Infinity: nobody knows) end
   * with `workerLost`, the others with `notReceived`. */
  abandon(worker: number, lastStarted: number): void
  /** Null while the worker is not connected. */
  welcome(worker: number): { payloadBytes: number; outputBytes: number } | null
  /** Makes a region usable for inputs and outputs; returns how requests name it. */
  addRegion(region: NativeMemoryRegion): number
  removeRegion(index: number): void
  errorText(worker: number, slot: number, length: number): string
  /** Once, before the first call. `callback` gets the number of outcomes in `record`; `hotUs` is how
   * long after the last one the loop polls for more. */
  onOutcomes(callback: (count: number) => void, hotUs: number): void
  /** Until nothing is in flight: polls in each turn of the loop while hot, then sleeps. Keeps the
   * process alive. submit() does it by itself. */
  attend(): void
  close(): void
}

export interface NativeWorkerOptions {
  provider: string
  device: string
  address: string
  ticket: Uint8Array
  slots: number
  payloadBytes: number
  outputBytes: number
  /** Names, in the order of their indices. */
  functions: readonly string[]
  /** Where to report a function that ran past its deadline before the process ends. */
  eventsFd: number
  /** A file of 8 bytes that the worker takes over and keeps the id of its last request in; -1: none. */
  startedFd: number
}

/** The worker's end of one connection, for functions written in JavaScript. */
export interface NativeWorker {
  /** A slot whose call is in `record`, or -EAGAIN when none arrived within the record's budget. */
  next(): number
  /** The first bytes of the slot's output are the result: as many as the record says, of its slot. */
  reply(): number
  /** reply(), then next(). */
  replyNext(): number
  readonly record: ArrayBuffer
  /** Slot i's payload begins at i * inputStride + 64, its output at i * outputStride. */
  readonly input: ArrayBuffer
  readonly output: ArrayBuffer
  readonly address: string
  readonly inputStride: number
  readonly outputStride: number
  /** `status`: one of `constants.callStatuses`; `last`: the worker ends now, the client is to send
   * nothing more. */
  fail(slot: number, status: number, text: string, last: boolean): void
  /** Calls back once when next() may find a call; call next(0) once more after this. */
  watch(callback: () => void): void
  /** From now on every request that arrives is answered with `status`: `leaseRevoked` or
   * `leaseEnded`. Calls that next() has returned go on. */
  refuse(status: number): void
  /** After refuse(): answers what has arrived and waits until all answers are out. */
  settle(): void
  close(): void
}

export interface NativeAddon {
  /** Before anything else: the class that the control path throws. */
  initialize(errorClass: typeof RfaasError): void
  /** Closes every device of this thread. */
  closeAll(): void
  /** Opens or makes `path` and locks it: a descriptor that holds the lock while it is open anywhere,
   * also in processes that inherit it; -EAGAIN when another one does. */
  lockFile(path: string): number
  /** Starts the program in the root folder; its descriptors 0, 1, 2 … are those of this process, or of
   * `spawnPipe` or `spawnNull`. `environment`: KEY=value. `onExit` has the exit code or the number of the
   * signal, and the CPU time of the process and all below it that were waited for. Throws
   * ERR_RFAAS_EXECUTOR. */
  spawn(
    path: string,
    args: readonly string[],
    environment: readonly string[],
    descriptors: readonly number[],
    onExit: (code: number | null, signal: number | null, cpuMs: number) => void,
  ): { pid: number; pipes: (number | null)[] }
  providers(): NativeProviderStatus[]
  /** `name` empty: the first usable device. */
  openDevice(provider: string, name: string): NativeDevice
  createInvoker(device: NativeDevice, workers: number, slots: number): NativeInvoker
  /** `event`: connected, disconnected or refused. */
  createWorker(
    options: NativeWorkerOptions,
    callback: (event: string, detail: string) => void,
  ): NativeWorker
  readonly constants: NativeConstants
  /** The native classes; only the tracer looks at them. */
  readonly classes: Readonly<Record<string, { prototype: object }>>
}

export const native: NativeAddon = load()

function load(): NativeAddon {
  const file = find()
  let addon: NativeAddon
  try {
    addon = createRequire(import.meta.url)(file) as NativeAddon
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw unavailable(`${file} cannot be loaded: ${reason}`, error)
  }
  addon.initialize(RfaasError)
  // process.exit() skips the addon's own clean-up on the main thread.
  process.on('exit', () => addon.closeAll())
  if (process.env['RFAAS_TRACE_NATIVE'] === '1') trace(addon)
  return addon
}

function find(): string {
  // Another build of this package, in a folder of it: how its tests run under sanitizers.
  const other = process.env['RFAAS_BUILD']
  const folders = other === undefined ? ['build/Release', 'build/Debug'] : [basename(other)]
  const candidates = folders.map((folder) => join(packageRoot(), folder, 'rfaas.node'))
  const found = candidates.find((file) => existsSync(file))
  if (found === undefined) throw unavailable(`none of ${candidates.join(', ')} exists`)
  return found
}

function unavailable(reason: string, cause?: unknown): RfaasError {
  const message = [
    `rfaas could not load its native addon on ${platform} ${arch}, Node ${version}: ${reason}`,
    '',
    'What to do:',
    '- It is compiled when the package is installed. If your package manager skips install scripts',
    '  (--ignore-scripts, pnpm, Yarn), run the build by hand: npm rebuild rfaas',
    '- In a working tree: npm run build:native',
    '- The build needs a C++20 compiler, make and python3 (Debian: apt-get install g++ make python3).',
    '- node_modules that were copied from another machine or made with another architecture or C',
    '  library have to be installed again on this one. rfaas runs on Linux only.',
  ].join('\n')
  return new RfaasError('ERR_RFAAS_FABRIC_UNAVAILABLE', message, { cause, syscall: 'dlopen' })
}

/** RFAAS_TRACE_NATIVE=1: every call into the addon and its outcome, one line each on stderr. */
function trace(addon: NativeAddon): void {
  for (const [name, { prototype }] of Object.entries(addon.classes)) traceMethods(name, prototype)
  traceMethods('rfaas', addon)
  // The data paths of invokers and workers are not on their prototypes.
  const { createInvoker, createWorker } = addon
  addon.createInvoker = (...args) => traced('Invoker', createInvoker(...args))
  addon.createWorker = (...args) => traced('Worker', createWorker(...args))
}

function traced<T extends object>(owner: string, target: T): T {
  traceMethods(owner, target)
  return target
}

function traceMethods(owner: string, target: object): void {
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(target))) {
    const method: unknown = property.value
    if (typeof method !== 'function' || name === 'constructor') continue
    const traced = function (this: unknown, ...args: unknown[]): unknown {
      const call = `${owner}.${name}(${args.map(show).join(', ')})`
      try {
        const result: unknown = Reflect.apply(method, this, args)
        process.stderr.write(`rfaas native: ${call} = ${show(result)}\n`)
        return result
      } catch (error) {
        process.stderr.write(`rfaas native: ${call} threw ${String(error)}\n`)
        throw error
      }
    }
    Object.defineProperty(target, name, { ...property, value: traced })
  }
}

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'function') return 'callback'
  if (value instanceof Uint8Array) return `${value.byteLength} bytes`
  if (typeof value === 'object' && value !== null) return value.constructor.name
  return String(value)
}
