import { describe, expect, test } from 'vitest'

import { findResult, quotient, Recorder } from '../../bench/results.js'
import {
  combine,
  curvePercents,
  distributionOf,
  distributionOfCounts,
  median,
  spreadOf,
} from '../../bench/statistics.js'
import { point, times } from './results.js'

describe('distributions', () => {
  test('the percentiles of 1 to 1000 are exact', () => {
    const measured = distributionOf(Float64Array.from({ length: 1000 }, (_, i) => 1000 - i))
    expect(measured).toMatchObject({
      ...{ samples: 1000, minNs: 1, p50Ns: 500, p90Ns: 900, p99Ns: 990, p999Ns: 999, maxNs: 1000 },
    })
  })

  test('percentiles of large values are right to a tenth of a per cent and not beyond the largest', () => {
    const times = Float64Array.from({ length: 999 }, (_, i) => (i + 1) * 123_457)
    const { p50Ns, p99Ns, p999Ns, maxNs } = distributionOf(times)
    expect(Math.abs(p50Ns / (500 * 123_457) - 1)).toBeLessThan(0.001)
    expect(Math.abs(p99Ns / (990 * 123_457) - 1)).toBeLessThan(0.0011)
    expect(maxNs).toBe(999 * 123_457)
    expect(p999Ns).toBe(maxNs)
  })

  test('a single sample is all of its percentiles', () => {
    const only = distributionOf(Float64Array.of(70))
    expect(new Set([...only.curveNs, only.minNs, only.p50Ns, only.p999Ns, only.maxNs])).toEqual(
      new Set([70]),
    )
  })

  test('times that were counted are the same as times one by one', () => {
    const counted = distributionOfCounts([
      [10, 3],
      [20, 1],
    ])
    expect(counted).toEqual(distributionOf(Float64Array.of(10, 20, 10, 10)))
  })

  test('the curve rises from the smallest sample to the largest', () => {
    const { curveNs, minNs, maxNs } = distributionOf(
      Float64Array.from({ length: 500 }, (_, i) => (i * 7919) % 1000),
    )
    expect(curveNs).toHaveLength(curvePercents.length)
    expect(curveNs).toEqual([...curveNs].sort((a, b) => a - b))
    expect([curveNs[0], curveNs.at(-1)]).toEqual([minNs, maxNs])
  })

  test('no samples are refused, not summarized', () => {
    expect(() => distributionOf(new Float64Array(0))).toThrow('no samples')
    expect(() => median([])).toThrow('no values')
  })

  test('the median is the middle one, or between the two in the middle, in any order', () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 10, 2, 1])).toBe(3)
  })

  test('rounds combine to the medians of their percentiles, all samples and the true extremes', () => {
    const rounds = [100, 1000, 200].map((ns) => distributionOf(Float64Array.of(ns, ns, ns * 4)))
    expect(combine(rounds)).toMatchObject({
      ...{ samples: 9, minNs: 100, p50Ns: 200, p99Ns: 800, maxNs: 4000 },
    })
  })
})

describe('results', () => {
  test('rounds of the same point become one result with its spread, others stay apart', () => {
    const recorder = new Recorder()
    for (const value of [30, 10, 20]) recorder.add(point('invoke'), { value })
    recorder.add(point('invoke', { params: { payloadBytes: 64 } }), { value: 7 })
    const [first, second] = recorder.results()
    expect(first).toMatchObject({ rounds: [30, 10, 20], median: 20, min: 10, max: 30, ratios: [] })
    expect(second).toMatchObject({ rounds: [7], params: { payloadBytes: 64 } })
  })

  test('ratios to each floor have a spread of their own', () => {
    const recorder = new Recorder()
    recorder.add(point('warm'), { value: 60, ratios: { floor: 100, eventfd: 1.4 } })
    recorder.add(point('warm'), { value: 66, ratios: { floor: 90, eventfd: 1.6 } })
    expect(recorder.results()[0]!.ratios).toEqual([
      { to: 'floor', ...spreadOf([100, 90]) },
      { to: 'eventfd', ...spreadOf([1.4, 1.6]) },
    ])
  })

  test('distributions of the rounds are combined', () => {
    const recorder = new Recorder()
    recorder.add(point('invoke'), times(100))
    recorder.add(point('invoke'), times(300))
    expect(recorder.results()[0]!.distribution!.samples).toBe(2000)
  })

  test('what cannot be measured is noted once, with its reason', () => {
    const recorder = new Recorder()
    for (let round = 0; round < 2; ++round) recorder.skip('latency', 'ib_write_lat', 'no device')
    expect(recorder.skipped).toEqual([
      { trial: 'latency', driver: 'ib_write_lat', reason: 'no device' },
    ])
  })

  test('two results are divided round by round', () => {
    expect(quotient(spreadOf([300, 900]), spreadOf([100, 200]))).toEqual(spreadOf([3, 4.5]))
  })

  test('a result is found by what is known of it', () => {
    const recorder = new Recorder()
    recorder.add(point('invoke', { params: { payloadBytes: 8, depth: 2 } }), { value: 1 })
    const wanted = { trial: 'latency', driver: 'invoke' }
    expect(findResult(recorder.results(), { ...wanted, params: { depth: 2 } })).toBeDefined()
    expect(findResult(recorder.results(), { ...wanted, params: { depth: 3 } })).toBeUndefined()
    expect(findResult(recorder.results(), { ...wanted, metric: 'other' })).toBeUndefined()
  })
})
