// Result files for tests, made as a run makes them.
import type { Machine } from '../../bench/machine.js'
import { Recorder, type Measured, type Point, type ResultFile } from '../../bench/results.js'
import { distributionOf } from '../../bench/statistics.js'

export const machine: Machine = {
  date: '2026-01-02T03:04:05.678Z',
  cpu: 'A <fast> & quiet one',
  cores: 4,
  memoryBytes: 8 * 2 ** 30,
  kernel: 'Linux 6.1',
  node: 'v20.17.0',
  commit: '0123456789ab',
  provider: 'shm',
  device: 'shm0',
  clientCore: 0,
  workerCores: [1, 2, 3],
  pinned: true,
  clockNs: 30,
  load1: 0.1,
}

/** Round trips of 8 B unless `over` says otherwise. */
export function point(driver: string, over: Partial<Point> = {}): Point {
  return {
    ...{ trial: 'latency', driver, metric: 'round trip', unit: 'ns', better: 'lower' },
    params: { payloadBytes: 8 },
    ...over,
  }
}

/** Thousand times around `ns`, and a tail. */
export function times(ns: number): Measured {
  const samples = Float64Array.from({ length: 1000 }, (_, i) =>
    i < 990 ? ns * (0.9 + i / 5000) : ns * i,
  )
  const distribution = distributionOf(samples)
  return { value: distribution.p50Ns, distribution }
}

/** Each point with its rounds. */
export function fileOf(
  points: readonly (readonly [Point, readonly Measured[]])[],
  over: Partial<Machine> = {},
): ResultFile {
  const recorder = new Recorder()
  for (const [what, rounds] of points) for (const round of rounds) recorder.add(what, round)
  return { machine: { ...machine, ...over }, results: recorder.results(), skipped: [] }
}

/** Something of every trial: what a whole run leaves. */
export function wholeFile(): ResultFile {
  const latency = ['floor', 'invokeSync', 'invoke', 'eventfd', 'warm', 'node', 'piscina', 'fastify']
  const rounds = (value: number): Measured[] => [0.97, 1, 1.04].map((f) => ({ value: value * f }))
  const overPayload = [1, 8, 1024, 65_536, 2 ** 20, 2 ** 26].flatMap((payloadBytes) =>
    latency.map((driver, i) => {
      const ns = 200 * 5 ** i + payloadBytes / 10
      return [point(driver, { params: { payloadBytes } }), [times(ns), times(ns * 1.1)]] as const
    }),
  )
  const ofFunction = ['floor', 'direct', 'invokeSync', 'node', 'functionsFramework'].map(
    (driver, i) => [point(driver, { trial: 'function' }), [times(500 * 4 ** i)]] as const,
  )
  const rates = ['depth', 'workers', 'clients'].flatMap((trial) =>
    ['floor', 'invoke', 'nodeAwaited', 'nodeMap', 'grpc', 'fastify'].flatMap((driver, i) =>
      [1, 2, 4, 8].flatMap((value) => {
        const params = { [trial]: value }
        const over = { trial, params, metric: 'calls per second', unit: '1/s', better: 'higher' }
        const cost = { trial, params, metric: 'CPU time per call' }
        return [
          [point(driver, over as Partial<Point>), rounds((8e6 * value) / 9 ** i)] as const,
          [point(driver, cost), rounds(500 * 9 ** i)] as const,
        ]
      }),
    ),
  )
  const bandwidth = ['memcpy', 'bareFloor', 'floor', 'invokeSync', 'grpc'].flatMap((driver, i) =>
    [2 ** 20, 2 ** 26].map((payloadBytes) => {
      const over: Partial<Point> = { metric: 'bytes per second', unit: 'B/s', better: 'higher' }
      const params = { payloadBytes }
      return [
        point(driver, { trial: 'bandwidth', ...over, params }),
        rounds(4e10 / 2 ** i),
      ] as const
    }),
  )
  const starts = [
    ...['native first', 'native cached', 'node first', 'node cached', 'fastify server'],
  ].flatMap((name, i) => {
    const [driver, state] = name.split(' ') as [string, string]
    const parts =
      state === 'server' ? ['spawn', 'first call'] : ['lease', 'code', 'spawn', 'connect']
    return [...parts, 'total'].map((part) => {
      const over = { trial: 'cold-start', metric: 'start', params: { state, part } }
      return [
        point(driver, over),
        rounds(part === 'total' ? 4e7 * (i + 1) : 1e7 * (i + 1)),
      ] as const
    })
  })
  const grant = { trial: 'leases', metric: 'grant', params: { concurrency: 16 } }
  const idle = { trial: 'footprint', metric: 'CPU when idle', unit: '%', params: {} } as const
  const noisy = { trial: 'neighbour', params: { neighbours: 1 } }
  return fileOf([
    ...overPayload,
    ...ofFunction,
    ...rates,
    ...bandwidth,
    ...starts,
    [point('resourceManager', grant), rounds(3e5)],
    [point('native', idle), rounds(0.01)],
    [point('invokeSync', noisy), [times(900)]],
  ])
}
