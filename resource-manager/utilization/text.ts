// The report of a trace as text, CSV, and in sentences.
import { formatBytes, formatDuration } from '../../lib/units.js'
import type { Analysis } from './analysis.js'

export function facts(analysis: Analysis): string[] {
  const { nodes, cores, memoryBytes, knownMs, unknownMs, periods } = analysis
  const { idleCoreShare, idleMemoryShare, idleCoreHours } = analysis
  const memory = memoryBytes === 0 ? '' : ` and ${formatBytes(memoryBytes)}`
  const whole = formatDuration(roundToSeconds(knownMs + unknownMs))
  const unknown =
    unknownMs === 0 ? '' : `, of which nothing is known of ${formatDuration(unknownMs)}`
  const shares = [
    `${percent(idleCoreShare, 2)} of the core time was idle (${amount(idleCoreHours)} core-hours)`,
    ...(idleMemoryShare === undefined ? [] : [`${percent(idleMemoryShare, 1)} of the memory`]),
  ]
  return [
    `${nodes} nodes with ${cores} cores${memory}, ${short(analysis.from)} to ${short(analysis.until)} (${whole}${unknown}).`,
    `${shares.join(', ')}.`,
    `A core was idle for ${formatDuration(periods.meanMs)} on average; half of the periods were shorter than ${formatDuration(periods.medianMs)}, nine tenths than ${formatDuration(periods.p90Ms)}.`,
    ...(periods.cut === 0
      ? []
      : [
          `${percent(periods.cut / periods.count)} of the periods are cut by the begin or end of what is known.`,
        ]),
  ]
}

export function utilizationText(analysis: Analysis, table: (rows: string[][]) => string): string {
  const { distribution } = analysis.periods
  return [
    `${analysis.source}\n`,
    ...facts(analysis).map((fact) => `${fact}\n`),
    ...analysis.remarks.map((remark) => `Note: ${remark}.\n`),
    '\n',
    table([
      ['IDLE FOR AT MOST', 'SHARE OF PERIODS', 'SHARE OF IDLE CORE TIME'],
      ...distribution.map(({ upToMs, shareOfPeriods, shareOfIdle }) => [
        ...[formatDuration(upToMs), percent(shareOfPeriods), percent(shareOfIdle)],
      ]),
    ]),
    '\n',
    table([
      ['LEASES OF', 'WOULD USE', 'CORE-HOURS'],
      ...analysis.leases.map(({ leaseMs, shareOfIdle, coreHours }) => [
        ...[formatDuration(leaseMs), percent(shareOfIdle), amount(coreHours)],
      ]),
    ]),
  ].join('')
}

/** The course over time; the rest is in the JSON. */
export function utilizationCsv({ series, cores, memoryBytes }: Analysis): string {
  const rows = series.map(({ at, idleCores, idleMemoryBytes }) =>
    [at, idleCores.toFixed(2), cores, Math.round(idleMemoryBytes), memoryBytes].join(),
  )
  return ['time,idle_cores,cores,idle_memory_bytes,memory_bytes', ...rows, ''].join('\n')
}

export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`
}

export function amount(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 2 : 0 })
}

/** To the second. */
function short(instant: string): string {
  return instant.replace(/\.\d+Z$/, 'Z')
}

function roundToSeconds(ms: number): number {
  return Math.round(ms / 1000) * 1000
}
