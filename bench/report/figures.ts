// The figures of the report, each from the results of one trial; those without results are left out.
import { formatBytes } from '../../lib/units.js'
import { labelOf } from '../drivers/names.js'
import { findResult, type Result } from '../results.js'
import { curvePercents } from '../statistics.js'
import { formatNs, formatRatio, formatValue, threeDigits } from '../table.js'
import { lookOf } from './palette.js'
import { barChart } from '../../lib/plots/bar-chart.js'
import type { Figure, Table } from '../../lib/plots/figure.js'
import { lineChart, type Curve } from '../../lib/plots/line-chart.js'
import type { Axis } from '../../lib/plots/scale.js'

type Results = readonly Result[]

export function figuresOf(results: Results): Figure[] {
  return [
    latencyOverPayload(results),
    ...distributions(results),
    realFunction(results),
    rates(results, {
      ...{ id: 'depth', trial: 'depth', param: 'depth', title: 'Throughput over calls in flight' },
      axis: 'calls in flight',
      caption:
        'Echoes of 8 B per second, one client thread and one worker or server. The floor answers each message in C++ with as many in flight.',
    }),
    rates(results, {
      ...{ id: 'workers', trial: 'workers', param: 'workers', title: 'Throughput over workers' },
      axis: 'workers, servers or threads',
      caption:
        'Prices of 64 options per second, one client thread. Beyond the machine’s other cores a worker shares the client’s.',
    }),
    rates(results, {
      ...{ id: 'clients', trial: 'clients', param: 'clients', title: 'Throughput over clients' },
      axis: 'client processes',
      caption:
        'Echoes of 8 B per second of all clients together, each with a worker or server of its own.',
    }),
    bandwidth(results),
    coldStart(results),
    cost(results),
    rest(
      results,
      'leases',
      'Leases',
      'Granted by the resource manager on one core, each durable before it is answered, over the requests in flight.',
    ),
    rest(
      results,
      'footprint',
      'An idle worker',
      'Memory that no other process shares, and CPU time of a worker that sleeps.',
    ),
    neighbour(results),
  ].filter((figure) => figure !== undefined)
}

const payloadAxis: Axis = { title: 'payload, each way', kind: 'log2', format: formatBytes }
const timeAxis: Axis = { title: 'round trip, p50', kind: 'log10', format: formatNs }

function latencyOverPayload(results: Results): Figure | undefined {
  const found = of(results, 'latency', 'round trip')
  if (found.length === 0) return undefined
  const title = 'Latency over payload size'
  const caption =
    'Median round trip of one echo at a time. Bars show the rounds, each from a fresh process; the floor is a C++ ping-pong with the same bytes on the same cores.'
  const curves = curvesOver(found, 'payloadBytes')
  return {
    ...{ id: 'latency', title, caption, table: matrix(found, 'payloadBytes', 'payload') },
    plot: lineChart({
      ...{ id: 'plot-latency', title, curves, y: timeAxis },
      x: { ...payloadAxis, ticks: params(found, 'payloadBytes') },
      description: `${caption} Lower is better. Both axes are logarithmic.`,
    }),
  }
}

const shownPercents = [50, 90, 99, 99.9]

function distributions(results: Results): Figure[] {
  const found = of(results, 'latency', 'round trip')
  const smallest = [8, ...params(found, 'payloadBytes')].find((bytes) =>
    found.some(({ params }) => params['payloadBytes'] === bytes),
  )
  const same = found.filter(
    ({ params, distribution }) => params['payloadBytes'] === smallest && distribution !== undefined,
  )
  if (same.length === 0) return []
  const title = `Distribution of the latency of ${formatBytes(Number(smallest))}`
  const caption =
    'Above: the share of the round trips that took at most so long; the mark is the median. Below: the tail, each step to the right leaves a tenth of the calls.'
  const curve = (result: Result, points: Curve['points']): Curve => ({
    ...{ look: lookOf(result.driver), label: labelOf(result.driver), points },
  })
  const time: Axis = { ...timeAxis, title: 'round trip' }
  const body = lineChart({
    ...{ id: 'plot-cdf', title, description: caption, x: time },
    ...{ mark: ({ y }) => y === 50, lead: false },
    y: {
      ...{ title: 'share of the calls', kind: 'linear', min: 0, max: 100 },
      format: (value) => `${value} %`,
    },
    curves: same.map((result) =>
      curve(
        result,
        curvePercents
          .map((percent, i) => ({ x: result.distribution!.curveNs[i]!, y: percent }))
          .slice(0, -4),
      ),
    ),
  })
  // Percentiles as they are read aloud: each step to the right is one nine more.
  const tail = lineChart({
    ...{ id: 'plot-tail', title: `${title}: the tail`, description: caption, y: time },
    x: {
      ...{ title: 'percentile', kind: 'log10', min: 1, max: 10_000 },
      ticks: [2, 10, 100, 1000, 10_000],
      format: (value) => `${Number((100 - 100 / value).toFixed(2))} %`,
    },
    curves: same.map((result) =>
      curve(
        result,
        curvePercents.flatMap((percent, i) => {
          const outside = 100 / (100 - percent)
          const few = result.distribution!.samples < outside
          return percent >= 100 || few ? [] : [{ x: outside, y: result.distribution!.curveNs[i]! }]
        }),
      ),
    ),
    mark: ({ x }) => x === 2,
  })
  const rows = same.map(({ driver, distribution }) => {
    const { samples, p50Ns, p90Ns, p99Ns, p999Ns, maxNs } = distribution!
    return [labelOf(driver), String(samples), ...[p50Ns, p90Ns, p99Ns, p999Ns, maxNs].map(formatNs)]
  })
  const head = ['driver', 'samples', ...shownPercents.map((percent) => `p${percent}`), 'max']
  return [{ id: 'cdf', title, caption, plot: body + tail, table: { columns: head, rows } }]
}

