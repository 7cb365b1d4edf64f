// Workers that start while their lease is being granted: the resource manager says what is about to be
// deployed, and when the client's request comes here they wait for it as those of the pool do. Nothing
// depends on it. Who comes earlier, or with something else, gets workers of its own.
import type { Logger } from '../../lib/control/log.js'
import type { ExecutorRequest, PrepareEvent, Runtime } from '../../lib/control/schemas.js'
import type { Enclosure } from './enclosure.js'
import type { Pool } from './pool.js'

// A client that has its lease and deploys nothing for so long is in no hurry.
const mostWaitMs = 2000

export interface PreparationsOptions {
  pool: Pool
  enclose: () => Enclosure
  /** Whether nothing of this lease has come here yet, not even its end. */
  isUnknown(lease: string): boolean
  logger: Logger
}

interface Prepared {
  runtime: Runtime
  enclosure: Enclosure
  from: 'pool' | 'preparation'
  timer: NodeJS.Timeout
}

export class Preparations {
  readonly #options: PreparationsOptions
  readonly #prepared = new Map<string, Prepared>()
  readonly #closing = new Set<Promise<void>>()

  constructor(options: PreparationsOptions) {
    this.#options = options
  }

  prepare({ lease, runtime, cores, memoryBytes }: PrepareEvent): void {
    const { pool, enclose, isUnknown, logger } = this.#options
    if (this.#prepared.has(lease) || !isUnknown(lease)) return
    const waiting = pool.take(runtime)
    let enclosure = waiting
    try {
      enclosure ??= enclose()
      enclosure.begin({ cores, memoryBytes })
      const timer = setTimeout(() => this.drop(lease), mostWaitMs).unref()
      const from = waiting === undefined ? 'preparation' : 'pool'
      this.#prepared.set(lease, { runtime, enclosure, from, timer })
      while (enclosure.waiting.length < cores.length) enclosure.prepare(runtime, logger)
      for (const { ended } of enclosure.waiting) void ended.then(() => this.drop(lease))
    } catch (error) {
      logger.warn({ err: error, lease }, 'workers could not be started ahead')
      if (enclosure !== undefined) this.#close(enclosure)
      this.#forget(lease)
    }
  }

  /** What was prepared for the lease, the caller's from now on; nothing if it is for something else. */
  take(
    lease: string,
    { runtime, provider }: ExecutorRequest,
  ): Pick<Prepared, 'enclosure' | 'from'> | undefined {
    const prepared = this.#prepared.get(lease)
    if (prepared !== undefined && prepared.runtime === runtime && provider === 'shm') {
      this.#forget(lease)
      return prepared
    }
    this.drop(lease)
    return undefined
  }

  /** The lease needs it no longer. */
  drop(lease: string): void {
    const prepared = this.#prepared.get(lease)
    if (prepared === undefined) return
    this.#forget(lease)
    this.#close(prepared.enclosure)
  }

  async close(): Promise<void> {
    for (const lease of [...this.#prepared.keys()]) this.drop(lease)
    await Promise.all(this.#closing)
  }

  #forget(lease: string): void {
    clearTimeout(this.#prepared.get(lease)?.timer)
    this.#prepared.delete(lease)
  }

  #close(enclosure: Enclosure): void {
    const closing = enclosure.close().finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }
}
