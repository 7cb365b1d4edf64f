// What a trace says about idle cores and memory: over time, in periods, and for leases.
import type { Trace } from '../traces/trace.js'

export interface Analysis {
  source: string
  from: string
  until: string
  remarks: readonly string[]
  nodes: number
  cores: number
  memoryBytes: number
  /** Of the time of the trace, how much nothing is known of. */
  unknownMs: number
  knownMs: number
  idleCoreHours: number
  /** Of all core time, and of all memory, that is known. Memory: undefined where nothing is known of it. */
  idleCoreShare: number
  idleMemoryShare: number | undefined
  /** Means over equal parts of the time; undefined where nothing is known. */
  series: readonly Point[]
  periods: Periods
  /** By length of the leases. */
  leases: readonly LeaseUse[]
}

export interface Point {
  at: string
  /** Since the begin of the trace. */
  sinceMs: number
  idleCores: number
  idleMemoryBytes: number
}

/** Each core counts by itself: a node with four idle cores has four periods that begin and end together. */
export interface Periods {
  count: number
  /** Whose begin or end the trace does not show: they lasted longer. */
  cut: number
  meanMs: number
  medianMs: number
  p90Ms: number
  /** Of those of at most so long: their share of all periods, and of all idle core time. */
  distribution: readonly { upToMs: number; shareOfPeriods: number; shareOfIdle: number }[]
}

/** What leases of one length, one after the other from the begin of each period, would use: as many whole
 * ones as fit into it after the delay. */
export interface LeaseUse {
  leaseMs: number
  shareOfIdle: number
  coreHours: number
}

export interface AnalysisOptions {
  leasesMs: readonly number[]
  /** From when something is idle until a lease can begin. */
  delayMs: number
  points: number
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const distributionMs = [
  ...[0.25, 0.5, 1, 2, 5, 10, 20, 30].map((minutes) => minutes * minuteMs),
  ...[1, 2, 4, 8, 12, 24, 48, 168].map((hours) => hours * hourMs),
]

export function analyze(trace: Trace, options: AnalysisOptions): Analysis {
  const { nodes, fromMs, untilMs, gaps } = trace
  const cores = nodes.reduce((sum, node) => sum + node.cores, 0)
  const memoryBytes = nodes.reduce((sum, node) => sum + node.memoryBytes, 0)
  const unknownMs = gaps.reduce((sum, gap) => sum + gap.untilMs - gap.fromMs, 0)
  const knownMs = untilMs - fromMs - unknownMs
  const series = new Series(trace, options.points)
  const lengths = new Lengths()
  const open: Layers[] = nodes.map(() => new Layers())
  for (const { atMs, node, idleCores, idleMemoryBytes } of trace.changes()) {
    series.change(node, atMs, idleCores, idleMemoryBytes)
    open[node]!.change(atMs, idleCores, (sinceMs, count) =>
      lengths.add(atMs - sinceMs, count, sinceMs === fromMs),
    )
  }
  series.finish()
  open.forEach((layers) =>
    layers.change(untilMs, 0, (sinceMs, count) => lengths.add(untilMs - sinceMs, count, true)),
  )
  const periods = lengths.sorted()
  const idleCoreMs = series.idleCoreMs
  return {
    source: trace.source,
    from: new Date(fromMs).toISOString(),
    until: new Date(untilMs).toISOString(),
    remarks: trace.remarks,
    ...{ nodes: nodes.length, cores, memoryBytes, unknownMs, knownMs },
    idleCoreHours: idleCoreMs / hourMs,
    idleCoreShare: share(idleCoreMs, cores * knownMs),
    idleMemoryShare:
      memoryBytes === 0 ? undefined : share(series.idleMemoryByteMs, memoryBytes * knownMs),
    series: series.points(),
    periods: describePeriods(periods, lengths.cut, idleCoreMs),
    leases: options.leasesMs.map((leaseMs) => {
      let used = 0
      for (const { ms, count } of periods) {
        used += Math.floor(Math.max(0, ms - options.delayMs) / leaseMs) * leaseMs * count
      }
      return { leaseMs, shareOfIdle: share(used, idleCoreMs), coreHours: used / hourMs }
    }),
  }
}

/** The idle core time of a trace alone. */
export function idleCoreMsOf(trace: Trace): number {
  const series = new Series(trace, 1)
  for (const { atMs, node, idleCores, idleMemoryBytes } of trace.changes()) {
    series.change(node, atMs, idleCores, idleMemoryBytes)
  }
  series.finish()
  return series.idleCoreMs
}

/** The idle cores of a node as layers: the n-th is idle as long as at least n cores are. Of one more core
 * the period is begun last and ended first. */
class Layers {
  /** Growing counts of idle cores, each with the time since when there are so many. */
  readonly #steps: { sinceMs: number; cores: number }[] = []

