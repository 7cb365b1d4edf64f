// All of this runtime's use of the addon: calls come in as slots, leave as replies. The functions
// work on views of the registered memory, made once per slot and length.
import { native, type NativeCallStatus, type NativeWorker } from '../../../lib/native.js'
import type { WorkerConfiguration } from './manager-link.js'

const payloadOffset = 64

// Where in the worker's record the fields lie: constants of this module and not fields of an object,
// because a call uses all of them.
const fields = native.constants.workerRecord
const iBudget = fields.budgetUs / 4
const iSlot = fields.slot / 4
const iLength = fields.length / 4
const iFunction = fields.function / 4
const iInputLength = fields.inputLength / 4
const iOutputCapacity = fields.outputCapacity / 4
const iArrived = fields.arrivedMs / 8
const iDeadline = fields.deadlineMs / 8
const iRequestId = fields.requestId / 4

export interface ChannelEvents {
  connected(): void
  disconnected(): void
  refused(reason: string): void
}

export class Channel {
  readonly address: string
  readonly #worker: NativeWorker
  readonly #words: Uint32Array
  readonly #times: Float64Array
  readonly #inputs: Uint8Array[]
  readonly #outputs: Uint8Array[]

  constructor(
    configuration: WorkerConfiguration,
    functions: readonly string[],
    events: ChannelEvents,
  ) {
    const { provider, device, address, ticket, slots, payloadBytes, outputBytes, startedFd } =
      configuration
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
        startedFd,
      },
      (event, detail) => {
        if (event === 'connected') events.connected()
        else if (event === 'disconnected') events.disconnected()
        else events.refused(detail)
      },
    )
    this.address = this.#worker.address
    this.#words = new Uint32Array(this.#worker.record)
    this.#times = new Float64Array(this.#worker.record)
    const { input, output, inputStride, outputStride } = this.#worker
    const count = Array.from({ length: slots }, (_, slot) => slot)
    this.#inputs = count.map((slot) => new Uint8Array(input, slot * inputStride + payloadOffset, 0))
    this.#outputs = count.map((slot) => new Uint8Array(output, slot * outputStride, 0))
  }

  /** A slot with a call, whose fields are valid until the next `next`; below zero: none came. */
  next(budgetUs: number): number {
    this.#words[iBudget] = budgetUs
    return this.#worker.next()
  }

  get function(): number {
    return this.#words[iFunction]!
  }

  /** In milliseconds of the monotonic clock; may be some milliseconds early. */
  get arrivedMs(): number {
    return this.#times[iArrived]!
  }

  /** The same; Infinity: there is none. */
  get deadlineMs(): number {
    return this.#times[iDeadline]!
  }

  /** Its lower and its upper half: a BigInt is made when somebody asks for it. */
  get requestIdLow(): number {
    return this.#words[iRequestId]!
  }

  get requestIdHigh(): number {
    return this.#words[iRequestId + 1]!
  }

  input(slot: number): Uint8Array {
    return sized(this.#inputs, slot, this.#words[iInputLength]!)
  }

  output(slot: number): Uint8Array {
    return sized(this.#outputs, slot, this.#words[iOutputCapacity]!)
  }

  reply(slot: number, length: number): void {
    this.#words[iSlot] = slot
    this.#words[iLength] = length
    this.#worker.reply()
  }

  replyNext(slot: number, length: number, budgetUs: number): number {
    this.#words[iSlot] = slot
    this.#words[iLength] = length
    this.#words[iBudget] = budgetUs
    return this.#worker.replyNext()
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
