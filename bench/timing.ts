// The loops that take times. They do nothing between the two looks at the clock but the call.
import { summarize, type Summary } from './statistics.js'

/** One operation of a driver. A process has one of them, so the compiler sees one target only. */
export type Operation =
  { readonly kind: 'sync'; call(): void } | { readonly kind: 'async'; call(): Promise<void> }

export interface Limits {
  /** Round trips to measure. */
  samples: number
  /** What is slow stops when this is over, with fewer. */
  budgetMs: number
}

export interface Round extends Summary {
  /** Median over batches of a batch's time divided by its calls: the clock is all but out of it. */
  batchNs: number
}

const callsPerBatch = 32
// Batches get a quarter of the time and of the calls.
const batchShare = 4
// Reading the clock for the budget is not part of a sample, but it is not free either.
const samplesPerLook = 64

export function measure(operation: Operation, limits: Limits): Promise<Round> {
  return operation.kind === 'sync'
    ? Promise.resolve(measureSync(() => operation.call(), limits))
    : measureAsync(() => operation.call(), limits)
}

/** What a sample costs that has nothing in it: it is part of every other sample. */
export function clockCostNs(): number {
  const samples = 100_000
  const nothing = (): void => undefined
  timeSync(nothing, new Float64Array(samples), Infinity)
  const times = new Float64Array(samples)
  timeSync(nothing, times, Infinity)
  return summarize(times).p50Ns
}

function measureSync(call: () => void, { samples, budgetMs }: Limits): Round {
  const times = new Float64Array(samples)
  const taken = timeSync(call, times, performance.now() + budgetMs)
  const summary = summarize(times.subarray(0, taken))
  const batches = new Float64Array(batchCount(taken))
  const end = performance.now() + budgetMs / batchShare
  let done = 0
  while (done < batches.length && (done === 0 || performance.now() < end)) {
    const begin = process.hrtime.bigint()
    for (let i = 0; i < callsPerBatch; ++i) call()
    batches[done++] = Number(process.hrtime.bigint() - begin) / callsPerBatch
  }
  return { ...summary, batchNs: summarize(batches.subarray(0, done)).p50Ns }
}

function timeSync(call: () => void, times: Float64Array, end: number): number {
  let done = 0
  while (done < times.length) {
    const begin = process.hrtime.bigint()
    call()
    times[done++] = Number(process.hrtime.bigint() - begin)
    if (done % samplesPerLook === 0 && performance.now() >= end) break
  }
  return done
}

async function measureAsync(
  call: () => Promise<void>,
  { samples, budgetMs }: Limits,
): Promise<Round> {
  const times = new Float64Array(samples)
  let end = performance.now() + budgetMs
  let taken = 0
  while (taken < samples) {
    const begin = process.hrtime.bigint()
    await call()
    times[taken++] = Number(process.hrtime.bigint() - begin)
    if (taken % samplesPerLook === 0 && performance.now() >= end) break
  }
  const summary = summarize(times.subarray(0, taken))
  const batches = new Float64Array(batchCount(taken))
  end = performance.now() + budgetMs / batchShare
  let done = 0
  while (done < batches.length && (done === 0 || performance.now() < end)) {
    const begin = process.hrtime.bigint()
    for (let i = 0; i < callsPerBatch; ++i) await call()
    batches[done++] = Number(process.hrtime.bigint() - begin) / callsPerBatch
  }
  return { ...summary, batchNs: summarize(batches.subarray(0, done)).p50Ns }
}

function batchCount(samples: number): number {
  return Math.max(1, Math.floor(samples / batchShare / callsPerBatch))
}
