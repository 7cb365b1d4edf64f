import { describe, expect, test } from 'vitest'

import { compareFiles } from '../../bench/compare.js'
import type { Measured } from '../../bench/results.js'
import { evaluateTargets, formatTargets, targets } from '../../bench/targets.js'
import { trials } from '../../bench/trials/index.js'
import { fileOf, point } from './results.js'

const rounds = (...values: number[]): Measured[] => values.map((value) => ({ value }))

describe('comparing two runs', () => {
  const before = fileOf([[point('invokeSync'), rounds(100, 104, 98)]])

  test('a change counts when no round of the one lies among those of the other', () => {
    const slower = fileOf([[point('invokeSync'), rounds(120, 118, 125)]])
    const { text, worse } = compareFiles(before, slower)
    expect(worse).toBe(1)
    expect(text).toMatch(/worse +latency +rfaas invokeSync +8 B .*\+20\.0 %/)
    expect(compareFiles(slower, before)).toMatchObject({ worse: 0 })
    expect(compareFiles(slower, before).text).toContain('0 worse, 1 better')
  })

  test('rounds that overlap are noise, however far the medians are apart', () => {
    const noisy = fileOf([[point('invokeSync'), rounds(103, 150, 190)]])
    expect(compareFiles(before, noisy)).toMatchObject({ worse: 0 })
    expect(compareFiles(before, noisy).text).toContain('1 not beyond noise')
  })

  test('a tiny change is none, however small the noise', () => {
    const a = fileOf([[point('invokeSync'), rounds(100, 100, 100)]])
    const b = fileOf([[point('invokeSync'), rounds(102, 102, 102)]])
    expect(compareFiles(a, b)).toMatchObject({ worse: 0 })
  })

  test('of rates, less is worse', () => {
    const rate = point('invoke', { metric: 'calls per second', unit: '1/s', better: 'higher' })
    const a = fileOf([[rate, rounds(100, 101, 102)]])
    const b = fileOf([[rate, rounds(70, 71, 72)]])
    expect(compareFiles(a, b).worse).toBe(1)
    expect(compareFiles(b, a).worse).toBe(0)
  })

  test('a slower machine is no change of ours: ratios to the floor are compared', () => {
    const at = (ns: number): Measured[] =>
      [1, 1.01, 1.02].map((f) => ({ value: ns * f, ratios: { floor: 1.4 * f } }))
    const a = fileOf([[point('invokeSync'), at(200)]])
    const b = fileOf([[point('invokeSync'), at(600)]])
    expect(compareFiles(a, b).text).toContain('1 not beyond noise')
  })

  test('peers and floors that changed are told, and are not ours to fix', () => {
    const a = fileOf([[point('fastify'), rounds(100, 101, 102)]])
    const b = fileOf([[point('fastify'), rounds(200, 201, 202)]])
    const { text, worse } = compareFiles(a, b)
    expect(worse).toBe(0)
    expect(text).toContain('Floors and peers that changed')
  })

  test('one or two rounds tell nothing about noise, and it says so', () => {
    const a = fileOf([[point('invokeSync'), rounds(100, 101)]])
    const b = fileOf([[point('invokeSync'), rounds(900, 901)]])
    const { text, worse } = compareFiles(a, b)
    expect(worse).toBe(0)
    expect(text).toContain('1 have fewer than 3 rounds')
  })

  test('different machines are refused with the difference, unless it is forced', () => {
    const other = fileOf([[point('invokeSync'), rounds(100, 101, 102)]], { kernel: 'Linux 7.0' })
    expect(() => compareFiles(before, other)).toThrow('kernel: Linux 6.1 / Linux 7.0')
    expect(compareFiles(before, other, { force: true })).toMatchObject({ worse: 0 })
  })

  test('another Node and another commit are what one compares', () => {
    const other = fileOf([], { node: 'v24.0.0', commit: 'fedcba987654' })
    expect(compareFiles(before, other).text).toContain('v24.0.0')
  })
})

describe('targets', () => {
  const outcome = (text: string, ...files: Parameters<typeof evaluateTargets>[0]) =>
    evaluateTargets(files).find(({ target }) => target.what.includes(text))!

  const withRatio = (ratio: number, provider = 'shm') =>
    fileOf([[point('invokeSync'), [{ value: 200, ratios: { floor: ratio } }]]], { provider })

  test('a target is met, or not, or not measured', () => {
    const hot = 'hot `invokeSync`, native, 8 B'
    expect(outcome(hot, withRatio(1.15)).met).toBe(true)
    expect(outcome(hot, withRatio(1.25)).met).toBe(false)
    expect(outcome(hot, fileOf([]))).toMatchObject({ met: undefined, measured: undefined })
  })

  test('shm and verbs are different targets', () => {
    expect(outcome('over verbs', withRatio(1.05)).met).toBeUndefined()
    expect(outcome('over verbs', withRatio(1.05, 'verbs')).met).toBe(true)
    expect(outcome('hot `invokeSync`, native, 8 B', withRatio(1.05, 'verbs')).met).toBeUndefined()
  })

  test('the last file that has it wins', () => {
    const files = [withRatio(2), withRatio(1.1), fileOf([])]
    expect(outcome('hot `invokeSync`, native, 8 B', ...files).measured!.median).toBe(1.1)
  })

  test('a rate is that of the best depth, and its ratio to the ring is of the same depth', () => {
    const rate = (depth: number) =>
      point('mapRecords', {
        ...{ trial: 'depth', metric: 'calls per second', unit: '1/s', better: 'higher' },
        params: { payloadBytes: 8, depth },
      })
    const file = fileOf([
      [rate(1), [{ value: 5e5, ratios: { floor: 0.9 } }]],
      [rate(64), [{ value: 2e6, ratios: { floor: 0.4 } }]],
    ])
    expect(outcome('pipelined', file)).toMatchObject({ met: true, measured: { median: 2e6 } })
    expect(outcome('ring', file)).toMatchObject({ met: false, measured: { median: 0.4 } })
  })

  test('peers are compared round by round', () => {
    const file = fileOf([
      [point('node'), rounds(1000, 2000)],
      [point('fastify'), rounds(150_000, 150_000)],
    ])
    const { measured, met } = outcome('echo as on Fastify', file)
    expect(measured).toMatchObject({ rounds: [150, 75] })
    expect(met).toBe(true)
  })

  test('each has a command that measures its trial', () => {
    for (const target of targets) {
      expect(trials).toHaveProperty(target.trial)
      expect(target.args.split(' ')[0]).toBe(target.trial)
    }
    const text = formatTargets(evaluateTargets([withRatio(1.15)]))
    expect(text).toMatch(/hot `invokeSync`.* met +npm run bench -- latency --drivers invokeSync/)
    expect(text.split('\n')).toHaveLength(targets.length + 1)
  })
})
