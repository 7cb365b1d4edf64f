// Batch jobs that are or were nodes: the book of those that run, and of the last ones that ended.
import { jobKey, type JobRecord } from '../stores/store.js'
import type { SeenJob } from '../sources/source.js'

// So much of a job that ends unseen may be missing from its time: a record that stays as it is need not
// be written with every look.
const writtenEveryMs = 300_000

export class JobBook {
  readonly #jobs = new Map<string, JobRecord>()
  /** Keys of those that ended, in the order in which that was noticed. */
  readonly #ended = new Set<string>()
  readonly #maxEnded: number
  /** When every job that has not ended had its cores. */
  #seenMs = 0

  constructor(maxEnded: number, jobs: readonly JobRecord[] = []) {
    this.#maxEnded = maxEnded
    for (const job of [...jobs].sort((a, b) => (a.endMs ?? 0) - (b.endMs ?? 0))) this.put(job)
  }

  all(): Iterable<JobRecord> {
    return this.#jobs.values()
  }

  /** Until when a job is known to have had its cores. */
  untilMs({ beginMs, endMs, seenMs }: JobRecord): number {
    return Math.max(beginMs, endMs ?? Math.max(seenMs, this.#seenMs))
  }

  /** Adds or replaces a job; returns the keys of those that are forgotten in exchange. */
  put(job: JobRecord): string[] {
    const key = jobKey(job)
    this.#jobs.set(key, job)
    this.#ended.delete(key)
    if (job.endMs !== undefined) this.#ended.add(key)
    const forgotten: string[] = []
    for (const oldest of this.#ended) {
      if (this.#ended.size <= this.#maxEnded) break
      this.#ended.delete(oldest)
      this.#jobs.delete(oldest)
      forgotten.push(oldest)
    }
    return forgotten
  }

  /** What an answer of the batch system, asked at `atMs`, changes. A job that it does not tell of has
   * ended when it was last seen, unless it is told of again: an answer may be wrong. */
  changes(seen: readonly SeenJob[], atMs: number): JobRecord[] {
    const changed: JobRecord[] = []
    const told = new Set<string>()
    for (const job of seen) {
      const key = jobKey(job)
      told.add(key)
      const known = this.#jobs.get(key)
      const isNews = known === undefined ? !this.#isForgotten(job) : differs(known, job, atMs)
      if (isNews) changed.push({ ...job, seenMs: atMs })
    }
    for (const [key, job] of this.#jobs) {
      if (job.endMs !== undefined || told.has(key)) continue
      changed.push({ ...job, state: 'unknown', endMs: this.untilMs(job) })
    }
    return changed
  }

  /** What the answer changed is in the book: all others that have not ended had their cores, too. */
  looked(atMs: number): void {
    this.#seenMs = atMs
  }

  /** The batch system may remember a job for longer than we do. */
  #isForgotten({ endMs }: SeenJob): boolean {
    if (endMs === undefined || this.#ended.size < this.#maxEnded) return false
    const [oldest = ''] = this.#ended
    return endMs <= (this.#jobs.get(oldest)?.endMs ?? 0)
  }
}

function differs(known: JobRecord, job: SeenJob, atMs: number): boolean {
  return (
    known.endMs !== job.endMs ||
    known.state !== job.state ||
    known.cores !== job.cores ||
    (job.endMs === undefined && atMs - known.seenMs >= writtenEveryMs)
  )
}
