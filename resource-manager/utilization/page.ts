// The report of a trace as a page with plots.
import { renderFigure, type Figure } from '../../lib/plots/figure.js'
import { lineChart } from '../../lib/plots/line-chart.js'
import { element, escape } from '../../lib/plots/markup.js'
import { htmlPage } from '../../lib/plots/page.js'
import type { Axis } from '../../lib/plots/scale.js'
import { formatBytes, formatDuration } from '../../lib/units.js'
import type { Analysis, Point } from './analysis.js'
import { look, palette } from './palette.js'
import { facts, percent } from './text.js'

export function utilizationPage(analysis: Analysis): string {
  const figures = [
    coresOverTime(analysis),
    memoryOverTime(analysis),
    periods(analysis),
    leases(analysis),
  ]
  const shown = figures.filter((figure) => figure !== undefined)
  const links = shown.map(({ id, title }) => element('a', { href: `#${id}` }, escape(title)))
  return htmlPage('rfaas: utilization', palette, [
    element('h1', {}, 'Idle cores and memory'),
    element('p', { class: 'quiet' }, escape(analysis.source)),
    ...facts(analysis).map((fact) => element('p', {}, escape(fact))),
    ...analysis.remarks.map((remark) => element('p', { class: 'quiet' }, escape(remark))),
    element('nav', { 'aria-label': 'Figures' }, ...links),
    ...shown.map(renderFigure),
  ])
}

const dayMs = 24 * 3_600_000

function timeAxis({ knownMs, unknownMs }: Analysis): Axis {
  const days = (knownMs + unknownMs) / dayMs
  const inHours = days < 2
  return {
    title: inHours ? 'hours since the begin' : 'days since the begin',
    ...{ kind: 'linear', min: 0, max: inHours ? days * 24 : days },
    format: (value) => String(Number(value.toFixed(2))),
  }
}

function overTime(
  analysis: Analysis,
  of: { id: string; title: string; caption: string; y: Axis; value: (point: Point) => number },
): Figure {
  const { id, title, caption, y, value } = of
  const { series, knownMs, unknownMs } = analysis
  const unitMs = (knownMs + unknownMs) / dayMs < 2 ? dayMs / 24 : dayMs
  const points = series.map((point) => ({ x: point.sinceMs / unitMs, y: value(point) }))
  const sorted = series.map(value).sort((a, b) => a - b)
  const at = (share: number): string =>
    y.format(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0)
  return {
    ...{ id, title, caption },
    plot: lineChart({
      ...{ id: `plot-${id}`, title, description: caption, x: timeAxis(analysis), y },
      curves: [{ look: look(0), label: 'idle', points }],
      mark: () => false,
    }),
    table: {
      columns: ['over the time', 'least', 'a tenth below', 'median', 'a tenth above', 'most'],
      rows: [['idle', at(0), at(0.1), at(0.5), at(0.9), at(1)]],
    },
  }
}

function coresOverTime(analysis: Analysis): Figure {
  return overTime(analysis, {
    ...{ id: 'cores', title: 'Idle cores over time', value: ({ idleCores }) => idleCores },
    caption: `Of ${analysis.cores} cores; each point is a mean over ${steps(analysis)}.`,
    y: { title: 'idle cores', kind: 'linear', format: count },
  })
}

function memoryOverTime(analysis: Analysis): Figure | undefined {
  const { memoryBytes } = analysis
  if (memoryBytes === 0) return undefined
  const [unit, bytes] = memoryBytes < 10 * 2 ** 40 ? ['GiB', 2 ** 30] : ['TiB', 2 ** 40]
  return overTime(analysis, {
    ...{ id: 'memory', title: 'Idle memory over time' },
    value: ({ idleMemoryBytes }) => idleMemoryBytes / bytes,
    caption: `Memory that no job has, of ${formatBytes(memoryBytes)}, on busy nodes too.`,
    y: { title: `idle memory, ${unit}`, kind: 'linear', format: count },
  })
}

const durationAxis: Axis = {
  title: 'length of the period',
  kind: 'log10',
  format: (value) => formatDuration(value * 1000),
}
const shareAxis: Axis = {
  ...{ title: 'share', kind: 'linear', min: 0, max: 1, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
  format: (value) => percent(value, 0),
}

function periods({ periods: { distribution, count: periodCount } }: Analysis): Figure | undefined {
  if (periodCount === 0) return undefined
  const title = 'How long cores are idle'
  const caption =
    'The share of the idle periods that last at most so long, and the share of the idle core time that lies in them. Each core counts.'
  const ticks = [15, 60, 300, 1200, 3600, 14_400, 43_200, 172_800]
  const x = { ...durationAxis, ticks, min: 15, max: 604_800 }
  const curve = (label: string, n: number, of: 'shareOfPeriods' | 'shareOfIdle') => ({
    ...{ look: look(n), label },
    points: distribution.map((step) => ({ x: step.upToMs / 1000, y: step[of] })),
  })
  return {
    ...{ id: 'periods', title, caption },
    plot: lineChart({
      ...{ id: 'plot-periods', title, description: caption, x, y: shareAxis },
      curves: [curve('periods', 0, 'shareOfPeriods'), curve('idle core time', 1, 'shareOfIdle')],
    }),
    table: {
      columns: ['at most', 'share of periods', 'share of idle core time'],
      rows: distribution.map(({ upToMs, shareOfPeriods, shareOfIdle }) => [
        ...[formatDuration(upToMs), percent(shareOfPeriods), percent(shareOfIdle)],
      ]),
    },
  }
}

function leases({ leases: uses }: Analysis): Figure | undefined {
  if (uses.length === 0) return undefined
  const title = 'What leases would use'
  const caption =
    'The share of the idle core time that leases of one length would use, as many whole ones as fit into each period.'
  const seconds = uses.map(({ leaseMs }) => leaseMs / 1000)
  const plot = lineChart({
    ...{ id: 'plot-leases', title, description: caption },
    x: {
      ...durationAxis,
      title: 'length of the leases',
      min: Math.min(...seconds),
      max: Math.max(...seconds),
      ticks: thinned(seconds),
    },
    y: { ...shareAxis, title: 'share of the idle core time' },
    curves: [
      {
        ...{ look: look(2), label: 'used' },
        points: uses.map(({ leaseMs, shareOfIdle }) => ({ x: leaseMs / 1000, y: shareOfIdle })),
      },
    ],
  })
  return {
    ...{ id: 'leases', title, caption },
    ...(uses.length > 1 && { plot }),
    table: {
      columns: ['length of the leases', 'share of idle core time', 'core-hours'],
      rows: uses.map(({ leaseMs, shareOfIdle, coreHours }) => [
        ...[formatDuration(leaseMs), percent(shareOfIdle), count(coreHours)],
      ]),
    },
  }
}

/** At most eight, evenly. */
function thinned(values: readonly number[]): number[] {
  const every = Math.ceil(values.length / 8)
  return [...values].sort((a, b) => a - b).filter((_, i) => i % every === 0)
}

function steps({ series, knownMs, unknownMs }: Analysis): string {
  return formatDuration((knownMs + unknownMs) / Math.max(1, series.length))
}

function count(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 1 : 0 })
}
