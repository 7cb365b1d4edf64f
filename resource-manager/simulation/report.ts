// The comparison of policies as rows, CSV and a page.
import { barChart } from '../../lib/plots/bar-chart.js'
import { renderFigure, type Figure } from '../../lib/plots/figure.js'
import { element, escape } from '../../lib/plots/markup.js'
import { htmlPage } from '../../lib/plots/page.js'
import { formatDuration } from '../../lib/units.js'
import { look, palette } from '../utilization/palette.js'
import { amount, percent } from '../utilization/text.js'
import type { Run } from './experiment.js'

export interface Comparison {
  /** What was simulated, in sentences. */
  facts: readonly string[]
  runs: readonly Run[]
}

interface Column {
  title: string
  /** Of the CSV, with its unit. */
  key: string
  value: (run: Run) => number | string
  show: (run: Run) => string
}

function column(
  key: string,
  title: string,
  value: (run: Run) => number,
  show: (value: number) => string,
): Column {
  return { key, title, value, show: (run) => show(value(run)) }
}

const duration = (ms: number): string =>
  formatDuration(ms < 10_000 ? ms : Math.round(ms / 1000) * 1000)

const policyColumns: readonly Column[] = [
  {
    ...{ key: 'scheduler', title: 'placement' },
    value: ({ policy }) => policy.scheduler,
    show: ({ policy }) => policy.scheduler,
  },
  column('lease_ms', 'lease', ({ policy }) => policy.leaseMs, duration),
  column('reserve_cores', 'reserve', ({ policy }) => policy.reserve, String),
  column('notice_ms', 'notice', ({ policy }) => policy.noticeMs, duration),
]

const resultColumns: readonly Column[] = [
  column('leased_core_hours', 'core-hours leased', ({ result }) => result.leasedCoreHours, amount),
  column('useful_core_hours', 'of them useful', ({ result }) => result.usefulCoreHours, amount),
  column('share_of_idle', 'share of idle', ({ result }) => result.shareOfIdle, percent),
  column('leases', 'leases', ({ result }) => result.leases, amount),
  column('preempted', 'preempted', ({ result }) => result.preempted, amount),
  column('calls', 'calls', ({ result }) => result.calls, amount),
  column('calls_lost', 'calls lost', ({ result }) => result.callsLost, amount),
  column('calls_moved', 'calls moved', ({ result }) => result.callsMoved, amount),
  column('wait_mean_ms', 'wait, mean', ({ result }) => result.wait.mean, duration),
  column('wait_p95_ms', 'wait, p95', ({ result }) => result.wait.p95, duration),
  column('refused', 'refused', ({ result }) => result.refused, amount),
  column('jobs_waited', 'jobs that waited', ({ result }) => result.jobsWaited, amount),
  column('job_wait_mean_ms', 'for, mean', ({ result }) => result.jobWait.mean, duration),
]

const columns = [...policyColumns, ...resultColumns]

/** The titles first. */
export function comparisonRows(runs: readonly Run[]): string[][] {
  return [
    columns.map(({ title }) => title),
    ...runs.map((run) => columns.map(({ show }) => show(run))),
  ]
}

export function comparisonCsv(runs: readonly Run[]): string {
  const rows = runs.map((run) => columns.map(({ value }) => value(run)).join())
  return [columns.map(({ key }) => key).join(), ...rows, ''].join('\n')
}

export function comparisonPage({ facts, runs }: Comparison): string {
  const figures = [
    figure(runs, {
      ...{ id: 'share', title: 'Idle core time used', axis: 'share of the idle core time', n: 0 },
      caption: 'Of all core time that the batch system left idle, the share that leases had.',
      value: ({ result }) => result.shareOfIdle,
      format: (value) => percent(value),
      tick: (value) => percent(value, 0),
    }),
    figure(runs, {
      ...{ id: 'preempted', title: 'Leases preempted', axis: 'share of the leases', n: 1 },
      caption: 'Leases that ended before their time, as the batch system wanted the node.',
      value: ({ result }) => result.preempted / Math.max(1, result.leases),
      format: (value) => percent(value, 2),
      tick: (value) => percent(value),
    }),
    figure(runs, {
      ...{ id: 'lost', title: 'Calls lost', axis: 'calls per million', n: 4 },
      caption: 'Calls that did not end within the notice, and had to run again.',
      value: ({ result }) => (result.callsLost / Math.max(1, result.calls)) * 1e6,
      format: amount,
    }),
    figure(runs, {
      ...{ id: 'wait', title: 'Waiting for a lease', axis: 'seconds, mean', n: 3 },
      caption: 'From a request to its grant, on average over the requests that were granted.',
      value: ({ result }) => result.wait.mean / 1000,
      format: (value) => `${amount(value)} s`,
    }),
  ]
  const all: Figure = {
    ...{ id: 'all', title: 'All figures', caption: 'What the columns mean: docs/utilization.md.' },
    table: { columns: columns.map(({ title }) => title), rows: comparisonRows(runs).slice(1) },
  }
  const shown = [...figures, all]
  const links = shown.map(({ id, title }) => element('a', { href: `#${id}` }, escape(title)))
  return htmlPage('rfaas: simulation', palette, [
    element('h1', {}, 'Policies, simulated'),
    ...facts.map((fact) => element('p', { class: 'quiet' }, escape(fact))),
    element('nav', { 'aria-label': 'Figures' }, ...links),
    ...shown.map(renderFigure),
  ])
}

function figure(
  runs: readonly Run[],
  of: {
    id: string
    title: string
    caption: string
    axis: string
    n: number
    value: (run: Run) => number
    format: (value: number) => string
    tick?: (value: number) => string
  },
): Figure {
  const { id, title, caption, axis, value, format } = of
  // What is the same in all runs needs not be said at each bar.
  const varied = policyColumns.filter(
    ({ value: choice }) => new Set(runs.map((run) => choice(run))).size > 1,
  )
  const label = (run: Run): string =>
    (varied.length === 0 ? policyColumns.slice(0, 1) : varied)
      .map(({ key, title: name, show }) =>
        key === 'scheduler' ? show(run) : `${name} ${show(run)}`,
      )
      .join(', ')
  const most = Math.max(...runs.map(value))
  return {
    ...{ id, title, caption },
    plot: barChart({
      ...{ id: `plot-${id}`, title, description: caption },
      x: {
        title: axis,
        kind: 'linear',
        format: of.tick ?? format,
        max: most === 0 ? 1 : most * 1.05,
      },
      bars: runs.map((run) => ({
        ...{ label: label(run), look: look(of.n), note: format(value(run)) },
        parts: [{ name: axis, value: value(run) }],
      })),
    }),
    table: {
      columns: ['policy', axis],
      rows: runs.map((run) => [label(run), format(value(run))]),
    },
  }
}
