// What a simulation counts, and what comes of it.

export interface Result {
  /** Core-hours that leases had, and those in which calls ran that counted. */
  leasedCoreHours: number
  usefulCoreHours: number
  /** Of the core-hours that the batch system left idle, the share that leases had. */
  shareOfIdle: number
  leases: number
  /** Ended by the batch system before their time. */
  preempted: number
  /** Single calls: that ran to their end; that were cut off and had to run again; that went to another
   * lease without having begun. */
  calls: number
  callsLost: number
  callsMoved: number
  /** Of requests for leases, until they were granted, in ms. */
  wait: { mean: number; p50: number; p95: number; max: number }
  /** Requests that were not granted in time, and the core-hours of work that were not done. */
  refused: number
  refusedCoreHours: number
  /** How many leases had several parts. */
  divided: number
  /** Jobs that had to wait until a node was given back, and for how long. */
  jobsWaited: number
  jobWait: { mean: number; max: number }
}

const hourMs = 3_600_000

export class Tally {
  readonly #idleCoreMs: number
  #leasedCoreMs = 0
  /** Of leases that have not ended: their cores, and these times when they began. */
  #openCores = 0
  #openCoreBegins = 0
  #usefulCoreMs = 0
  #preempted = 0
  #calls = 0
  #lost = 0
  #moved = 0
  #divided = 0
  readonly #waits: number[] = []
  #refused = 0
  #refusedCoreMs = 0
  readonly #jobWaits: number[] = []

  constructor(idleCoreMs: number) {
    this.#idleCoreMs = idleCoreMs
  }

  granted(waitedMs: number, parts: number): void {
    this.#waits.push(waitedMs)
    if (parts > 1) this.#divided += 1
  }

  refused(coreMs: number): void {
    this.#refused += 1
    this.#refusedCoreMs += coreMs
  }

  leaseBegins(cores: number, nowMs: number): void {
    this.#openCores += cores
    this.#openCoreBegins += cores * nowMs
  }

  leaseEnds(cores: number, begunMs: number, nowMs: number, calls: number, callMs: number): void {
    this.#openCores -= cores
    this.#openCoreBegins -= cores * begunMs
    this.#leasedCoreMs += cores * (nowMs - begunMs)
    this.#usefulCoreMs += cores * calls * callMs
    this.#calls += cores * calls
  }

  preempted({ lost, moved }: { lost: number; moved: number }): void {
    this.#preempted += 1
    this.#lost += lost
    this.#moved += moved
  }

  jobWaited(ms: number): void {
    this.#jobWaits.push(ms)
  }

  result(nowMs: number): Result {
    const leasedCoreMs = this.#leasedCoreMs + this.#openCores * nowMs - this.#openCoreBegins
    const waits = Float64Array.from(this.#waits).sort()
    const at = (share: number): number => waits[Math.ceil(share * waits.length) - 1] ?? 0
    return {
      leasedCoreHours: leasedCoreMs / hourMs,
      usefulCoreHours: this.#usefulCoreMs / hourMs,
      shareOfIdle: this.#idleCoreMs === 0 ? 0 : leasedCoreMs / this.#idleCoreMs,
      leases: waits.length,
      preempted: this.#preempted,
      calls: this.#calls,
      callsLost: this.#lost,
      callsMoved: this.#moved,
      wait: { mean: mean(waits), p50: at(0.5), p95: at(0.95), max: waits.at(-1) ?? 0 },
      refused: this.#refused,
      refusedCoreHours: this.#refusedCoreMs / hourMs,
      divided: this.#divided,
      jobsWaited: this.#jobWaits.filter((ms) => ms > 0).length,
      jobWait: {
        mean: mean(this.#jobWaits),
        max: this.#jobWaits.reduce((most, ms) => Math.max(most, ms), 0),
      },
    }
  }
}

function mean(values: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < values.length; i += 1) sum += values[i]!
  return values.length === 0 ? 0 : sum / values.length
}
