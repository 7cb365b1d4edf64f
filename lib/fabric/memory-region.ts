// Registered memory, and how a peer names it.
import { invalidArgument } from '../errors.js'
import type { NativeMemoryRegion } from '../native.js'
import { closedError } from './checks.js'

/** What peers may do with a region. Local reads and writes are always allowed. */
export interface Access {
  remoteWrite?: boolean
  remoteRead?: boolean
  remoteAtomic?: boolean
}

/** The name of a region for its peers: send it to them, 24 bytes in any way. */
export class RemoteKey {
  static readonly byteLength = 24

  readonly address: bigint
  readonly length: number
  readonly rkey: bigint
  /** @internal halves for the data path, which does without bigint */
  readonly addressLow: number
  /** @internal */
  readonly addressHigh: number
  /** @internal */
  readonly rkeyLow: number
  /** @internal */
  readonly rkeyHigh: number

  constructor(key: { address: bigint; length: number; rkey: bigint }) {
    const { address, length, rkey } = key
    for (const [field, value] of [
      ['address', address],
      ['rkey', rkey],
    ] as const) {
      if (typeof value !== 'bigint' || value !== BigInt.asUintN(64, value)) {
        throw invalidArgument(field, value, 'a bigint of 64 bits')
      }
    }
    if (!Number.isSafeInteger(length) || length < 0) {
      throw invalidArgument('length', length, 'an integer from 0 to 2^53 - 1')
    }
    this.address = address
    this.length = length
    this.rkey = rkey
    this.addressLow = Number(address & 0xffffffffn)
    this.addressHigh = Number(address >> 32n)
    this.rkeyLow = Number(rkey & 0xffffffffn)
    this.rkeyHigh = Number(rkey >> 32n)
  }

  /** Address, length and rkey, little-endian, 8 bytes each. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(RemoteKey.byteLength)
    const view = new DataView(bytes.buffer)
    view.setBigUint64(0, this.address, true)
    view.setBigUint64(8, BigInt(this.length), true)
    view.setBigUint64(16, this.rkey, true)
    return bytes
  }

  static fromBytes(bytes: Uint8Array): RemoteKey {
    if (!(bytes instanceof Uint8Array) || bytes.byteLength !== RemoteKey.byteLength) {
      throw invalidArgument('bytes', bytes, `a Uint8Array of ${RemoteKey.byteLength} bytes`)
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return new RemoteKey({
      address: view.getBigUint64(0, true),
      length: Number(view.getBigUint64(8, true)),
      rkey: view.getBigUint64(16, true),
    })
  }
}

/** Which region an ArrayBuffer is, so that work requests can name memory by plain views. */
const regions = new WeakMap<ArrayBufferLike, MemoryRegion>()

/**
 * Zeroed pages that the device can reach. `buffer` is the memory itself; every view of it can be
 * the local side of a request.
 */
export class MemoryRegion {
  readonly #native: NativeMemoryRegion
  readonly #buffer: ArrayBuffer
  readonly #scope: object
  readonly remoteKey: RemoteKey
  readonly byteLength: number
  /** @internal how work requests name it */
  readonly index: number

  /** @internal use Device.allocate() */
  constructor(native: NativeMemoryRegion, scope: object) {
    const { buffer } = native
    if (buffer === null) throw closedError('memory region')
    this.#native = native
    this.#scope = scope
    this.#buffer = buffer
    this.byteLength = buffer.byteLength
    this.index = native.index
    const { address, rkey } = native
    this.remoteKey = new RemoteKey({ address, length: this.byteLength, rkey })
    regions.set(buffer, this)
  }

  /** Has length 0 once the region is closed. */
  get buffer(): ArrayBuffer {
    return this.#buffer
  }

  /** A view of `length` bytes from `offset` on; by default of all. */
  bytes(offset = 0, length = this.#buffer.byteLength - offset): Uint8Array {
    return new Uint8Array(this.#buffer, offset, length)
  }

  /** @internal */
  belongsTo(scope: object): boolean {
    return scope === this.#scope
  }

  /** @internal */
  get native(): NativeMemoryRegion {
    return this.#native
  }

  /** Posted requests and receives that may still touch the memory. */
  get inFlight(): number {
    return this.#native.inFlight
  }

  get closed(): boolean {
    return this.#native.buffer === null
  }

  /**
   * Takes the memory back: its views become empty at once, and peers can no longer name it. While
   * requests are in flight that use it, the device keeps the pages and the key until they have
   * completed. Idempotent.
   */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** @internal the region that `buffer` is the memory of */
export function regionOf(buffer: ArrayBufferLike): MemoryRegion | undefined {
  return regions.get(buffer)
}
