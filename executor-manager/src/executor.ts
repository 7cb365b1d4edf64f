// One executor: a function package on the cores of a lease, one worker process per core. It keeps
// its workers alive until it is stopped: a worker that ends is replaced at once, under a new address
// and with a new secret. Only workers that keep dying young are made to wait.
import { randomBytes } from 'node:crypto'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type {
  ExecutorInfo,
  ExecutorRequest,
  WorkerEndpoint,
  WorkerLostEvent,
  WorkerReadyEvent,
} from '../../lib/control/schemas.js'
import type { Logger } from '../../lib/control/log.js'
import { RfaasError } from '../../lib/errors.js'
import type { Enclosure } from './enclosure.js'
import { inheritedSocket, startedFd } from './sandbox.js'
import type { ServedCalls } from './worker-events.js'
import type { WorkerEnd, WorkerProcess, WorkerReady } from './worker-process.js'

// A worker that ends within this time after its start is "young"; so many may do it in a row before
// the next one has to wait, and then ever longer.
const youngMs = 1000
const youngDeaths = 3
const backoffMs = { first: 100, most: 5000 }

export interface ExecutorEvents {
  workerLost(event: WorkerLostEvent): void
  /** As it was told to, after new calls were refused. */
  workerStopped(event: WorkerLostEvent): void
  workerReady(event: WorkerReadyEvent): void
  served(calls: ServedCalls): void
  /** Once per process, when it is gone. */
  measured(cpuMs: number): void
}

export interface ExecutorSpec {
  request: ExecutorRequest
  /** Path of the package, already made for the runtime. */
  packagePath: string
  cores: readonly number[]
  /** Of the lease. */
  enclosure: Enclosure
  /** Where verbs workers listen, `IP:PORT`. */
  verbsAddress: string
  device: string
  readyTimeoutMs: number
  logger: Logger
  /** Undefined until somebody has a use for them: see `adopt`. */
  events: ExecutorEvents | undefined
}

/** For the workers of all executors of a lease on this node, their buffers. */
export function bufferBytes(request: ExecutorRequest, cores: readonly number[]): number {
  return request.slots * (request.payloadBytes + request.outputBytes) * cores.length
}

interface Place {
  index: number
  core: number
  generation: number
  process: WorkerProcess | undefined
  endpoint: WorkerEndpoint | undefined
}

export class Executor {
  readonly id: string
  readonly package: string
  readonly #spec: ExecutorSpec
  readonly #logger: Logger
  #events: ExecutorEvents | undefined
  readonly #places: Place[]
  readonly #stopping = new AbortController()
  readonly #keepers: Promise<void>[] = []
  readonly #finished = new Set<Promise<void>>()
  #functions: readonly string[] = []
  #draining = false

