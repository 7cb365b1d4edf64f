// Work requests: checked here, written as records, posted by one native call.
import { invalidArgument, RfaasError } from '../errors.js'
import { native, type NativeQueuePair, type NativeState } from '../native.js'
import { checkInteger, closedError, codeError } from './checks.js'
import type { CompletionQueue, DeviceScope } from './completion-queue.js'
import type { MemoryRegion } from './memory-region.js'
import { regionOf, RemoteKey } from './memory-region.js'
import { startWait, type Wait, type WaitOptions } from './wait.js'

export type QueuePairState = NativeState

/** One or two views of memory regions; two are gathered in order (scattered, for a read). */
export type Local = Uint8Array | readonly [Uint8Array] | readonly [Uint8Array, Uint8Array]

export interface RequestOptions {
  /** Comes back in the completion. Default 0. */
  id?: number
  /** false: completes only if it fails. Default true. */
  signaled?: boolean
  /** Waits until the reads and atomics before it are done. Default false. */
  fence?: boolean
}

export interface InlineOption {
  /**
   * Copies the bytes into the request, so they are the caller's again at once and may lie in any
   * memory. At most `QueuePair.inlineBytes`. Default false.
   */
  inline?: boolean
}

export interface RemoteRange {
  remote: RemoteKey
  /** Default 0. */
  remoteOffset?: number
}

export interface WriteRequest extends RequestOptions, InlineOption, RemoteRange {
  /** Nothing: writes 0 bytes. */
  local?: Local
  /** 32 bits for the peer; then the write takes one of its receives. */
  immediate?: number
}

export interface SendRequest extends RequestOptions, InlineOption {
  local?: Local
  immediate?: number
}

export interface ReadRequest extends RequestOptions, RemoteRange {
  local?: Local
}

export interface FetchAddRequest extends RequestOptions, RemoteRange {
  /** 8 bytes for the value that was there before. */
  local: Uint8Array
  add: bigint | number
}

export interface CompareSwapRequest extends RequestOptions, RemoteRange {
  /** 8 bytes for the value that was there before. */
  local: Uint8Array
  compare: bigint | number
  swap: bigint | number
}

export interface ReceiveRequest {
  id?: number
  /** Where a message goes. Nothing: takes immediates and empty messages only. */
  local?: Uint8Array
}

export type WorkRequest =
  | ({ opcode: 'write' } & WriteRequest)
  | ({ opcode: 'send' } & SendRequest)
  | ({ opcode: 'read' } & ReadRequest)
  | ({ opcode: 'fetch-add' } & FetchAddRequest)
  | ({ opcode: 'compare-swap' } & CompareSwapRequest)

const constants = native.constants
const layout = constants.sendRecord
const segmentLayout = constants.segmentRecord
const receiveLayout = constants.receiveRecord
const { opcodes, sendFlags, events } = constants
const stateNames = Object.keys(constants.states) as QueuePairState[]
const none = [] as const

/** @internal what a queue pair belongs to, and what it may post there */
export interface QueuePairOwner {
  readonly scope: DeviceScope
  readonly sendQueue: CompletionQueue
  readonly receiveQueue: CompletionQueue
  readonly maxMessageBytes: number
}

/**
 * One end of a reliable connection.
 *
 * The posting methods return false when the queue is full: poll the completion queue and try
 * again. They throw only for a request that is wrong or a queue pair that cannot take any. A
 * request that was posted always ends in order; how, its completion says.
 */
export class QueuePair {
  readonly #native: NativeQueuePair
  readonly #owner: QueuePairOwner
  readonly #bytes: Uint8Array
  readonly #words: Uint32Array
  #connecting: Wait<undefined> | undefined
  #closed = false
  #privateData: Uint8Array = new Uint8Array(0)
  #failure: RfaasError | undefined
  #resolveDisconnected!: () => void
  // The region of the last request: most programs use the same one again.
  #lastRegion: MemoryRegion | undefined

  /** Names the queue pair in completions. */
  readonly number: number
  /** The most bytes that a request can carry inline. */
  readonly inlineBytes: number
  /** Resolves when the connection has ended: by the peer, by its death or by close(). */
  readonly disconnected: Promise<void>

