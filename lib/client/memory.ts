// Memory that calls can use without a copy: regions of the fabric, carved into views.
import { invalidArgument, RfaasError } from '../errors.js'
import { native, type NativeDevice, type NativeInvoker } from '../native.js'

const arenaBytes = 1024 * 1024
const alignment = 64

/** A region and the index by which calls name it. */
interface Arena {
  index: number
  buffer: ArrayBuffer
  used: number
}

/** Where a view lies, for a call record. */
export interface Place {
  index: number
  offset: number
  length: number
}

/** The registered memory of one executor's client. Views live until the executor is closed. */
export class CallMemory {
  readonly #device: NativeDevice
  readonly #invoker: NativeInvoker
  readonly #byBuffer = new Map<ArrayBufferLike, number>()
  /** Somebody has views of it. */
  #lent = false
  #arena: Arena | undefined

  constructor(device: NativeDevice, invoker: NativeInvoker) {
    this.#device = device
    this.#invoker = invoker
  }

  /** Zeroed bytes, aligned to 64. Small ones share a region: an executor can name 255 of them. */
  allocate(bytes: number): Uint8Array {
    if (!Number.isSafeInteger(bytes) || bytes < 1 || bytes > 2 ** 31) {
      throw invalidArgument('bytes', bytes, 'a whole number from 1 to 2147483648')
    }
    this.#lent = true
    if (bytes > arenaBytes / 4) return new Uint8Array(this.#region(bytes).buffer, 0, bytes)
    let arena = this.#arena
    if (arena === undefined || arena.used + bytes > arena.buffer.byteLength) {
      arena = this.#arena = this.#region(arenaBytes)
    }
    const view = new Uint8Array(arena.buffer, arena.used, bytes)
    arena.used = Math.ceil((arena.used + bytes) / alignment) * alignment
    return view
  }

  /** Where `view` lies in our regions; undefined for memory that is not registered. */
  find(view: Uint8Array): Place | undefined {
    if (!this.#lent) return undefined
    const index = this.#byBuffer.get(view.buffer)
    if (index === undefined) return undefined
    return { index, offset: view.byteOffset, length: view.byteLength }
  }

  /** A whole region for the caller alone. */
  region(bytes: number): { index: number; buffer: ArrayBuffer } {
    return this.#region(bytes)
  }

  #region(bytes: number): Arena {
    const region = this.#device.allocate(bytes, native.constants.access.remoteWrite)
    const buffer = region.buffer
    if (buffer === null) throw new RfaasError('ERR_RFAAS_CLOSED', 'the device is closed')
    const index = this.#invoker.addRegion(region)
    this.#byBuffer.set(buffer, index)
    return { index, buffer, used: 0 }
  }
}

/** Finds where views lie, and the same view again without looking: most programs use the same, and
 * asking a view for its buffer costs as much as crossing into native code. A view of registered memory
 * never changes its place or length. */
export class PlaceFinder {
  readonly #memory: CallMemory
  #view: Uint8Array | undefined
  #place: Place | undefined

  constructor(memory: CallMemory) {
    this.#memory = memory
  }

  find(view: Uint8Array): Place | undefined {
    if (view === this.#view) return this.#place
    const place = this.#memory.find(view)
    if (place === undefined) return undefined
    this.#view = view
    this.#place = place
    return place
  }
}
