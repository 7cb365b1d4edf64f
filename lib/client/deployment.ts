// A function package on all nodes of a lease: an executor on each, and one set of functions over the
// workers of all. Executors number their workers from 0; calls number them through, part after part.
import type {
  ExecutorInfo,
  ExecutorRequest,
  WorkerLostEvent,
  WorkerReadyEvent,
} from '../control/schemas.js'
import { RfaasError } from '../errors.js'
import type { NativeDevice } from '../native.js'
import type { FunctionsSettings } from './call-options.js'
import { Functions } from './functions.js'
import type { LeasedPart } from './leased-part.js'
import type { FunctionPackage } from './package.js'

interface Place {
  part: LeasedPart
  executor: ExecutorInfo
  /** The number in calls of the executor's first worker. */
  first: number
}

export class Deployment {
  readonly #places: readonly Place[]
  readonly #device: NativeDevice
  #functions: Functions | undefined
  #destroyed: RfaasError | undefined
  /** What happened before there were functions to be told. */
  #early: ((functions: Functions) => void)[] = []

  private constructor(places: readonly Place[], device: NativeDevice) {
    this.#places = places
    this.#device = device
  }

  /** On all parts or on none. */
  static async start(
    parts: readonly LeasedPart[],
    code: FunctionPackage,
    request: ExecutorRequest,
    device: NativeDevice,
  ): Promise<Deployment> {
    const outcomes = await Promise.allSettled(parts.map((part) => part.start(code, request)))
    const places: Place[] = []
    let first = 0
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === 'rejected') continue
      places.push({ part: parts[index]!, executor: outcome.value, first })
      first += outcome.value.workers.length
    }
    const deployment = new Deployment(places, device)
    try {
      for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
      checkFunctions(places)
      return deployment
    } catch (error) {
      await deployment.#stop().catch(() => undefined)
      throw error
    }
  }

  /** Connects to all workers. The device belongs to the functions if this succeeds. */
  async connect(settings: FunctionsSettings, onClose: () => void): Promise<Functions> {
    const { executor: some } = this.#places[0]!
    const workers = this.#places.flatMap(({ executor, first }) =>
      executor.workers.map((endpoint) => ({ ...endpoint, worker: first + endpoint.worker })),
    )
    try {
      this.#functions = await Functions.connect(
        this.#device,
        { ...some, workers },
        settings,
        (worker) => this.#places.findLast(({ first }) => first <= worker)!.part.heard,
        async () => {
          onClose()
          this.#device.close()
          await this.#stop()
        },
      )
    } catch (error) {
      await this.#stop().catch(() => undefined)
      throw error
    }
    if (this.#destroyed !== undefined) {
      this.#functions.destroy(this.#destroyed)
      throw this.#destroyed
    }
    for (const tell of this.#early.splice(0)) tell(this.#functions)
    for (const { part } of this.#places) part.follow()
    return this.#functions
  }

  /** The worker's number in calls; undefined when the executor is not of this deployment. */
  workerLost(
    part: LeasedPart,
    { executor, worker, cause, lastStarted = 'Infinity' }: WorkerLostEvent,
  ): number | undefined {
    const number = this.#numberOf(part, executor, worker)
    if (number !== undefined)
      this.#tell((functions) => functions.workerLost(number, cause, Number(lastStarted)))
    return number
  }

  /** `onReady` is called when calls can be sent to it. */
  workerReady(
    part: LeasedPart,
    { executor, endpoint }: WorkerReadyEvent,
    onReady: (worker: number) => void,
  ): void {
    const worker = this.#numberOf(part, executor, endpoint.worker)
    if (worker === undefined) return
    this.#tell((functions) => {
      functions.workerReady({ ...endpoint, worker }).then(
        () => onReady(worker),
        () => undefined, // it was lost again; the next event tells
      )
    })
  }

  /** The workers of this part never come back. */
  partOver(part: LeasedPart, cause: string): void {
    for (const { part: other, executor, first } of this.#places) {
      if (other !== part) continue
      for (const { worker } of executor.workers) {
        this.#tell((functions) => functions.workerGone(first + worker, cause))
      }
    }
  }

  /** Resolves when no call is in flight. */
  async drained(): Promise<void> {
    await this.#functions?.drained()
  }

  /** Ends all calls now. */
  destroy(error: RfaasError): void {
    this.#destroyed = error
    if (this.#functions === undefined) return
    this.#functions.destroy(error)
    this.#device.close()
  }

  async #stop(): Promise<void> {
    const stopping = this.#places.map(({ part, executor }) => part.stopExecutor(executor.id))
    await Promise.allSettled(stopping)
    await Promise.all(stopping)
  }

  #tell(what: (functions: Functions) => void): void {
    if (this.#functions === undefined) this.#early.push(what)
    else what(this.#functions)
  }

  #numberOf(part: LeasedPart, executor: string, worker: number): number | undefined {
    const place = this.#places.find(
      (other) => other.part === part && other.executor.id === executor,
    )
    return place?.executor.workers[worker] === undefined ? undefined : place.first + worker
  }
}

/** Indices in calls mean the same on every node, or calls would reach the wrong function. */
function checkFunctions(places: readonly Place[]): void {
  const [one, ...others] = places
  for (const { part, executor } of others) {
    if (executor.functions.join('\n') === one!.executor.functions.join('\n')) continue
    throw new RfaasError(
      'ERR_RFAAS_PACKAGE',
      `the package has other functions on ${part.info.node} than on ${one!.part.info.node}: it must export the same wherever it is loaded`,
    )
  }
}