  private constructor(spec: ExecutorSpec) {
    this.id = `x-${randomBytes(8).toString('hex')}`
    this.package = spec.request.package
    this.#spec = spec
    this.#events = spec.events
    this.#logger = spec.logger.child({ executor: this.id })
    this.#places = spec.cores.map((core, index) => ({
      index,
      core,
      generation: 0,
      process: undefined,
      endpoint: undefined,
    }))
  }

  /** Resolves when every worker is ready; when one cannot be, all are ended and it rejects. */
  static async start(spec: ExecutorSpec, signal: AbortSignal): Promise<Executor> {
    const executor = new Executor(spec)
    try {
      await executor.#start(signal)
      return executor
    } catch (error) {
      await executor.stop(0)
      throw error
    }
  }

  /** What happens from now on is told to these. */
  adopt(events: ExecutorEvents): void {
    this.#events = events
  }

  get info(): ExecutorInfo {
    const { package: sha256, runtime, provider } = this.#spec.request
    return {
      id: this.id,
      package: sha256,
      runtime,
      provider,
      functions: [...this.#functions],
      workers: this.#places.flatMap(({ endpoint }) => (endpoint === undefined ? [] : [endpoint])),
    }
  }

  /** Endpoints that are not the ones of `start` any more: for those who missed the event. */
  get replaced(): WorkerEndpoint[] {
    return this.#places.flatMap(({ endpoint, generation }) =>
      endpoint !== undefined && generation > 1 ? [endpoint] : [],
    )
  }

  get runningWorkers(): number {
    return this.#places.filter(({ endpoint }) => endpoint !== undefined).length
  }

  get cpuMs(): number {
    return this.#places.reduce((sum, { process }) => sum + (process?.cpuMs ?? 0), 0)
  }

  /** The lease is being revoked: no worker takes a new call, now or after a restart. Running calls
   * finish. */
  drain(): void {
    this.#draining = true
    for (const { process } of this.#places) process?.drain()
  }

  /** Running calls may finish for `graceMs`. Resolves when every process is gone and measured. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#places.map(({ process }) => process?.stop(graceMs)))
    await Promise.all(this.#keepers)
    await Promise.all(this.#finished)
  }

  async #start(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw leaseEnded()
    const onAbort = (): void => {
      for (const { process } of this.#places) process?.kill()
    }
    signal.addEventListener('abort', onAbort)
    try {
      const started = this.#places.map((place) => this.#launch(place))
      // The first failure is the answer; its siblings are stopped by `start`.
      const ready = await Promise.all(started)
      if (signal.aborted) throw leaseEnded()
      this.#functions = ready[0]?.functions ?? []
      for (const [index, { functions }] of ready.entries()) this.#checkFunctions(index, functions)
      for (const place of this.#places) this.#keepers.push(this.#keep(place))
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** A process in this place, ready for a client. */
  async #launch(place: Place): Promise<WorkerReady> {
    const { request, enclosure, packagePath, ...spec } = this.#spec
    place.generation += 1
    const ticket = randomBytes(32).toString('hex')
    const logger = this.#logger.child({ worker: place.index })
    const process = enclosure.start(request, packagePath, logger)
    const shm = request.provider === 'shm'
    const address = shm ? process.socket : spec.verbsAddress
    place.process = process
    const finished = process.ended.then((end) => {
      this.#events?.measured(end.cpuMs)
      this.#finished.delete(finished)
    })
    this.#finished.add(finished)
    process.begin({
      index: place.index,
      assignment: enclosure.assignment({ request, packagePath, core: place.core }),
      configuration: {
        provider: request.provider,
        device: spec.device,
        address: shm ? inheritedSocket : address,
        ticket,
        package: packagePath,
        worker: place.index,
        slots: request.slots,
        payload_bytes: request.payloadBytes,
        output_bytes: request.outputBytes,
        hot_timeout_us: request.hotTimeoutMs * 1000,
        started_fd: startedFd,
      },
      readyTimeoutMs: spec.readyTimeoutMs,
      served: (calls) => this.#events?.served(calls),
      logger,
    })
    if (this.#draining) process.drain()
    const ready = await process.ready
    place.endpoint = {
      worker: place.index,
      core: place.core,
      address: this.#checkAddress(process, address, ready.address),
      ticket,
    }
    return ready
  }

  /** Replaces the place's process whenever it ends, until the executor is stopped. */
  async #keep(place: Place): Promise<void> {
    const { signal } = this.#stopping
    let startedAt = performance.now()
    let died = 0
    while (!signal.aborted) {
      const process = place.process
      if (process === undefined) return
      const end = await process.ended
      const wasReady = place.endpoint !== undefined
      place.endpoint = undefined
      if (signal.aborted) {
        // Calls that were on their way did not run: their client is told by what it had started last.
        if (wasReady && this.#draining) {
          this.#events?.workerStopped({ ...this.#lost(place, end), stopped: true })
        }
        return
      }
      this.#logger.warn({ worker: place.index, cause: end.cause }, 'worker lost')
      if (wasReady) this.#events?.workerLost(this.#lost(place, end))
      died = performance.now() - startedAt < youngMs ? died + 1 : 0
      if (died > youngDeaths) {
        const waitMs = Math.min(backoffMs.most, backoffMs.first * 2 ** (died - youngDeaths - 1))
        await sleep(waitMs, undefined, { signal }).catch(() => undefined)
        if (signal.aborted) return
      }
      startedAt = performance.now()
      await this.#relaunch(place)
    }
  }

  async #relaunch(place: Place): Promise<void> {
    try {
      const { functions } = await this.#launch(place)
      this.#checkFunctions(place.index, functions)
      if (this.#stopping.signal.aborted || place.endpoint === undefined) return
      this.#events?.workerReady({ executor: this.id, endpoint: place.endpoint })
    } catch (error) {
      // The loop sees that this process has ended too, and tries again.
      place.endpoint = undefined
      place.process?.kill()
      if (this.#stopping.signal.aborted) return
      this.#logger.error({ worker: place.index, err: error }, 'worker could not be restarted')
    }
  }

  #lost(place: Place, { cause, requestId, lastStarted }: WorkerEnd): WorkerLostEvent {
    return {
      executor: this.id,
      worker: place.index,
      cause,
      ...(requestId !== undefined && { requestId }),
      ...(lastStarted !== undefined && { lastStarted }),
    }
  }

  /** Indices in calls mean the same in every worker, or calls would reach the wrong function. */
  #checkFunctions(index: number, functions: readonly string[]): void {
    if (JSON.stringify(functions) === JSON.stringify(this.#functions)) return
    throw new RfaasError(
      'ERR_RFAAS_PACKAGE',
      `worker ${index} found other functions in the package than worker 0: it must export the same each time it is loaded`,
    )
  }

  /** A worker may not send clients to somebody else. */
  #checkAddress(process: WorkerProcess, asked: string, said: string): string {
    if (this.#spec.request.provider === 'shm') {
      if (said === asked) return said
    } else {
      const match = /^\[?([0-9a-fA-F:.]+?)\]?:(\d{1,5})$/.exec(said)
      const [, host, port] = match ?? []
      if (host !== undefined && Number(port) > 0 && Number(port) < 65536) {
        // A worker that was asked to listen everywhere names the address of its RDMA device.
        const everywhere = asked.startsWith('0.0.0.0:') || asked.startsWith('[::]:')
        if (
          everywhere ? isOurs(host) : said.startsWith(asked.slice(0, asked.lastIndexOf(':') + 1))
        ) {
          return said
        }
      }
    }
    process.kill()
    throw new RfaasError('ERR_RFAAS_EXECUTOR', `a worker listens on ${said}, not on ${asked}`)
  }
}

function isOurs(address: string): boolean {
  const interfaces = Object.values(networkInterfaces()).flatMap((entries) => entries ?? [])
  return interfaces.some((entry) => entry.address === address)
}

function leaseEnded(): RfaasError {
  return new RfaasError('ERR_RFAAS_LEASE_ENDED', 'the lease has ended')
}
