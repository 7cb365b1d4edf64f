// What rfaas wants to reach, how each target is computed, and the command that reproduces it.
import { findResult, quotient, type Result, type ResultFile } from './results.js'
import type { Spread } from './statistics.js'
import { formatBytes } from '../lib/units.js'
import { formatNs, formatRatio, formatTable, formatValue, type Column } from './table.js'

export interface Target {
  what: string
  /** What `limit` means, for people. */
  target: string
  limit: number
  better: 'lower' | 'higher'
  provider: 'shm' | 'verbs'
  trial: string
  /** Behind `npm run bench --`. */
  args: string
  measure(results: readonly Result[]): Spread | undefined
  show(value: number): string
}

export interface Outcome {
  target: Target
  /** Undefined: no results, or there is no such thing yet. */
  measured: Spread | undefined
  met: boolean | undefined
}

const KiB = 1024
const MiB = KiB * KiB
const ms = (value: number): number => value * 1e6

export const targets: readonly Target[] = [
  overFloor('hot `invokeSync`, native, 8 B', 'invokeSync', 1.2, '(1.5× is the least that counts)'),
  overFloor('hot awaited `invoke`, native, 8 B', 'invoke', 4),
  overFloor('hot `invokeSync`, JavaScript function, 8 B', 'node', 2),
  overFloor('warm awaited `invoke`, 8 B', 'warm', 1.5, '', 'eventfd'),
  {
    ...{
      what: 'pipelined (`mapRecords`), one client thread, one worker, 8 B',
      target: '≥ 1,000,000 calls/s',
    },
    ...{ limit: 1e6, better: 'higher', provider: 'shm', trial: 'depth' },
    args: 'depth --drivers mapRecords',
    measure: (results) => best(results, 'depth', 'mapRecords', 'calls per second'),
    show: (value) => formatValue(value, '1/s'),
  },
  {
    ...{ what: 'the same, to the ring’s own rate at that depth', target: '≥ 0.5×' },
    ...{ limit: 0.5, better: 'higher', provider: 'shm', trial: 'depth' },
    args: 'depth --drivers mapRecords',
    measure: (results) =>
      ratioTo(best(results, 'depth', 'mapRecords', 'calls per second'), 'floor'),
    show: formatRatio,
  },
  bandwidth(MiB),
  bandwidth(64 * MiB),
  {
    ...overFloor('hot `invokeSync`, native, 8 B, over verbs', 'invokeSync', 1.1),
    provider: 'verbs',
    args: 'latency --provider verbs --drivers invokeSync --payloads 8',
  },
  fasterThan('functionsFramework', 'functions-framework', 300),
  fasterThan('fastify', 'Fastify', 100),
  cheaperThan('functionsFramework', 'functions-framework', 100, 'nodeAwaited', 'awaited'),
  cheaperThan('fastify', 'Fastify', 50, 'nodeAwaited', 'awaited'),
  cheaperThan('functionsFramework', 'functions-framework', 100, 'nodeMap', 'by `map`'),
  cheaperThan('fastify', 'Fastify', 50, 'nodeMap', 'by `map`'),
  coldStart('cold start to the first result, native, code not seen before', 'native', 'first', 12),
  coldStart('cold start to the first result, node, code not seen before', 'node', 'first', 80),
  coldStart('start from a warm pool, native', 'native', 'pool', 2),
  coldStart('start from a warm pool, node', 'node', 'pool', 3),
  {
    ...{ what: 'cold native starts on a node', target: '≥ 500/s' },
    ...{ limit: 500, better: 'higher', provider: 'shm', trial: 'cold-start' },
    args: 'cold-start --drivers invokeSync',
    measure: (results) =>
      findResult(results, { trial: 'cold-start', driver: 'native', metric: 'starts per second' }),
    show: (value) => formatValue(value, '1/s'),
  },
  {
    ...{ what: 'lease grants, durable, manager on one core', target: '≥ 2,500/s' },
    ...{ limit: 2500, better: 'higher', provider: 'shm', trial: 'leases' },
    args: 'leases',
    measure: (results) => best(results, 'leases', 'resourceManager', 'grants per second'),
    show: (value) => formatValue(value, '1/s'),
  },
  {
    ...{ what: 'p99 of a lease grant at that rate, 8 to 64 at a time', target: '≤ 10 ms' },
    ...{ limit: ms(10), better: 'lower', provider: 'shm', trial: 'leases' },
    args: 'leases',
    measure: (results) => p99OfGrants(results, 2500),
    show: formatNs,
  },
  {
    ...{ what: 'native worker, idle: unshared memory', target: '≤ 8 MiB' },
    ...{ limit: 8 * MiB, better: 'lower', provider: 'shm', trial: 'footprint' },
    args: 'footprint --drivers invokeSync',
    measure: (results) =>
      findResult(results, {
        ...{ trial: 'footprint', driver: 'native', metric: 'unshared memory per worker' },
      }),
    show: (value) => formatBytes(value),
  },
  {
    ...{ what: 'native worker, warm and idle: CPU', target: '0.0 %' },
    ...{ limit: 0.05, better: 'lower', provider: 'shm', trial: 'footprint' },
    args: 'footprint --drivers invokeSync',
    measure: (results) =>
      findResult(results, { trial: 'footprint', driver: 'native', metric: 'CPU when idle' }),
    show: (value) => formatValue(value, '%'),
  },
]

