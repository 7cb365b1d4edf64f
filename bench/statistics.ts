// From measured times to the few numbers that are reported.
import { build } from 'hdr-histogram-js'

/** Round trips of one round, in nanoseconds. */
export interface Summary {
  samples: number
  minNs: number
  p50Ns: number
  p99Ns: number
  p999Ns: number
  maxNs: number
}

/** Percentiles to three significant digits. */
export function summarize(timesNs: Float64Array): Summary {
  if (timesNs.length === 0) throw new RangeError('there are no samples to summarize')
  const histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 3_600_000_000_000,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
  })
  let min = Infinity
  let max = 0
  for (const time of timesNs) {
    if (time < min) min = time
    if (time > max) max = time
    histogram.recordValue(Math.max(1, Math.round(time)))
  }
  // A bucket is named by its end: no percentile may lie beyond what was measured.
  const at = (percentile: number): number =>
    Math.min(max, histogram.getValueAtPercentile(percentile))
  const summary = { p50Ns: at(50), p99Ns: at(99), p999Ns: at(99.9) }
  return { samples: timesNs.length, minNs: min, ...summary, maxNs: max }
}

/** The middle one, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('there are no values to take the median of')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle]!
  return sorted.length % 2 === 1 ? upper : (sorted[middle - 1]! + upper) / 2
}

/** Several rounds as one: medians of their percentiles, all of their samples, the true extremes. */
export function combine(rounds: readonly Summary[]): Summary {
  return {
    samples: rounds.reduce((sum, { samples }) => sum + samples, 0),
    minNs: Math.min(...rounds.map(({ minNs }) => minNs)),
    p50Ns: median(rounds.map(({ p50Ns }) => p50Ns)),
    p99Ns: median(rounds.map(({ p99Ns }) => p99Ns)),
    p999Ns: median(rounds.map(({ p999Ns }) => p999Ns)),
    maxNs: Math.max(...rounds.map(({ maxNs }) => maxNs)),
  }
}
