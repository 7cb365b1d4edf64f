// How two queue pairs find each other: listening, connection requests, and what both ends choose.
import { RfaasError } from '../errors.js'
import type { NativeConnectionRequest, NativeListener } from '../native.js'
import { checkBytes, checkInteger, closedError } from './checks.js'
import { checkCompletionQueue, type CompletionQueue, type DeviceScope } from './completion-queue.js'
import type { DeviceInfo } from './device.js'
import { QueuePair } from './queue-pair.js'
import { checkWait, startWait, type Wait, type WaitOptions } from './wait.js'

export interface QueuePairOptions {
  /** For both directions. Or give the two below. */
  completionQueue?: CompletionQueue
  sendQueue?: CompletionQueue
  receiveQueue?: CompletionQueue
  /** Requests that can be outstanding. Default 64. */
  sendDepth?: number
  /** Receives that can be posted. Default 64. */
  receiveDepth?: number
  /** Bytes that a request should be able to carry inline. Default: 64, if the device can. */
  inlineBytes?: number
  /** How often a request to a peer without a posted receive is tried; 7: for ever (default). */
  rnrRetry?: number
}

export interface ConnectOptions extends QueuePairOptions, WaitOptions {
  /** Bytes for the other end, at most `DeviceInfo.maxRequestPrivateData`. */
  privateData?: Uint8Array
  /** Runs before the peer can send anything: the place to post receives. */
  prepare?: (queuePair: QueuePair) => void
}

export interface AcceptOptions extends QueuePairOptions, WaitOptions {
  /** Bytes for the other end, at most `DeviceInfo.maxReplyPrivateData`. */
  privateData?: Uint8Array
  prepare?: (queuePair: QueuePair) => void
}

/** @internal what the native calls that make a queue pair take */
export function checkQueuePairOptions(
  options: QueuePairOptions,
  scope: DeviceScope,
  info: DeviceInfo,
) {
  const { completionQueue, inlineBytes } = options
  const sendQueue = checkCompletionQueue('sendQueue', options.sendQueue ?? completionQueue, scope)
  const receiveQueue = checkCompletionQueue(
    'receiveQueue',
    options.receiveQueue ?? completionQueue,
    scope,
  )
  return {
    owner: { scope, sendQueue, receiveQueue, maxMessageBytes: info.maxMessageBytes },
    arguments: [
      sendQueue.native,
      receiveQueue.native,
      checkInteger('sendDepth', options.sendDepth ?? 64, 1, info.maxSendDepth),
      checkInteger('receiveDepth', options.receiveDepth ?? 64, 1, info.maxReceiveDepth),
      checkInteger(
        'inlineBytes',
        inlineBytes ?? Math.min(64, info.maxInlineBytes),
        0,
        info.maxInlineBytes,
      ),
      checkInteger('rnrRetry', options.rnrRetry ?? 7, 0, 7),
    ] as const,
  }
}

/** Somebody wants to connect. Accept or reject it; one that is dropped is rejected. */
export class ConnectionRequest {
  readonly #native: NativeConnectionRequest
  readonly #listener: ListenerScope
  #prepared: QueuePair | undefined
  /** What the peer gave to connect(). Not to be trusted. */
  readonly privateData: Uint8Array
  /** Who it is, for logs: an address, or a process and its user. */
  readonly peer: string

  /** @internal comes from a Listener */
  constructor(native: NativeConnectionRequest, listener: ListenerScope) {
    this.#native = native
    this.#listener = listener
    this.privateData = native.privateData ?? new Uint8Array(0)
    this.peer = native.peer
  }

  /** Resolves with the connected queue pair. */
  async accept(options: AcceptOptions): Promise<QueuePair> {
    const { scope, info } = this.#listener
    checkWait('accept', options)
    const privateData =
      options.privateData === undefined
        ? null
        : checkBytes('privateData', options.privateData, info.maxReplyPrivateData)
    const checked = checkQueuePairOptions(options, scope, info)
    if (this.#native.privateData === null) throw closedError('connection request')
    const queuePair = new QueuePair(this.#native.prepare(...checked.arguments), checked.owner)
    this.#prepared = queuePair
    try {
      options.prepare?.(queuePair)
      this.#native.accept(queuePair.native, privateData)
    } catch (error) {
      queuePair.close()
      throw error
    } finally {
      this.#prepared = undefined
    }
    return await queuePair.established('accept', options)
  }

  /** Idempotent, and without effect on an answered request. */
  reject(options: { privateData?: Uint8Array } = {}): void {
    const { privateData } = options
    const { info } = this.#listener
    this.#prepared?.close()
    this.#native.reject(
      privateData === undefined
        ? null
        : checkBytes('privateData', privateData, info.maxReplyPrivateData),
    )
  }
}

/** @internal */
export interface ListenerScope {
  readonly scope: DeviceScope
  readonly info: DeviceInfo
}

/**
 * Waits for connections. Iterate it, or call next(); the process stays alive while one of them
 * waits. Requests that come in meanwhile are kept up to the backlog.
 */
export class Listener implements AsyncIterable<ConnectionRequest> {
  readonly #native: NativeListener
  readonly #scope: ListenerScope
  #waiting: Wait<undefined> | undefined
  #closed = false
  /** As bound: what Device.connect() of the other end takes. */
  readonly address: string

  /** @internal use Device.listen() */
  constructor(native: NativeListener, scope: ListenerScope) {
    this.#native = native
    this.#scope = scope
    this.address = native.address
  }

  get closed(): boolean {
    return this.#closed || this.#scope.scope.closed
  }

  /** The next request. One call at a time. */
  async next(options: WaitOptions = {}): Promise<ConnectionRequest> {
    if (this.#waiting !== undefined) {
      throw new RfaasError('ERR_RFAAS_FABRIC', 'accept: another next() of this listener is pending')
    }
    const { children } = this.#scope.scope
    const waiting = startWait<undefined>('accept', options, () => {
      this.#waiting = undefined
      children.delete(this)
      this.#native.unwatch()
    })
    this.#waiting = waiting
    children.add(this)
    waiting.promise.catch(() => undefined)
    try {
      for (;;) {
        const request = this.#native.next()
        if (request !== null) return new ConnectionRequest(request, this.#scope)
        const woken = new Promise<void>((resolve) => this.#native.watch(resolve))
        await Promise.race([woken, waiting.promise])
      }
    } finally {
      waiting.resolve(undefined)
    }
  }

  /** Ends when the listener is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ConnectionRequest, void, undefined> {
    const isClosed = () => this.closed
    while (!isClosed()) {
      try {
        yield await this.next()
      } catch (error) {
        if (isClosed()) return
        throw error
      }
    }
  }

  /** Rejects the requests that were not answered. Connections stay. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#waiting?.reject(closedError('listener'))
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