function realFunction(results: Results): Figure | undefined {
  const found = of(results, 'function', 'round trip').filter(({ driver }) => driver !== 'eventfd')
  if (found.length === 0) return undefined
  const title = 'A function that works'
  const caption =
    'Median round trip of pricing 64 options. rfaas invokeSync, await invoke and warm run the native function, all others the same JavaScript module.'
  return {
    ...{ id: 'function', title, caption },
    plot: barChart({
      ...{ id: 'plot-function', title, description: caption, x: timeAxis },
      bars: found.map((result) => bar(result)),
    }),
    table: {
      columns: ['driver', 'p50', 'over the rounds', 'p99', 'to the floor'],
      rows: found.map((result) => [
        labelOf(result.driver),
        formatNs(result.median),
        `${formatNs(result.min)} to ${formatNs(result.max)}`,
        formatNs(result.distribution!.p99Ns),
        result.ratios
          .flatMap(({ to, median }) => (to === 'floor' ? formatRatio(median) : []))
          .join(),
      ]),
    },
  }
}

interface RateFigure {
  id: string
  trial: string
  param: string
  title: string
  axis: string
  caption: string
}

function rates(results: Results, what: RateFigure): Figure | undefined {
  const { id, trial, param, title, axis, caption } = what
  const found = of(results, trial, 'calls per second')
  if (found.length === 0) return undefined
  return {
    ...{ id, title, caption, table: matrix(found, param, axis) },
    plot: lineChart({
      ...{ id: `plot-${id}`, title, curves: curvesOver(found, param) },
      description: `${caption} Higher is better. Both axes are logarithmic.`,
      x: { title: axis, kind: 'log2', format: String, ticks: params(found, param) },
      y: {
        ...{ title: 'calls per second', kind: 'log10' },
        format: (value) => formatValue(value, '1/s'),
      },
    }),
  }
}

function bandwidth(results: Results): Figure | undefined {
  const found = of(results, 'bandwidth', 'bytes per second')
  if (found.length === 0) return undefined
  const title = 'Bandwidth'
  const caption =
    'Bytes in and out per second of one echo at a time. The floor is a C++ ping-pong that copies what it received, as an echo function does; memcpy is one copy on one core.'
  return {
    ...{ id: 'bandwidth', title, caption, table: matrix(found, 'payloadBytes', 'payload') },
    plot: lineChart({
      ...{ id: 'plot-bandwidth', title, curves: curvesOver(found, 'payloadBytes') },
      description: `${caption} Higher is better.`,
      x: { ...payloadAxis, ticks: params(found, 'payloadBytes') },
      y: {
        ...{ title: 'bytes per second, in and out', kind: 'log10' },
        format: (value) => formatValue(value, 'B/s'),
      },
    }),
  }
}

const startParts = ['lease', 'code', 'spawn', 'connect', 'first call']

function coldStart(results: Results): Figure | undefined {
  const found = of(results, 'cold-start', 'start')
  const totals = found.filter(({ params }) => params['part'] === 'total')
  if (totals.length === 0) return undefined
  const title = 'Cold start'
  const caption =
    'From nothing to the first result of an echo. rfaas: the lease, the code on its way to the node, the worker’s process, the connection, the first call; peers: their server’s process or thread and the first call. Medians of each part.'
  const rows = totals.map((total) => {
    const { driver, params } = total
    const state = params['state'] === 'server' ? '' : `, ${params['state']}`
    const parts = startParts.flatMap((part) => {
      const one = findResult(found, {
        ...{ trial: 'cold-start', driver, metric: 'start' },
        params: { ...params, part },
      })
      return one === undefined ? [] : [{ name: part, value: one.median }]
    })
    return {
      label: `${labelOf(driver)}${state}`,
      look: lookOf(driver),
      parts,
      note: formatNs(total.median),
      total,
    }
  })
  return {
    ...{ id: 'cold-start', title, caption },
    plot: barChart({
      ...{ id: 'plot-cold-start', title, description: caption, bars: rows, parts: startParts },
      x: { title: 'time to the first result', kind: 'linear', format: formatNs },
    }),
    table: {
      columns: ['start', ...startParts, 'total', 'over the rounds'],
      rows: rows.map(({ label, parts, total }) => [
        label,
        ...startParts.map((name) => {
          const part = parts.find((one) => one.name === name)
          return part === undefined ? '' : formatNs(part.value)
        }),
        formatNs(total.median),
        `${formatNs(total.min)} to ${formatNs(total.max)}`,
      ]),
    },
  }
}