/** The trials that all targets on shm need. */
export const targetTrials: readonly string[] = [
  ...new Set(targets.filter(({ provider }) => provider === 'shm').map(({ trial }) => trial)),
]

/** Of several files, the last one that has what a target needs. */
export function evaluateTargets(files: readonly ResultFile[]): Outcome[] {
  return targets.map((target) => {
    const measured = files
      .filter(({ machine }) => machine.provider === target.provider)
      .map(({ results }) => target.measure(results))
      .findLast((found) => found !== undefined)
    if (measured === undefined) return { target, measured, met: undefined }
    const { limit, better } = target
    const met = better === 'lower' ? measured.median <= limit : measured.median >= limit
    return { target, measured, met }
  })
}

export function formatOutcome({ target, measured }: Outcome): string {
  if (measured === undefined) return 'not measured'
  const { median, min, max } = measured
  return `${target.show(median)} (${target.show(min)} to ${target.show(max)})`
}

export function formatMet({ met }: Outcome): string {
  return met === undefined ? '–' : met ? 'met' : 'not met'
}

export const commandOf = ({ args }: Target): string => `npm run bench -- ${args}`

export function formatTargets(outcomes: readonly Outcome[]): string {
  const columns: readonly Column<Outcome>[] = [
    { title: 'what', text: ({ target }) => target.what, align: 'left' },
    { title: 'target', text: ({ target }) => target.target, align: 'left' },
    { title: 'measured', text: formatOutcome, align: 'left' },
    { title: '', text: formatMet, align: 'left' },
    { title: 'reproduce', text: ({ target }) => commandOf(target), align: 'left' },
  ]
  return formatTable(columns, outcomes)
}

function overFloor(
  what: string,
  driver: string,
  limit: number,
  note = '',
  floor: 'floor' | 'eventfd' = 'floor',
): Target {
  const name = floor === 'floor' ? 'the C++ ping-pong' : 'an eventfd ping-pong'
  return {
    ...{ what, limit, target: `≤ ${limit}× ${name} ${note}`.trim() },
    ...{ better: 'lower', provider: 'shm', trial: 'latency' },
    args: `latency --drivers ${driver} --payloads 8`,
    measure: (results) => ratioTo(roundTrip(results, driver), floor),
    show: formatRatio,
  }
}

