// From measured times to the few numbers that are reported.
import { build } from 'hdr-histogram-js'

/** Times of one round, or of several together, in nanoseconds. */
export interface Distribution {
  samples: number
  minNs: number
  p50Ns: number
  p90Ns: number
  p99Ns: number
  p999Ns: number
  maxNs: number
  /** The times at `curvePercents`: the distribution function, for plots. */
  curveNs: number[]
}

/** Denser towards the end: the tail is what one looks for. */
export const curvePercents: readonly number[] = [
  0, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 92, 94, 95, 96,
  97, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99, 100,
]

/** Values of repeated rounds: what is believed, and how far they lie apart. */
export interface Spread {
  /** One per round, in their order. */
  rounds: number[]
  median: number
  min: number
  max: number
}

/** Percentiles to three significant digits. */
export function distributionOf(timesNs: Float64Array): Distribution {
  return distributionOfCounts(Array.from(timesNs, (time): [number, number] => [time, 1]))
}

/** The same from pairs of a time and how often it was measured. */
export function distributionOfCounts(counts: readonly (readonly [number, number])[]): Distribution {
  if (counts.length === 0) throw new RangeError('there are no samples to summarize')
  const histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 3_600_000_000_000,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
  })
  let [min, max, samples] = [Infinity, 0, 0]
  for (const [time, count] of counts) {
    min = Math.min(min, time)
    max = Math.max(max, time)
    samples += count
    histogram.recordValueWithCount(Math.max(1, Math.round(time)), count)
  }
  // A bucket's end may lie beyond the largest sample, its begin before the smallest.
  const at = (percent: number): number =>
    percent === 0 ? min : Math.min(max, Math.max(min, histogram.getValueAtPercentile(percent)))
  return {
    samples,
    minNs: min,
    p50Ns: at(50),
    p90Ns: at(90),
    p99Ns: at(99),
    p999Ns: at(99.9),
    maxNs: max,
    curveNs: curvePercents.map(at),
  }
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('there are no values to take the median of')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle]!
  return sorted.length % 2 === 1 ? upper : (sorted[middle - 1]! + upper) / 2
}

export function spreadOf(rounds: readonly number[]): Spread {
  return {
    rounds: [...rounds],
    median: median(rounds),
    min: Math.min(...rounds),
    max: Math.max(...rounds),
  }
}

/** Several rounds as one: medians of their percentiles, all of their samples, the true extremes. */
export function combine(rounds: readonly Distribution[]): Distribution {
  const medianOf = (value: (round: Distribution) => number): number => median(rounds.map(value))
  const minNs = Math.min(...rounds.map((round) => round.minNs))
  const maxNs = Math.max(...rounds.map((round) => round.maxNs))
  const last = curvePercents.length - 1
  return {
    samples: rounds.reduce((sum, { samples }) => sum + samples, 0),
    minNs,
    p50Ns: medianOf(({ p50Ns }) => p50Ns),
    p90Ns: medianOf(({ p90Ns }) => p90Ns),
    p99Ns: medianOf(({ p99Ns }) => p99Ns),
    p999Ns: medianOf(({ p999Ns }) => p999Ns),
    maxNs,
    curveNs: curvePercents.map((_, i) =>
      i === 0 ? minNs : i === last ? maxNs : medianOf(({ curveNs }) => curveNs[i]!),
    ),
  }
}