  /** @internal use Device.connect() or ConnectionRequest.accept() */
  constructor(nativePair: NativeQueuePair, owner: QueuePairOwner) {
    this.#native = nativePair
    this.#owner = owner
    this.#bytes = new Uint8Array(nativePair.records)
    this.#words = new Uint32Array(nativePair.records, 0, constants.stagingArea / 4)
    this.number = nativePair.number
    this.inlineBytes = nativePair.inlineBytes
    this.disconnected = new Promise((resolve) => (this.#resolveDisconnected = resolve))
    for (const set of this.#sets()) set.add(this)
    nativePair.watch((event, data) => this.#onEvent(event, data))
  }

  get sendQueue(): CompletionQueue {
    return this.#owner.sendQueue
  }

  get receiveQueue(): CompletionQueue {
    return this.#owner.receiveQueue
  }

  get state(): QueuePairState {
    const number = this.#native.state
    return stateNames.find((name) => constants.states[name] === number) ?? 'closed'
  }

  /** What the peer said when it accepted; empty on the side that accepted. */
  get privateData(): Uint8Array {
    return this.#privateData
  }

  write(request: WriteRequest): boolean {
    this.#encodeWrite(0, request)
    return this.#posted(this.#native.post(1), 'post_send')
  }

  send(request: SendRequest): boolean {
    this.#encodeSend(0, request)
    return this.#posted(this.#native.post(1), 'post_send')
  }

  read(request: ReadRequest): boolean {
    this.#encodeRead(0, request)
    return this.#posted(this.#native.post(1), 'post_send')
  }

  fetchAdd(request: FetchAddRequest): boolean {
    this.#encodeFetchAdd(0, request)
    return this.#posted(this.#native.post(1), 'post_send')
  }

  compareSwap(request: CompareSwapRequest): boolean {
    this.#encodeCompareSwap(0, request)
    return this.#posted(this.#native.post(1), 'post_send')
  }

  postReceive(request: ReceiveRequest = {}): boolean {
    this.encodeReceive(0, request)
    return this.#posted(this.#native.postReceive(1), 'post_receive')
  }

  /** How many requests submit() can post at once. */
  static readonly batch: number = constants.batch

  /** Writes a request into record `index`, for submit(). A record stays until it is overwritten. */
  encode(index: number, request: WorkRequest): void {
    checkInteger('index', index, 0, constants.batch - 1)
    switch (request.opcode) {
      case 'write': {
        this.#encodeWrite(index, request)
        return
      }
      case 'send': {
        this.#encodeSend(index, request)
        return
      }
      case 'read': {
        this.#encodeRead(index, request)
        return
      }
      case 'fetch-add': {
        this.#encodeFetchAdd(index, request)
        return
      }
      case 'compare-swap': {
        this.#encodeCompareSwap(index, request)
        return
      }
      default:
        throw invalidArgument(
          'opcode',
          (request as { opcode: unknown }).opcode,
          "'write', 'send', 'read', 'fetch-add' or 'compare-swap'",
        )
    }
  }

  /**
   * Posts the first `count` records in one native call. Returns how many were posted, or a
   * negative errno if not even the first was; never throws. The single-request methods use
   * record 0.
   */
  submit(count: number): number {
    return this.#native.post(count)
  }

  encodeReceive(index: number, request: ReceiveRequest): void {
    checkInteger('index', index, 0, constants.batch - 1)
    const words = this.#words
    const at = (constants.receiveRecords + index * receiveLayout.size) / 4
    this.#putNumber(at + receiveLayout.id / 4, checkId(request.id))
    this.#putSegment(at + receiveLayout.segment / 4, 'local', request.local)
    if (request.local === undefined) {
      words[at + (receiveLayout.segment + segmentLayout.region) / 4] = constants.noRegion
    }
  }

  /** As submit(), for the receive records. */
  submitReceives(count: number): number {
    return this.#native.postReceive(count)
  }

  /** Ends the connection; the peer sees it disconnected and what is outstanding is flushed. */
  disconnect(): void {
    this.#native.disconnect()
  }

  /**
   * Disconnects and frees the queue pair. What was outstanding does not complete any more, and no
   * longer pins its regions. Legal in every state; idempotent.
   */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#end(closedError('queue pair'))
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** @internal */
  get native(): NativeQueuePair {
    return this.#native
  }

  /** @internal resolves when the connection stands; on failure the queue pair is closed */
  async established(what: string, options: WaitOptions): Promise<this> {
    try {
      if (this.#failure !== undefined) throw this.#failure
      const wait = startWait<undefined>(what, options, () => {
        this.#connecting = undefined
        this.#native.unref()
      })
      if (this.state === 'connected') {
        wait.resolve(undefined)
      } else {
        this.#connecting = wait
        this.#native.ref()
      }
      await wait.promise
      return this
    } catch (error) {
      this.close()
      throw error
    }
  }

  #onEvent(event: number, data: Uint8Array): void {
    switch (event) {
      case events.established:
        this.#privateData = data
        this.#connecting?.resolve(undefined)
        break
      case events.rejected:
        this.#end(refused('the peer rejected the connection', -111, data))
        break
      case events.unreachable:
        this.#end(refused(new TextDecoder().decode(data) || 'unreachable', -113))
        break
      default:
        this.#end(refused('the peer went away', -104))
    }
  }

  #end(error: RfaasError): void {
    this.#failure ??= error
    this.#connecting?.reject(error)
    for (const set of this.#sets()) set.delete(this)
    this.#resolveDisconnected()
  }

  #sets(): Set<{ close(): void }>[] {
    const { scope, sendQueue, receiveQueue } = this.#owner
    return [scope.children, sendQueue.queuePairs, receiveQueue.queuePairs]
  }

  #posted(result: number, syscall: string): boolean {
    if (result > 0) return true
    if (result === eagain) return false
    throw codeError(result, syscall)
  }

  #encodeWrite(index: number, request: WriteRequest): void {
    const { immediate } = request
    const opcode = immediate === undefined ? opcodes.write : opcodes['write-immediate']
    const length = this.#encodeCommon(index, opcode, request, request.local, request.inline)
    this.#putImmediate(index, immediate)
    this.#putRemote(index, request, length)
  }

  #encodeSend(index: number, request: SendRequest): void {
    const { immediate } = request
    const opcode = immediate === undefined ? opcodes.send : opcodes['send-immediate']
    this.#encodeCommon(index, opcode, request, request.local, request.inline)
    this.#putImmediate(index, immediate)
  }

