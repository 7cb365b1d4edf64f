// A device: where memory is registered and connections begin.
import { invalidArgument } from '../errors.js'
import { native, type NativeDevice } from '../native.js'
import { checkBytes, checkInteger, closedError } from './checks.js'
import { CompletionQueue, type DeviceScope } from './completion-queue.js'
import { checkQueuePairOptions, Listener, type ConnectOptions } from './connection.js'
import { MemoryRegion, type Access } from './memory-region.js'
import { QueuePair } from './queue-pair.js'
import { checkWait } from './wait.js'

/** What a device can do. Programs decide by these, not by the provider's name. */
export interface DeviceInfo {
  readonly provider: string
  readonly name: string
  readonly atomics: boolean
  readonly maxInlineBytes: number
  readonly maxSendDepth: number
  readonly maxReceiveDepth: number
  readonly maxCompletionDepth: number
  readonly maxMessageBytes: number
  /** Bytes of private data that connect() can carry. */
  readonly maxRequestPrivateData: number
  /** Bytes of private data that accept() and reject() can carry. */
  readonly maxReplyPrivateData: number
}

export interface ProviderStatus {
  readonly name: string
  readonly available: boolean
  /** Why it is not, and what to install or change; undefined if it is. */
  readonly reason: string | undefined
  readonly devices: readonly DeviceInfo[]
}

/** The transports that this build knows, and their devices on this host. */
export function providers(): ProviderStatus[] {
  return native.providers().map(({ name, available, reason, devices }) => ({
    name,
    available,
    reason: reason ?? undefined,
    devices,
  }))
}

export interface OpenOptions {
  /** 'shm' (processes of one host) or 'verbs' (RDMA devices, Soft-RoCE). */
  provider: string
  /** One of the provider's devices. Default: the first that is usable. */
  name?: string
}

export function openDevice(options: OpenOptions): Device {
  const { provider, name = '' } = options
  if (typeof provider !== 'string' || provider === '') {
    throw invalidArgument('provider', provider, 'the name of a provider, for example "shm"')
  }
  if (typeof name !== 'string') throw invalidArgument('name', name, 'the name of a device')
  return new Device(native.openDevice(provider, name))
}

export class Device {
  readonly #native: NativeDevice
  readonly #scope = new Scope()
  readonly info: DeviceInfo

  /** @internal use openDevice() */
  constructor(nativeDevice: NativeDevice) {
    const { info } = nativeDevice
    if (info === null) throw closedError('device')
    this.#native = nativeDevice
    this.info = Object.freeze(info)
  }

  get closed(): boolean {
    return this.#scope.closed
  }

  /** Registers `bytes` of new, zeroed memory. */
  allocate(bytes: number, access: Access = {}): MemoryRegion {
    checkInteger('bytes', bytes, 1, Number.MAX_SAFE_INTEGER)
    const bits = native.constants.access
    return new MemoryRegion(
      this.#native.allocate(
        bytes,
        (access.remoteWrite === true ? bits.remoteWrite : 0) |
          (access.remoteRead === true ? bits.remoteRead : 0) |
          (access.remoteAtomic === true ? bits.remoteAtomic : 0),
      ),
      this.#scope,
    )
  }

  /** `depth`: at least the sum of the depths of the queues that complete there. */
  createCompletionQueue(depth: number): CompletionQueue {
    checkInteger('depth', depth, 1, this.info.maxCompletionDepth)
    return new CompletionQueue(this.#native.createCompletionQueue(depth), depth, this.#scope)
  }

  /**
   * Connects to a listener's address. A refusal is an ERR_RFAAS_FABRIC with errno ECONNREFUSED;
   * what the peer said with it is the error's `value`.
   */
  async connect(address: string, options: ConnectOptions): Promise<QueuePair> {
    checkAddress(address)
    checkWait('connect', options)
    const privateData =
      options.privateData === undefined
        ? null
        : checkBytes('privateData', options.privateData, this.info.maxRequestPrivateData)
    if (this.closed) throw closedError('device')
    const checked = checkQueuePairOptions(options, this.#scope, this.info)
    const queuePair = new QueuePair(
      this.#native.connect(address, privateData, ...checked.arguments),
      checked.owner,
    )
    try {
      options.prepare?.(queuePair)
    } catch (error) {
      queuePair.close()
      throw error
    }
    return await queuePair.established(`connect ${address}`, options)
  }

  /** `address`: a path for shm; "IP:PORT" or "[IP6]:PORT" for verbs, port 0 for any free one. */
  listen(address: string, options: { backlog?: number } = {}): Listener {
    checkAddress(address)
    const backlog = checkInteger('backlog', options.backlog ?? 128, 1, 65535)
    return new Listener(this.#native.listen(address, backlog), {
      scope: this.#scope,
      info: this.info,
    })
  }

  /**
   * Closes all that belongs to the device, then the device: connections, listeners, completion
   * queues, memory regions. Pending waits fail with ERR_RFAAS_CLOSED. Idempotent.
   */
  close(): void {
    if (this.#scope.closed) return
    this.#scope.closed = true
    for (const child of [...this.#scope.children]) child.close()
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

class Scope implements DeviceScope {
  closed = false
  readonly children = new Set<{ close(): void }>()
}

function checkAddress(address: unknown): void {
  if (typeof address !== 'string' || address === '') {
    throw invalidArgument('address', address, 'a path (shm) or "IP:PORT" (verbs)')
  }
}
