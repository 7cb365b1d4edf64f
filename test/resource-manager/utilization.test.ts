import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Change, Trace } from '../../resource-manager/traces/trace.js'
import { analyze } from '../../resource-manager/utilization/analysis.js'
import { utilizationPage } from '../../resource-manager/utilization/page.js'
import { utilizationCsv } from '../../resource-manager/utilization/text.js'

const minute = 60_000

/** `[minute, node, idle cores]` of nodes with four cores. */
function traceOf(steps: readonly (readonly [number, number, number])[], minutes: number): Trace {
  const nodes = ['a', 'b', 'c'].map((name) => ({ name, cores: 4, memoryBytes: 2 ** 30 }))
  const changes = steps.map(([at, node, idleCores]): Change => {
    const idleMemoryBytes = idleCores * 2 ** 28
    return { atMs: at * minute, node, idleCores, idleMemoryBytes, nextStartMs: undefined }
  })
  const untilMs = minutes * minute
  return {
    source: 'test',
    nodes,
    fromMs: 0,
    untilMs,
    gaps: [],
    remarks: [],
    changes: () => changes,
  }
}

const options = { leasesMs: [minute, 4 * minute], delayMs: 0, points: 10 }

describe('an analysis', () => {
  const trace = traceOf(
    [
      ...([
        [0, 1, 4],
        [2, 0, 2],
        [4, 0, 4],
        [5, 0, 1],
        [7, 0, 0],
        [10, 1, 0],
      ] as const),
    ],
    20,
  )

  test('finds the periods of each core, and which of them are cut', () => {
    const { periods, idleCoreHours, idleCoreShare } = analyze(trace, options)
    // a: one core 5 minutes, one 3, two 1; b: four 10 from the begin.
    expect(periods).toMatchObject({ count: 8, cut: 4, medianMs: 5 * minute, p90Ms: 10 * minute })
    expect(idleCoreHours * 60).toBeCloseTo(5 + 3 + 2 + 40)
    expect(idleCoreShare).toBeCloseTo(50 / (12 * 20))
    const upTo = (minutes: number) =>
      periods.distribution.find(({ upToMs }) => upToMs === minutes * minute)!
    expect(upTo(1)).toMatchObject({ shareOfPeriods: 0.25, shareOfIdle: 2 / 50 })
    expect(upTo(5)).toMatchObject({ shareOfPeriods: 0.5, shareOfIdle: 10 / 50 })
  })

  test('fills the periods with whole leases', () => {
    const { leases } = analyze(trace, options)
    expect(leases.map(({ shareOfIdle }) => shareOfIdle * 50)).toEqual([50, 4 + 32])
    const late = analyze(trace, { ...options, delayMs: 2 * minute }).leases
    expect(late.map(({ shareOfIdle }) => shareOfIdle * 50)).toEqual([3 + 1 + 32, 32])
  })

  test('has the means over time', () => {
    const { series } = analyze(trace, options)
    expect(series.map(({ idleCores }) => idleCores)).toEqual([4, 6, 6.5, 4.5, 4, 0, 0, 0, 0, 0])
    expect(utilizationCsv(analyze(trace, options)).split('\n')[3]).toBe(
      `1970-01-01T00:04:00.000Z,6.50,12,${6.5 * 2 ** 28},${3 * 2 ** 30}`,
    )
  })

  test('counts no time of which nothing is known', () => {
    const gaps = [{ fromMs: 10 * minute, untilMs: 20 * minute }]
    const { idleCoreShare, series } = analyze({ ...trace, gaps }, options)
    expect(idleCoreShare).toBeCloseTo(50 / (12 * 10))
    expect(series).toHaveLength(5)
  })

  test('of any course: the periods are all of the idle time, and leases use no more', () => {
    const step = fc.tuple(fc.nat(30), fc.nat(2), fc.nat(4))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        steps.sort(([a], [b]) => a - b)
        const { periods, leases, series, idleCoreHours } = analyze(traceOf(steps, 30), options)
        expect((periods.count * periods.meanMs) / minute / 60).toBeCloseTo(idleCoreHours)
        const last = periods.distribution.at(-1)!
        if (periods.count > 0) expect(last).toMatchObject({ shareOfPeriods: 1 })
        if (periods.count > 0) expect(last.shareOfIdle).toBeCloseTo(1)
        const sum = series.reduce((total, { idleCores }) => total + idleCores * 3, 0)
        expect(sum / 60).toBeCloseTo(idleCoreHours)
        // All periods are of whole minutes.
        expect(leases[0]!.coreHours).toBeCloseTo(idleCoreHours)
        expect(leases[1]!.coreHours).toBeLessThanOrEqual(leases[0]!.coreHours + 1e-9)
      }),
      { seed: 3, numRuns: 300 },
    )
  })

  test('is a page that needs nothing else', () => {
    const page = utilizationPage({ ...analyze(trace, options), source: 'a <fast> one' })
    expect(page).toContain('a &lt;fast&gt; one')
    expect(page.match(/<svg /g)).toHaveLength(4)
    expect(page).not.toMatch(/NaN|Infinity|undefined|<script|\b(src|href)="(?!#)/)
    expect(utilizationPage(analyze(traceOf([], 20), options))).not.toMatch(/NaN|Infinity|undefined/)
  })
})
