// All of this runtime's use of the addon: calls come in as slots, leave as replies. The functions
// work on views of the registered memory, made once per slot and length.
import { native, type NativeCallStatus, type NativeWorker } from '../../../lib/native.js'
import type { WorkerConfiguration } from './manager-link.js'

const payloadOffset = 64

export interface ChannelEvents {
  connected(): void
  disconnected(): void
  refused(reason: string): void
}

export class Channel {
  readonly address: string
  readonly #worker: NativeWorker
  readonly #view: DataView
  readonly #inputs: Uint8Array[]
  readonly #outputs: Uint8Array[]
  readonly #fields = native.constants.workerRecord

  constructor(
    configuration: WorkerConfiguration,
    functions: readonly string[],
    events: ChannelEvents,
  ) {
    const { provider, device, address, ticket, slots, payloadBytes, outputBytes } = configuration
    this.#worker = native.createWorker(
      {
        provider,
        device,
        address,
        ticket,
        slots,
        payloadBytes,
        outputBytes,
        functions,
        eventsFd: 3,
      },
      (event, detail) => {
        if (event === 'connected') events.connected()
        else if (event === 'disconnected') events.disconnected()
        else events.refused(detail)
      },
    )
    this.address = this.#worker.address
    this.#view = new DataView(this.#worker.record)
    const { input, output, inputStride, outputStride } = this.#worker
    const count = Array.from({ length: slots }, (_, slot) => slot)
    this.#inputs = count.map((slot) => new Uint8Array(input, slot * inputStride + payloadOffset, 0))
    this.#outputs = count.map((slot) => new Uint8Array(output, slot * outputStride, 0))
  }

  /** A slot with a call, whose fields are valid until the next `next`; below zero: none came. */
  next(budgetUs: number): number {
    return this.#worker.next(budgetUs)
  }

  get function(): number {
    return this.#view.getUint32(this.#fields.function, true)
  }

  get timeoutUs(): number {
    return this.#view.getUint32(this.#fields.timeoutUs, true)
  }

  get requestId(): bigint {
    return this.#view.getBigUint64(this.#fields.requestId, true)
  }

  input(slot: number): Uint8Array {
    return sized(this.#inputs, slot, this.#view.getUint32(this.#fields.inputLength, true))
  }

  output(slot: number): Uint8Array {
    return sized(this.#outputs, slot, this.#view.getUint32(this.#fields.outputCapacity, true))
  }

  reply(slot: number, length: number): void {
    this.#worker.reply(slot, length)
  }

  replyNext(slot: number, length: number, budgetUs: number): number {
    return this.#worker.replyNext(slot, length, budgetUs)
  }

  fail(slot: number, status: NativeCallStatus, message: string): void {
    this.#worker.fail(slot, native.constants.callStatuses[status], message, false)
  }

  /** The worker ends now: its client is told by this answer and sends nothing more. */
  failLast(slot: number, status: NativeCallStatus, message: string): void {
    this.#worker.fail(slot, native.constants.callStatuses[status], message, true)
  }

  watch(callback: () => void): void {
    this.#worker.watch(callback)
  }

  /** From now on every new request is answered with `status`; running calls go on. */
  refuse(status: 'leaseRevoked' | 'leaseEnded'): void {
    this.#worker.refuse(native.constants.callStatuses[status])
  }

  /** After `refuse`: answers what has not started; waits until all answers are out. */
  settle(): void {
    this.#worker.settle()
  }

  close(): void {
    this.#worker.close()
  }
}

/** The slot's view with this length: calls of one kind mostly have the same. */
function sized(views: Uint8Array[], slot: number, length: number): Uint8Array {
  const view = views[slot] as Uint8Array
  if (view.byteLength === length) return view
  return (views[slot] = new Uint8Array(view.buffer, view.byteOffset, length))
}