  change(atMs: number, cores: number, ended: (sinceMs: number, count: number) => void): void {
    for (let last = this.#steps.at(-1); last !== undefined; last = this.#steps.at(-1)) {
      if (last.cores <= cores) break
      this.#steps.pop()
      const below = Math.max(this.#steps.at(-1)?.cores ?? 0, cores)
      ended(last.sinceMs, last.cores - below)
      if (below === cores && below > (this.#steps.at(-1)?.cores ?? 0)) {
        this.#steps.push({ sinceMs: last.sinceMs, cores })
      }
    }
    if (cores > (this.#steps.at(-1)?.cores ?? 0)) this.#steps.push({ sinceMs: atMs, cores })
  }
}

interface Length {
  ms: number
  count: number
}

/** How many periods there were of each length. */
class Lengths {
  readonly #counts = new Map<number, number>()
  cut = 0

  add(ms: number, count: number, isCut: boolean): void {
    if (ms <= 0) return
    this.#counts.set(ms, (this.#counts.get(ms) ?? 0) + count)
    if (isCut) this.cut += count
  }

  sorted(): Length[] {
    return Array.from(this.#counts, ([ms, count]) => ({ ms, count })).sort((a, b) => a.ms - b.ms)
  }
}

function describePeriods(sorted: readonly Length[], cut: number, idleCoreMs: number): Periods {
  const count = sorted.reduce((sum, length) => sum + length.count, 0)
  const atShare = (wanted: number): number => {
    let seen = 0
    for (const length of sorted) {
      seen += length.count
      if (seen >= wanted * count) return length.ms
    }
    return 0
  }
  let [place, seen, seenMs] = [0, 0, 0]
  const distribution = distributionMs.map((upToMs) => {
    for (; place < sorted.length && sorted[place]!.ms <= upToMs; place += 1) {
      seen += sorted[place]!.count
      seenMs += sorted[place]!.count * sorted[place]!.ms
    }
    return { upToMs, shareOfPeriods: share(seen, count), shareOfIdle: share(seenMs, idleCoreMs) }
  })
  return {
    ...{ count, cut, meanMs: share(idleCoreMs, count) },
    ...{ medianMs: atShare(0.5), p90Ms: atShare(0.9), distribution },
  }
}

/** Integrals over equal parts of the time. */
class Series {
  idleCoreMs = 0
  idleMemoryByteMs = 0
  readonly #trace: Trace
  readonly #stepMs: number
  readonly #coreMs: Float64Array
  readonly #byteMs: Float64Array
  readonly #since: Float64Array
  readonly #cores: Float64Array
  readonly #bytes: Float64Array

  constructor(trace: Trace, points: number) {
    this.#trace = trace
    this.#stepMs = Math.max(1, (trace.untilMs - trace.fromMs) / points)
    this.#coreMs = new Float64Array(points)
    this.#byteMs = new Float64Array(points)
    this.#since = new Float64Array(trace.nodes.length).fill(trace.fromMs)
    this.#cores = new Float64Array(trace.nodes.length)
    this.#bytes = new Float64Array(trace.nodes.length)
  }

  change(node: number, atMs: number, cores: number, bytes: number): void {
    this.#add(this.#since[node]!, atMs, this.#cores[node]!, this.#bytes[node]!)
    this.#since[node] = atMs
    this.#cores[node] = cores
    this.#bytes[node] = bytes
  }

  finish(): void {
    this.#trace.nodes.forEach((_, node) => this.change(node, this.#trace.untilMs, 0, 0))
  }

  points(): Point[] {
    const { fromMs, gaps } = this.#trace
    return Array.from(this.#coreMs, (coreMs, i): Point | undefined => {
      const begin = fromMs + i * this.#stepMs
      const unknown = gaps.reduce(
        (sum, gap) => sum + overlap(gap.fromMs, gap.untilMs, begin, begin + this.#stepMs),
        0,
      )
      const known = this.#stepMs - unknown
      if (known < this.#stepMs / 100) return undefined
      return {
        ...{ at: new Date(begin).toISOString(), sinceMs: begin - fromMs },
        ...{ idleCores: coreMs / known, idleMemoryBytes: this.#byteMs[i]! / known },
      }
    }).filter((point) => point !== undefined)
  }

  #add(fromMs: number, untilMs: number, cores: number, bytes: number): void {
    const ms = untilMs - fromMs
    if (ms <= 0 || (cores === 0 && bytes === 0)) return
    this.idleCoreMs += cores * ms
    this.idleMemoryByteMs += bytes * ms
    const begin = this.#trace.fromMs
    const first = Math.floor((fromMs - begin) / this.#stepMs)
    const last = Math.min(this.#coreMs.length - 1, Math.floor((untilMs - begin) / this.#stepMs))
    for (let i = first; i <= last; i += 1) {
      const at = begin + i * this.#stepMs
      const within = overlap(fromMs, untilMs, at, at + this.#stepMs)
      this.#coreMs[i]! += cores * within
      this.#byteMs[i]! += bytes * within
    }
  }
}

function overlap(a: number, b: number, from: number, until: number): number {
  return Math.max(0, Math.min(b, until) - Math.max(a, from))
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole
}
