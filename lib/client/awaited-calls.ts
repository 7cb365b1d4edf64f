// The calls that are awaited: sent to whichever worker has room, and settled by what comes back.
//
// A call that certainly did not run is sent again until its deadline. One that may have run is sent
// again only if it is idempotent; otherwise its error says that nobody knows.
import type { RfaasError } from '../errors.js'
import { native, type NativeInvoker } from '../native.js'
import {
  iAlone,
  iFunction,
  iHold,
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutcomes,
  iQueue,
  iQueued,
  iResultLength,
  iSlot,
  iTimeout,
  iWorker,
  oLength,
  oSlot,
  oStatus,
  outcomeWords,
  requestWords,
  oWorker,
} from './call-record.js'
import { graceUs, type FunctionsSettings } from './call-options.js'
import { PlaceFinder, type CallMemory } from './memory.js'
import { callError, errnos, sendError } from './outcome.js'
import {
  catchUp,
  noResult,
  renew,
  waitingCall,
  WaitingCalls,
  type Request,
  type Waiting,
} from './waiting.js'
import { pickWorker, refusalOf, type WorkerConnection } from './worker-connection.js'

const { answered, callStatuses, queueRoom, workerDown } = native.constants
const { ok, workerLost, leaseRevoked, leaseEnded, notReceived } = callStatuses

