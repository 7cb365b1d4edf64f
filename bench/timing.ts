// The loops that take times. They do nothing between the two looks at the clock but the call.
import { distributionOf, median, type Distribution } from './statistics.js'

/** One operation of a driver. A process has one of them, so the compiler sees one target only. */
export type Operation =
  | { readonly kind: 'sync'; call(): void }
  | AsyncOperation
  /** Many at a time is all that it does. */
  | { readonly kind: 'batch'; call(count: number, depth: number): Promise<void> }

export interface AsyncOperation {
  readonly kind: 'async'
  call(): Promise<Uint8Array>
  /** What the last call brought back: whoever awaits it puts it here, so that nothing lies between. */
  output: Uint8Array
}

export interface Limits {
  /** Calls to measure. */
  samples: number
  /** What is slow stops when this is over, with fewer. */
  budgetMs: number
}

/** Calls one after the other. */
export interface LatencyRound extends Distribution {
  /** Median over batches of a batch's time divided by its calls: the clock is all but out of it. */
  batchNs: number
}

/** Many calls at a time. */
export interface RateRound {
  calls: number
  elapsedNs: number
}

const callsPerBatch = 32
// Batches get a quarter of the time and of the calls, and so does the warm-up.
const share = 4
// Reading the clock for the budget is not part of a sample, but it is not free either.
const callsPerLook = 64
const slowNs = 1_000_000
// Enough that its begin and its end, where fewer calls are in flight, do not count.
const callsPerOperation = 10_000

/** One call. */
export async function once(operation: Operation): Promise<void> {
  if (operation.kind === 'async') operation.output = await operation.call()
  else if (operation.kind === 'batch') await operation.call(1, 1)
  else operation.call()
}

/** Warms up, and throws that away; then measures. */
export async function measureLatency(operation: Operation, limits: Limits): Promise<LatencyRound> {
  const fewer = {
    samples: Math.ceil(limits.samples / share),
    budgetMs: limits.budgetMs / share,
  }
  if (operation.kind === 'sync') {
    const call = (): void => operation.call()
    timeSync(call, fewer)
    const times = timeSync(call, limits)
    return { ...distributionOf(times), batchNs: batchesSync(call, batchLimits(times, fewer)) }
  }
  if (operation.kind === 'batch') throw new RangeError('a batch has no latency')
  await timeAsync(operation, fewer)
  const times = await timeAsync(operation, limits)
  const batchNs = await batchesAsync(operation, batchLimits(times, fewer))
  return { ...distributionOf(times), batchNs }
}

/** `depth` calls in flight; a synchronous operation has one at a time. Calls `begin` after the
 * warm-up. */
export async function measureRate(
  operation: Operation,
  depth: number,
  limits: Limits,
  begin: () => void,
): Promise<RateRound> {
  await rate(operation, depth, {
    samples: Math.ceil(limits.samples / share),
    budgetMs: limits.budgetMs / share,
  })
  begin()
  return rate(operation, depth, limits)
}

/** What a sample costs that has nothing in it: it is part of every other sample. */
export function clockCostNs(): number {
  const nothing = (): void => undefined
  const limits = { samples: 100_000, budgetMs: Infinity }
  timeSync(nothing, limits)
  return distributionOf(timeSync(nothing, limits)).p50Ns
}

function timeSync(call: () => void, { samples, budgetMs }: Limits): Float64Array {
  const times = new Float64Array(samples)
  const end = performance.now() + budgetMs
  let done = 0
  while (done < samples) {
    const begin = process.hrtime.bigint()
    call()
    times[done++] = Number(process.hrtime.bigint() - begin)
    if (looks(done, times[done - 1]!) && performance.now() >= end) break
  }
  return times.subarray(0, done)
}

async function timeAsync(
  operation: AsyncOperation,
  { samples, budgetMs }: Limits,
): Promise<Float64Array> {
  const times = new Float64Array(samples)
  const end = performance.now() + budgetMs
  let done = 0
  while (done < samples) {
    const begin = process.hrtime.bigint()
    operation.output = await operation.call()
    times[done++] = Number(process.hrtime.bigint() - begin)
    if (looks(done, times[done - 1]!) && performance.now() >= end) break
  }
  return times.subarray(0, done)
}

/** Whether it is time to look at the clock: after a slow call always. */
function looks(done: number, lastNs: number): boolean {
  return done % callsPerLook === 0 || lastNs > slowNs
}

function batchLimits(times: Float64Array, { budgetMs }: Limits): Limits {
  return { samples: Math.max(1, Math.floor(times.length / share / callsPerBatch)), budgetMs }
}

function batchesSync(call: () => void, { samples, budgetMs }: Limits): number {
  const batches: number[] = []
  const end = performance.now() + budgetMs
  do {
    const begin = process.hrtime.bigint()
    for (let i = 0; i < callsPerBatch; ++i) call()
    batches.push(Number(process.hrtime.bigint() - begin) / callsPerBatch)
  } while (batches.length < samples && performance.now() < end)
  return median(batches)
}

async function batchesAsync(
  operation: AsyncOperation,
  { samples, budgetMs }: Limits,
): Promise<number> {
  const batches: number[] = []
  const end = performance.now() + budgetMs
  do {
    const begin = process.hrtime.bigint()
    for (let i = 0; i < callsPerBatch; ++i) operation.output = await operation.call()
    batches.push(Number(process.hrtime.bigint() - begin) / callsPerBatch)
  } while (batches.length < samples && performance.now() < end)
  return median(batches)
}

async function rate(
  operation: Operation,
  depth: number,
  { samples, budgetMs }: Limits,
): Promise<RateRound> {
  const end = performance.now() + budgetMs
  let calls = 0
  if (operation.kind === 'batch') {
    const begin = process.hrtime.bigint()
    do {
      await operation.call(callsPerOperation, depth)
      calls += callsPerOperation
    } while (calls < samples && performance.now() < end)
    return { calls, elapsedNs: Number(process.hrtime.bigint() - begin) }
  }
  let over = false
  const lane = async (): Promise<void> => {
    while (!over) {
      const result = operation.call()
      if (++calls >= samples || (calls % callsPerLook === 0 && performance.now() >= end)) {
        over = true
      }
      if (operation.kind === 'async') operation.output = await (result as Promise<Uint8Array>)
    }
  }
  const begin = process.hrtime.bigint()
  await Promise.all(Array.from({ length: depth }, lane))
  return { calls, elapsedNs: Number(process.hrtime.bigint() - begin) }
}