/** What a core costs for an hour, in US dollars: the order of what clouds ask for one. */
const dollarsPerCoreHour = 0.04

function cost(results: Results): Figure | undefined {
  const found = of(results, 'depth', 'CPU time per call')
  const cheapest = [...new Set(found.map(({ driver }) => driver))].map((driver) =>
    found
      .filter((one) => one.driver === driver)
      .reduce((least, one) => (one.median < least.median ? one : least)),
  )
  if (cheapest.length === 0) return undefined
  const title = 'Cost per million calls'
  const caption = `CPU time of client and server together for a million echoes of 8 B, each driver at the number of calls in flight where it is least. Time spent spinning counts. Dollars at ${dollarsPerCoreHour} per core and hour.`
  const seconds = (result: Result): number => result.median * 1e6 // of a million calls, in ns
  return {
    ...{ id: 'cost', title, caption },
    plot: barChart({
      ...{ id: 'plot-cost', title, description: `${caption} The axis is logarithmic.` },
      x: { title: 'CPU time per million calls', kind: 'log10', format: formatNs },
      bars: cheapest.map((result) => ({
        ...bar(result),
        parts: [{ name: 'CPU time', value: seconds(result) }],
        note: formatNs(seconds(result)),
      })),
    }),
    table: {
      columns: ['driver', 'calls in flight', 'CPU time', 'dollars'],
      rows: cheapest.map((result) => [
        labelOf(result.driver),
        String(result.params['depth']),
        formatNs(seconds(result)),
        `$${threeDigitsBelowOne((seconds(result) / 3.6e12) * dollarsPerCoreHour)}`,
      ]),
    },
  }
}

function neighbour(results: Results): Figure | undefined {
  const found = of(results, 'neighbour', 'round trip').filter(({ distribution }) => distribution)
  if (found.length === 0) return undefined
  return {
    ...{ id: 'neighbour', title: 'A noisy neighbour' },
    caption:
      'Round trips of an echo of 8 B, alone and beside a process that copies memory on the worker’s core without a break.',
    table: {
      columns: ['driver', 'neighbours', 'p50', 'p90', 'p99', 'p99.9', 'max'],
      rows: found.map(({ driver, params, distribution }) => {
        const { p50Ns, p90Ns, p99Ns, p999Ns, maxNs } = distribution!
        const times = [p50Ns, p90Ns, p99Ns, p999Ns, maxNs].map(formatNs)
        return [labelOf(driver), String(params['neighbours']), ...times]
      }),
    },
  }
}

function rest(results: Results, trial: string, title: string, caption: string): Figure | undefined {
  const found = results.filter((result) => result.trial === trial)
  if (found.length === 0) return undefined
  return {
    ...{ id: trial, title, caption },
    table: {
      columns: ['what', 'point', 'median', 'over the rounds'],
      rows: found.map(({ driver, metric, params, unit, median, min, max }) => [
        `${labelOf(driver)}: ${metric}`,
        Object.entries(params)
          .map(([name, value]) => `${name} ${value}`)
          .join(', '),
        formatValue(median, unit),
        `${formatValue(min, unit)} to ${formatValue(max, unit)}`,
      ]),
    },
  }
}

function of(results: Results, trial: string, metric: string): Result[] {
  return results.filter((result) => result.trial === trial && result.metric === metric)
}

/** The values of a parameter, in order. */
function params(results: Results, name: string): number[] {
  return [...new Set(results.map(({ params }) => Number(params[name])))].sort((a, b) => a - b)
}

function curvesOver(results: Results, param: string): Curve[] {
  return [...new Set(results.map(({ driver }) => driver))].map((driver) => ({
    ...{ look: lookOf(driver), label: labelOf(driver) },
    points: results
      .filter((result) => result.driver === driver)
      .map(({ params, median, min, max }) => ({
        ...{ x: Number(params[param]), y: median, low: min, high: max },
      }))
      .sort((a, b) => a.x - b.x),
  }))
}

/** One row per value of the parameter, one column per driver. */
function matrix(results: Results, param: string, label: string): Table {
  const drivers = [...new Set(results.map(({ driver }) => driver))]
  return {
    columns: [label, ...drivers.map(labelOf)],
    rows: params(results, param).map((value) => [
      param === 'payloadBytes' ? formatBytes(value) : String(value),
      ...drivers.map((driver) => {
        const found = results.find(
          (result) => result.driver === driver && result.params[param] === value,
        )
        return found === undefined ? '' : formatValue(found.median, found.unit)
      }),
    ]),
  }
}

function bar({ driver, median, unit }: Result) {
  return {
    ...{ label: labelOf(driver), look: lookOf(driver), note: formatValue(median, unit) },
    parts: [{ name: 'median', value: median }],
  }
}

function threeDigitsBelowOne(value: number): string {
  return value >= 1 ? threeDigits(value) : Number(value.toPrecision(2)).toString()
}