  #encodeRead(index: number, request: ReadRequest): void {
    const length = this.#encodeCommon(index, opcodes.read, request, request.local, false)
    this.#putRemote(index, request, length)
  }

  #encodeFetchAdd(index: number, request: FetchAddRequest): void {
    this.#encodeAtomic(index, opcodes['fetch-add'], request)
    this.#put64(index * recordWords + layout.compareAdd / 4, 'add', request.add)
  }

  #encodeCompareSwap(index: number, request: CompareSwapRequest): void {
    this.#encodeAtomic(index, opcodes['compare-swap'], request)
    this.#put64(index * recordWords + layout.compareAdd / 4, 'compare', request.compare)
    this.#put64(index * recordWords + layout.swap / 4, 'swap', request.swap)
  }

  #encodeAtomic(
    index: number,
    opcode: number,
    request: FetchAddRequest | CompareSwapRequest,
  ): void {
    const length = this.#encodeCommon(index, opcode, request, request.local, false)
    if (length !== 8) throw invalidArgument('local.byteLength', length, '8')
    this.#putRemote(index, request, length)
  }

  /** Id, flags and segments; returns the message's length. */
  #encodeCommon(
    index: number,
    opcode: number,
    request: RequestOptions,
    local: Local | undefined,
    inline: boolean | undefined,
  ): number {
    const views = local === undefined ? none : local instanceof Uint8Array ? [local] : local
    if (!Array.isArray(views) || views.length > 2) {
      throw invalidArgument('local', local, 'a Uint8Array or an array of one or two')
    }
    const at = index * recordWords
    this.#putNumber(at + layout.id / 4, checkId(request.id))
    let flags = request.signaled === false ? 0 : sendFlags.signaled
    if (inline === true) flags |= sendFlags.inline
    if (request.fence === true) flags |= sendFlags.fence
    const byte = index * layout.size
    this.#bytes[byte + layout.opcode] = opcode
    this.#bytes[byte + layout.flags] = flags
    this.#bytes[byte + layout.segmentCount] = views.length
    let length = 0
    for (let i = 0; i < views.length; i++) {
      const view = views[i]
      const segment = at + (layout.segments + i * segmentLayout.size) / 4
      const field = views.length === 1 ? 'local' : `local[${i}]`
      if (inline === true) this.#stage(segment, index, field, view, length)
      else this.#putSegment(segment, field, view)
      length += view?.byteLength ?? 0
    }
    if (length > this.#owner.maxMessageBytes) {
      const allowed = `at most ${this.#owner.maxMessageBytes}, the longest message of this device`
      throw invalidArgument('local.byteLength', length, allowed)
    }
    if (inline === true && views.length === 2) this.#joinStaged(at, index, length)
    return length
  }

  #putSegment(at: number, field: string, view: Uint8Array | undefined): void {
    const words = this.#words
    if (view === undefined) {
      words[at + segmentLayout.length / 4] = 0
      this.#putNumber(at + segmentLayout.offset / 4, 0)
      return
    }
    if (!(view instanceof Uint8Array)) throw invalidArgument(field, view, 'a Uint8Array')
    let region = this.#lastRegion
    if (region === undefined || region.buffer !== view.buffer) {
      region = regionOf(view.buffer)
      if (region === undefined) {
        throw invalidArgument(field, view, 'a view of the buffer of a MemoryRegion, or sent inline')
      }
      this.#lastRegion = region
    }
    if (!region.belongsTo(this.#owner.scope)) {
      throw invalidArgument(field, view, 'a view of a MemoryRegion of the same device')
    }
    if (region.closed) throw closedError('memory region')
    if (view.byteLength > 0xffffffff) {
      throw invalidArgument(`${field}.byteLength`, view.byteLength, 'at most 4294967295')
    }
    words[at + segmentLayout.region / 4] = region.index
    words[at + segmentLayout.length / 4] = view.byteLength
    this.#putNumber(at + segmentLayout.offset / 4, view.byteOffset)
  }

  /** Copies the bytes of an inline request to the record's staging slot, `before` others. */
  #stage(
    at: number,
    index: number,
    field: string,
    view: Uint8Array | undefined,
    before: number,
  ): void {
    if (!(view instanceof Uint8Array)) throw invalidArgument(field, view, 'a Uint8Array')
    if (before + view.byteLength > this.inlineBytes) {
      throw invalidArgument(
        'local.byteLength',
        before + view.byteLength,
        `at most ${this.inlineBytes}, what this queue pair takes inline`,
      )
    }
    const offset = index * this.inlineBytes + before
    this.#bytes.set(view, constants.stagingArea + offset)
    this.#words[at + segmentLayout.region / 4] = constants.stagedRegion
    this.#words[at + segmentLayout.length / 4] = view.byteLength
    this.#putNumber(at + segmentLayout.offset / 4, offset)
  }

  /** The two staged parts lie side by side already. */
  #joinStaged(at: number, index: number, length: number): void {
    this.#bytes[index * layout.size + layout.segmentCount] = 1
    this.#words[at + (layout.segments + segmentLayout.length) / 4] = length
  }

  #putImmediate(index: number, immediate: number | undefined): void {
    if (immediate === undefined) return
    this.#words[index * recordWords + layout.immediate / 4] = checkInteger(
      'immediate',
      immediate,
      0,
      0xffffffff,
    )
  }

  #putRemote(index: number, request: RemoteRange, length: number): void {
    const { remote, remoteOffset = 0 } = request
    if (!(remote instanceof RemoteKey)) throw invalidArgument('remote', remote, 'a RemoteKey')
    if (!Number.isSafeInteger(remoteOffset) || remoteOffset < 0) {
      throw invalidArgument('remoteOffset', remoteOffset, 'an integer from 0 on')
    }
    if (remoteOffset + length > remote.length) {
      throw invalidArgument(
        'remoteOffset',
        remoteOffset,
        `at most ${remote.length - length}, for ${length} of the ${remote.length} bytes`,
      )
    }
    const words = this.#words
    const at = index * recordWords
    const offsetLow = remoteOffset % 0x100000000
    const low = remote.addressLow + offsetLow
    words[at + layout.remoteAddress / 4] = low
    words[at + layout.remoteAddress / 4 + 1] =
      remote.addressHigh + (remoteOffset - offsetLow) / 0x100000000 + (low > 0xffffffff ? 1 : 0)
    words[at + layout.rkey / 4] = remote.rkeyLow
    words[at + layout.rkey / 4 + 1] = remote.rkeyHigh
  }

  #putNumber(at: number, value: number): void {
    this.#words[at] = value
    this.#words[at + 1] = value / 0x100000000
  }

  #put64(at: number, field: string, value: bigint | number): void {
    if (typeof value === 'number') {
      this.#putNumber(at, checkInteger(field, value, 0, Number.MAX_SAFE_INTEGER))
      return
    }
    if (typeof value !== 'bigint' || value !== BigInt.asUintN(64, value)) {
      throw invalidArgument(field, value, 'an unsigned integer of 64 bits')
    }
    this.#words[at] = Number(value & 0xffffffffn)
    this.#words[at + 1] = Number(value >> 32n)
  }
}

const recordWords = layout.size / 4
const eagain = -11

function checkId(id: number | undefined): number {
  return id === undefined ? 0 : checkInteger('id', id, 0, Number.MAX_SAFE_INTEGER)
}

/** `privateData`: what the peer said with its refusal; becomes `value` of the error. */
function refused(reason: string, errno: number, privateData?: Uint8Array): RfaasError {
  return new RfaasError('ERR_RFAAS_FABRIC', `connect: ${reason}`, {
    errno,
    syscall: 'connect',
    ...(privateData === undefined ? {} : { value: privateData }),
  })
}
