// Workers that wait for a lease: for each runtime a few processes that have started, are confined and
// have run nobody's code. Each is in an enclosure of its own, which a lease takes over whole and is
// the only one to use; its place in the pool is filled anew.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../../lib/control/log.js'
import type { Runtime } from '../../lib/control/schemas.js'
import type { Enclosure } from './enclosure.js'
import type { WorkerProcess } from './worker-process.js'

// The start that took a worker away is not held up by its replacement.
const refillMs = 20
// Until it is tried again when one could not be made, or has ended while it waited.
const retryMs = 2000

export const runtimes: readonly Runtime[] = ['native', 'node']

export interface PoolOptions {
  /** Workers that wait, for each runtime. */
  size: number
  enclose: () => Enclosure
  logger: Logger
}

export class Pool {
  readonly #options: PoolOptions
  readonly #waiting = new Map<Runtime, Enclosure[]>(runtimes.map((runtime) => [runtime, []]))
  readonly #stop = new AbortController()
  readonly #closing = new Set<Promise<void>>()
  #filling: Promise<void> | undefined

  constructor(options: PoolOptions) {
    this.#options = options
  }

  /** How many wait now. */
  count(runtime: Runtime): number {
    return this.#waiting.get(runtime)?.length ?? 0
  }

  /** An enclosure with a worker that waits in it, the caller's from now on. */
  take(runtime: Runtime): Enclosure | undefined {
    const taken = this.#waiting.get(runtime)?.shift()
    this.fill()
    return taken
  }

  /** Begins to make what is missing. */
  fill(): void {
    if (this.#stop.signal.aborted) return
    this.#filling ??= this.#fill().finally(() => (this.#filling = undefined))
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#filling
    const waiting = [...this.#waiting.values()].flatMap((enclosures) => enclosures.splice(0))
    await Promise.all([...waiting.map((enclosure) => enclosure.close()), ...this.#closing])
  }

  async #fill(): Promise<void> {
    const { size, logger } = this.#options
    const pause = (ms: number): Promise<void> =>
      sleep(ms, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined)
    for (;;) {
      // One after the other: each start holds up the manager for a millisecond.
      await pause(refillMs)
      const lacking = runtimes.find((runtime) => this.count(runtime) < size)
      if (lacking === undefined || this.#stop.signal.aborted) return
      try {
        this.#add(lacking)
      } catch (error) {
        logger.warn({ err: error, runtime: lacking }, 'a worker for the pool could not be started')
        await pause(retryMs)
      }
    }
  }

  #add(runtime: Runtime): void {
    const { enclose, logger } = this.#options
    const enclosure = enclose()
    const waiting = this.#waiting.get(runtime)!
    let worker: WorkerProcess
    try {
      worker = enclosure.prepare(runtime, logger)
    } catch (error) {
      this.#close(enclosure)
      throw error
    }
    waiting.push(enclosure)
    void worker.ended.then(({ cause }) => {
      const place = waiting.indexOf(enclosure)
      if (place === -1) return
      waiting.splice(place, 1)
      logger.warn({ cause, runtime }, 'a worker ended while it waited in the pool')
      this.#close(enclosure)
      setTimeout(() => this.fill(), retryMs).unref()
    })
  }

  #close(enclosure: Enclosure): void {
    const closing = enclosure.close().finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }
}
