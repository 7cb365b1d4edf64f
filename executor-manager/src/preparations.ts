// Executors that start while their lease is being granted: the resource manager says what is about to be
// deployed, and when the client's request comes here they are ready, or nearly. If the package has yet to
// come, its workers wait for it as those of the pool do. Nothing depends on it. Who comes earlier, or with
// something else, gets workers of its own.
import { isDeepStrictEqual } from 'node:util'
import type { Logger } from '../../lib/control/log.js'
import type { ExecutorRequest, PrepareEvent } from '../../lib/control/schemas.js'
import type { Enclosure } from './enclosure.js'
import { bufferBytes, Executor, type ExecutorEvents, type ExecutorSpec } from './executor.js'
import type { PackageStore } from './packages.js'
import type { Pool } from './pool.js'

// A client that has its lease and deploys nothing for so long is in no hurry.
const mostWaitMs = 2000

export interface PreparationsOptions {
  pool: Pool
  enclose: () => Enclosure
  packages: PackageStore
  /** For executors: see LeaseTableOptions. */
  execution: Pick<ExecutorSpec, 'verbsAddress' | 'device' | 'readyTimeoutMs'>
  /** Whether nothing of this lease has come here yet, not even its end. */
  isUnknown(lease: string): boolean
  logger: Logger
}

interface Prepared {
  event: PrepareEvent
  enclosure: Enclosure
  from: 'pool' | 'preparation'
  timer: NodeJS.Timeout
  stop: AbortController
  /** Undefined as long as its package is not here. */
  executor: Promise<Executor> | undefined
}

/** What a lease takes over. */
export interface Preparation {
  enclosure: Enclosure
  from: Prepared['from']
  /** Resolves when it is ready; rejects when it cannot be started, or `signal` aborts. Undefined: there is
   * none yet, only its workers. */
  executor: ((events: ExecutorEvents, signal: AbortSignal) => Promise<Executor>) | undefined
}

export class Preparations {
  readonly #options: PreparationsOptions
  readonly #prepared = new Map<string, Prepared>()
  readonly #closing = new Set<Promise<void>>()

  constructor(options: PreparationsOptions) {
    this.#options = options
  }

  prepare(event: PrepareEvent): void {
    const { lease, executor: request, cores, memoryBytes } = event
    const { runtime } = request
    const { pool, enclose, packages, isUnknown, logger } = this.#options
    if (request.provider !== 'shm' || this.#prepared.has(lease) || !isUnknown(lease)) return
    const waiting = pool.take(runtime)
    let enclosure = waiting
    try {
      enclosure ??= enclose()
      enclosure.begin({ cores, memoryBytes })
      while (enclosure.waiting.length < cores.length) enclosure.prepare(runtime, logger)
    } catch (error) {
      logger.warn({ err: error, lease }, 'workers could not be started ahead')
      if (enclosure !== undefined) this.#close(enclosure)
      return
    }
    for (const { ended } of enclosure.waiting) void ended.then(() => this.drop(lease))
    const stop = new AbortController()
    const startable =
      packages.seemsHere(request.package) && bufferBytes(request, cores) <= memoryBytes
    const executor = startable ? this.#start(event, enclosure, stop.signal) : undefined
    // Whoever takes it over learns why; nobody else needs to.
    executor?.catch(() => undefined)
    const from = waiting === undefined ? 'preparation' : 'pool'
    const timer = setTimeout(() => this.drop(lease), mostWaitMs).unref()
    this.#prepared.set(lease, { event, enclosure, from, timer, stop, executor })
  }

  /** What was prepared for the lease, the caller's from now on; nothing if it is for something else. The
   * caller uses the package, too. */
  take(lease: string, request: ExecutorRequest): Preparation | undefined {
    const prepared = this.#prepared.get(lease)
    if (prepared === undefined) return undefined
    const { event, enclosure, from, stop, executor } = prepared
    // Workers without work take any of their runtime.
    const fits =
      executor === undefined
        ? request.runtime === event.executor.runtime && request.provider === 'shm'
        : isDeepStrictEqual(request, event.executor)
    if (!fits) {
      this.drop(lease)
      return undefined
    }
    this.#forget(lease)
    if (executor === undefined) return { enclosure, from, executor }
    const adopt = async (events: ExecutorEvents, signal: AbortSignal): Promise<Executor> => {
      const onAbort = (): void => stop.abort()
      signal.addEventListener('abort', onAbort)
      if (signal.aborted) stop.abort()
      try {
        const started = await executor
        this.#options.packages.release(request.package)
        started.adopt(events)
        return started
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    }
    return { enclosure, from, executor: adopt }
  }

  /** The lease needs it no longer. */
  drop(lease: string): void {
    const prepared = this.#prepared.get(lease)
    if (prepared === undefined) return
    this.#forget(lease)
    prepared.stop.abort()
    this.#close(prepared.enclosure, prepared.executor)
  }

  async close(): Promise<void> {
    for (const lease of [...this.#prepared.keys()]) this.drop(lease)
    await Promise.all(this.#closing)
  }

  async #start(event: PrepareEvent, enclosure: Enclosure, signal: AbortSignal): Promise<Executor> {
    const { packages, execution, logger } = this.#options
    const { lease, executor: request, cores } = event
    const packagePath = await packages.use(request.package, request.runtime)
    try {
      return await Executor.start(
        {
          request,
          packagePath: enclosure.place(packagePath),
          enclosure,
          cores,
          ...execution,
          logger: logger.child({ lease }),
          events: undefined,
        },
        signal,
      )
    } catch (error) {
      packages.release(request.package)
      throw error
    }
  }

  #forget(lease: string): void {
    clearTimeout(this.#prepared.get(lease)?.timer)
    this.#prepared.delete(lease)
  }

  #close(enclosure: Enclosure, executor?: Promise<Executor>): void {
    const end = async (): Promise<void> => {
      const started = await executor?.catch(() => undefined)
      if (started !== undefined) {
        await started.stop(0)
        this.#options.packages.release(started.package)
      }
      await enclosure.close()
    }
    const closing = end().finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }
}