export class AwaitedCalls {
  readonly #invoker: NativeInvoker
  readonly #record: Uint32Array
  readonly #inputs: PlaceFinder
  readonly #workers: readonly WorkerConnection[]
  readonly #settings: FunctionsSettings
  readonly #waiting = new WaitingCalls({
    send: (call) => this.#sent(call, this.#submitWaiting(call)),
    hold: (queued) => (this.#record[iHold] = queued ? 1 : 0),
    look: () => this.collect(),
  })
  /** Where the last call went. */
  #at: WorkerConnection | undefined
  #worker = 0
  #slot = 0
  #closed = false

  constructor(
    invoker: NativeInvoker,
    record: Uint32Array,
    memory: CallMemory,
    workers: readonly WorkerConnection[],
    settings: FunctionsSettings,
  ) {
    this.#invoker = invoker
    this.#record = record
    this.#inputs = new PlaceFinder(memory)
    this.#workers = workers
    this.#settings = settings
    invoker.onOutcomes((count) => {
      this.#take(count)
      this.#waiting.pump()
    }, settings.hotWaitMs * 1000)
  }

  /** Sends a call, or has it wait for its turn. A call that is alone may have its answer before this
   * returns: then there is nothing to remember, and no turn of the loop to wait for. */
  start(request: Request, input: Uint8Array): Promise<Uint8Array> {
    const { index, timeoutUs } = request
    const sent = this.#waiting.queued ? undefined : this.#submit(index, input, timeoutUs)
    if (sent === answered + ok) return Promise.resolve(this.#takeAnswer())
    return new Promise((resolve, reject) => {
      this.#remember(waitingCall(request, input, resolve, reject), sent)
    })
  }

  /** Begins a call of which there are many: it is sent together with those that begin next, by
   * sendQueued() or when outcomes are looked for. */
  begin(call: Waiting): void {
    this.#remember(call, this.#waiting.queued ? undefined : this.#enqueue(call))
  }

  /** A call that has begun and is not on its way to a worker ends without a result. */
  withdraw(call: Waiting): void {
    this.#waiting.withdraw(call)
  }

  /** Sends the calls that have begun. Not needed by who is told of an outcome. */
  sendQueued(): void {
    if (!this.#closed) this.#invoker.sendQueued()
  }

  /** Resolves when no call waits. */
  drained(): Promise<void> {
    return this.#waiting.drained()
  }

  /** Ends all calls for this reason. */
  close(reason: RfaasError): void {
    this.#closed = true
    this.#waiting.close(reason)
  }

  /** Slots may have become free, or workers ready. */
  pump(): void {
    this.#waiting.pump()
  }

  /** Takes all outcomes that are there. */
  collect(): void {
    if (this.#closed) return
    this.poll()
    this.#waiting.pump()
  }

  /** The same for a caller that takes the free slots itself. */
  poll(): void {
    for (let count = this.#invoker.poll(); count > 0; count = this.#invoker.poll()) {
      this.#take(count)
    }
  }

  /** Somebody wants a slot: of many calls that follow each other the next ones wait, until pump(). */
  hold(): void {
    this.#record[iHold] = 1
  }

  /** As long as calls are in flight the event loop looks for their outcomes; those sent from here see
   * to it themselves. */
  attend(): void {
    this.#invoker.attend()
  }

  /** The worker has been out of reach for a while: what may run twice does not wait for it. */
  repeatDoubtful(worker: WorkerConnection): void {
    for (const [slot, call] of worker.calls.entries()) {
      if (call === undefined || call.settled || !call.idempotent) continue
      catchUp(call)
      worker.setTurn(slot, 0, 0)
      worker.calls[slot] = undefined // the slot stays taken
      call.mayHaveRun = true
      this.#waiting.repeat(call)
    }
    this.#waiting.pump()
  }

  /** The result of the call that was sent last. */
  #takeAnswer(): Uint8Array {
    const connection = this.#at as WorkerConnection
    const result = connection.staging.takeOutput(this.#slot, this.#record[iResultLength] ?? 0)
    connection.release(this.#slot)
    return result
  }

  #remember(call: Waiting, sent: number | undefined): void {
    this.#waiting.open(call)
    try {
      if (!this.#sent(call, sent)) this.#waiting.enqueue(call)
    } catch (error) {
      this.#waiting.reject(call, error)
    }
  }

  /** What the addon says of a call that was sent to a free slot; undefined: there is none. */
  #submit(index: number, input: Uint8Array, timeoutUs: number): number | undefined {
    if (!this.#takeSlot()) return undefined
    this.#write(0, index, timeoutUs)
    this.#writeBytes(0, input)
    this.#record[iAlone] = 1
    return this.#invoker.submit()
  }

  #submitWaiting(call: Waiting): number | undefined {
    if (!this.#takeSlot()) return undefined
    this.#writeCall(0, call, timeLeftUs(call))
    this.#record[iAlone] = 0
    return this.#invoker.submit()
  }

  /** 0: the call has a slot, and is sent with others; undefined: there is none. */
  #enqueue(call: Waiting): number | undefined {
    if (!this.#takeSlot()) return undefined
    this.#queue(call)
    return 0
  }

  #queue(call: Waiting): void {
    const record = this.#record
    if (record[iQueued] === queueRoom) this.#invoker.sendQueued()
    const queued = record[iQueued] ?? 0
    this.#writeCall(iQueue + queued * requestWords, call, call.timeoutUs)
    record[iQueued] = queued + 1
  }

  #takeSlot(): boolean {
    const worker = pickWorker(this.#workers, this.#settings.slots)
    const connection = worker < 0 ? undefined : this.#workers[worker]
    const slot = connection?.free.pop()
    if (connection === undefined || slot === undefined) return false
    this.#at = connection
    this.#worker = worker
    this.#slot = slot
    return true
  }

  #writeCall(at: number, { index, input, tag, records }: Waiting, timeoutUs: number): void {
    this.#write(at, index, timeoutUs)
    if (records === undefined) return this.#writeBytes(at, input)
    records.name(this.#record, at, tag)
    this.#at?.setTurn(this.#slot, records.number, tag)
  }

  /** Writes the request of a call to the slot that was taken, but for where its bytes are. */
  #write(at: number, index: number, timeoutUs: number): void {
    const record = this.#record
    record[at + iWorker] = this.#worker
    record[at + iSlot] = this.#slot
    record[at + iFunction] = index
    record[at + iTimeout] = timeoutUs
  }

  #writeBytes(at: number, input: Uint8Array): void {
    const record = this.#record
    const slot = this.#slot
    const { staging } = this.#at as WorkerConnection
    const from = this.#inputs.find(input)
    if (from !== undefined) {
      record[at + iInputRegion] = from.index
      record[at + iInputOffset] = from.offset
      record[at + iInputLength] = from.length
    } else {
      staging.putInput(record, at, slot, input)
    }
    staging.nameOutput(record, at, slot, this.#settings.outputBytes)
  }

  /** Remembers a call that was sent, or settles it. False: it could not be sent now. */
  #sent(call: Waiting, said: number | undefined): boolean {
    const connection = this.#at
    const slot = this.#slot
    if (said === undefined || connection === undefined) {
      const refusal = refusalOf(this.#workers)
      if (refusal !== 0) throw callError(call.name, refusal, '', call.mayHaveRun)
      return false
    }
    if (said < 0) {
      connection.release(slot)
      if (said !== errnos.notConnected) throw sendError(call.name, said)
      connection.suspect()
      setImmediate(() => this.collect())
      return false
    }
    connection.calls[slot] = call
    call.at = connection
    call.slot = slot
    if (said >= answered) {
      this.#fail(call, connection, said - answered, this.#record[iResultLength] ?? 0)
      connection.release(slot)
    }
    return true
  }

  #take(count: number): void {
    const record = this.#record
    for (let i = 0, at = iOutcomes; i < count; ++i, at += outcomeWords) {
      const slot = record[at + oSlot] ?? 0
      const worker = record[at + oWorker] ?? 0
      const connection = this.#workers[worker]
      if (connection === undefined) continue
      if (slot === workerDown) {
        connection.down()
        continue
      }
      const call = connection.calls[slot]
      const status = record[at + oStatus] ?? 0
      const length = record[at + oLength] ?? 0
      if (call !== undefined) catchUp(call)
      if (call === undefined || call.settled) {
        connection.release(slot)
      } else if (status === ok) {
        const { records } = call
        const result =
          records === undefined ? connection.staging.takeOutput(slot, length) : noResult
        if (call.many?.goOn(call, result, length)) {
          this.#goOn(call, connection, worker, slot)
          continue
        }
        connection.release(slot) // first: who hears of the result may send the next call
        this.#waiting.resolve(call, result)
      } else {
        this.#fail(call, connection, status, length)
        connection.release(slot)
      }
    }
  }

  /** Sends the next of many calls in the slot of the last one, which saves most of what finding one
   * and remembering the call costs. Unless others wait for a slot, or this worker is not to be used. */
  #goOn(call: Waiting, connection: WorkerConnection, worker: number, slot: number): void {
    renew(call)
    if (this.#record[iHold] === 0 && connection.ready) {
      this.#at = connection
      this.#worker = worker
      this.#slot = slot
      this.#queue(call)
    } else {
      call.at = undefined
      connection.release(slot)
      this.#waiting.enqueue(call)
    }
  }

  #fail(call: Waiting, connection: WorkerConnection, status: number, length: number): void {
    const worker = this.#workers.indexOf(connection)
    const said = length === 0 ? '' : this.#invoker.errorText(worker, call.slot, length)
    if (status === leaseRevoked || status === leaseEnded) {
      connection.refuse(status)
      if (refusalOf(this.#workers) === 0) return this.#waiting.repeat(call)
    }
    if (status === notReceived) return this.#waiting.repeat(call)
    if (status === workerLost && said === '') return this.#lost(call, connection)
    this.#waiting.reject(call, callError(call.name, status, said, call.mayHaveRun))
  }

  /** Its worker ended while it ran, or may have run it. */
  #lost(call: Waiting, connection: WorkerConnection): void {
    call.mayHaveRun = true
    if (call.idempotent) return this.#waiting.repeat(call)
    call.at = undefined
    // The executor manager knows why, and says so in a moment.
    void connection.causeOfEnd().then((cause) => {
      const said = cause === '' ? '' : `${cause}; the call may or may not have run`
      this.#waiting.reject(call, callError(call.name, workerLost, said, true))
    })
  }
}

/** What the worker may take for a call whose time has been running. */
function timeLeftUs({ deadline }: Waiting): number {
  return Math.max(1, Math.ceil((deadline - performance.now()) * 1000) - graceUs)
}
