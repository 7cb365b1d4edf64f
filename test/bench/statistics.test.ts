import { describe, expect, test } from 'vitest'

import { ratiosToFloor } from '../../bench/latency.js'
import { combine, median, summarize, type Summary } from '../../bench/statistics.js'

const summary = (p50Ns: number): Summary => ({
  samples: 10,
  minNs: p50Ns / 2,
  p50Ns,
  p99Ns: p50Ns * 2,
  p999Ns: p50Ns * 3,
  maxNs: p50Ns * 4,
})

describe('statistics', () => {
  test('the percentiles of 1 to 1000 are exact', () => {
    const times = Float64Array.from({ length: 1000 }, (_, i) => 1000 - i)
    expect(summarize(times)).toEqual({
      samples: 1000,
      minNs: 1,
      p50Ns: 500,
      p99Ns: 990,
      p999Ns: 999,
      maxNs: 1000,
    })
  })

  test('percentiles of large values are right to a tenth of a per cent and not beyond the largest', () => {
    const times = Float64Array.from({ length: 999 }, (_, i) => (i + 1) * 123_457)
    const { p50Ns, p99Ns, p999Ns, maxNs } = summarize(times)
    expect(Math.abs(p50Ns / (500 * 123_457) - 1)).toBeLessThan(0.001)
    expect(Math.abs(p99Ns / (990 * 123_457) - 1)).toBeLessThan(0.0011)
    expect(maxNs).toBe(999 * 123_457)
    expect(p999Ns).toBe(maxNs)
  })

  test('a single sample is all of its percentiles', () => {
    const only = { samples: 1, minNs: 70, p50Ns: 70, p99Ns: 70, p999Ns: 70, maxNs: 70 }
    expect(summarize(Float64Array.of(70))).toEqual(only)
  })

  test('no samples are refused, not summarized', () => {
    expect(() => summarize(new Float64Array(0))).toThrow('no samples')
    expect(() => median([])).toThrow('no values')
  })

  test('the median is the middle one, or between the two in the middle, in any order', () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 10, 2, 1])).toBe(3)
  })

  test('rounds combine to the medians of their percentiles, all samples and the true extremes', () => {
    expect(combine([summary(100), summary(1000), summary(200)])).toEqual({
      samples: 30,
      minNs: 50,
      p50Ns: 200,
      p99Ns: 400,
      p999Ns: 600,
      maxNs: 4000,
    })
  })

  test('each round is divided by the floors before and after it', () => {
    const rounds = [summary(300), summary(900)]
    const floors = [summary(100), summary(200), summary(400)]
    expect(ratiosToFloor(rounds, floors)).toEqual([2, 3])
  })
})