function bandwidth(payloadBytes: number): Target {
  const size = formatBytes(payloadBytes)
  return {
    ...{ what: `${size} in and out, native echo`, target: '≥ 0.85× a C++ echo’s bandwidth' },
    ...{ limit: 0.85, better: 'higher', provider: 'shm', trial: 'bandwidth' },
    args: `bandwidth --drivers invokeSync --payloads ${payloadBytes / MiB}MiB`,
    measure: (results) => {
      const wanted = { trial: 'bandwidth', driver: 'invokeSync', params: { payloadBytes } }
      return ratioTo(findResult(results, wanted), 'floor')
    },
    show: formatRatio,
  }
}

/** The same JavaScript module on both sides. */
function fasterThan(peer: string, label: string, limit: number): Target {
  return {
    ...{ what: `the same JavaScript echo as on ${label}, 8 B`, target: `≥ ${limit}× lower p50` },
    ...{ limit, better: 'higher', provider: 'shm', trial: 'latency' },
    args: `latency --drivers node,${peer} --payloads 8`,
    measure: (results) => {
      const [ours, theirs] = [roundTrip(results, 'node'), roundTrip(results, peer)]
      return ours === undefined || theirs === undefined ? undefined : quotient(theirs, ours)
    },
    show: formatRatio,
  }
}

/** CPU time of client and server per call, each at the depth where it is least; what spins pays. */
function cheaperThan(
  peer: string,
  label: string,
  limit: number,
  ourDriver: string,
  how: string,
): Target {
  return {
    ...{ what: `the same as on ${label}, ${how}`, target: `≥ ${limit}× the calls/s per core` },
    ...{ limit, better: 'higher', provider: 'shm', trial: 'depth' },
    args: `depth --drivers ${ourDriver},${peer}`,
    measure: (results) => {
      const cost = (driver: string) => best(results, 'depth', driver, 'CPU time per call')
      const [ours, theirs] = [cost(ourDriver), cost(peer)]
      return ours === undefined || theirs === undefined ? undefined : quotient(theirs, ours)
    },
    show: formatRatio,
  }
}

function coldStart(what: string, driver: string, state: string, limitMs: number): Target {
  return {
    ...{ what, target: `≤ ${limitMs} ms`, limit: ms(limitMs) },
    ...{ better: 'lower', provider: 'shm', trial: 'cold-start' },
    args: `cold-start --drivers ${driver === 'native' ? 'invokeSync' : driver}`,
    measure: (results) =>
      findResult(results, {
        ...{ trial: 'cold-start', driver, metric: 'start', params: { state, part: 'total' } },
      }),
    show: formatNs,
  }
}

function roundTrip(results: readonly Result[], driver: string): Result | undefined {
  const wanted = { trial: 'latency', driver, metric: 'round trip', params: { payloadBytes: 8 } }
  return findResult(results, wanted)
}

function ratioTo(result: Result | undefined, floor: string): Spread | undefined {
  return result?.ratios.find(({ to }) => to === floor)
}

/** The least of those concurrencies at which so many are granted, or that of the highest rate. */
function p99OfGrants(results: readonly Result[], leastPerSecond: number): Result | undefined {
  const own = { trial: 'leases', driver: 'resourceManager' }
  const p99At = ({ params }: Result): Result | undefined =>
    findResult(results, { ...own, metric: 'p99 of a grant', params })
  const enough = results
    .filter(({ trial, metric }) => trial === own.trial && metric === 'grants per second')
    .filter(({ median }) => median >= leastPerSecond)
    .flatMap((rate) => p99At(rate) ?? [])
    .sort((a, b) => a.median - b.median)
  const top = best(results, own.trial, own.driver, 'grants per second')
  return enough[0] ?? (top && p99At(top))
}

/** The point at which the median is best. */
function best(
  results: readonly Result[],
  trial: string,
  driver: string,
  metric: string,
): Result | undefined {
  return results
    .filter((one) => one.trial === trial && one.driver === driver && one.metric === metric)
    .reduce<Result | undefined>((top, one) => {
      if (top === undefined) return one
      return (one.better === 'lower') === one.median < top.median ? one : top
    }, undefined)
}
