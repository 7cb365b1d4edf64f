// Numbers and tables as text.
import { formatBytes } from '../lib/units.js'
import type { Result, Unit } from './results.js'

export interface Column<Row> {
  title: string
  text: (row: Row) => string
  align?: 'left' | 'right'
}

/** Aligned; names to the left, numbers to the right. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => texts(columns, row))]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => [...line[i]!].length)))
  return cells
    .map((line) =>
      line
        .map((cell, i) => {
          const fill = ' '.repeat(widths[i]! - [...cell].length)
          return columns[i]!.align === 'left' ? cell + fill : fill + cell
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const resultColumns: readonly Column<Result>[] = [
  { title: 'point', text: ({ params }) => formatParams(params), align: 'left' },
  { title: 'driver', text: ({ driver }) => driver, align: 'left' },
  { title: 'metric', text: ({ metric }) => metric, align: 'left' },
  { title: 'samples', text: ({ distribution }) => String(distribution?.samples ?? '') },
  { title: 'median', text: ({ median, unit }) => formatValue(median, unit) },
  { title: 'over the rounds', text: (result) => formatSpread(result, result.unit) },
  { title: 'p90', text: ({ distribution }) => optionalNs(distribution?.p90Ns) },
  { title: 'p99', text: ({ distribution }) => optionalNs(distribution?.p99Ns) },
  { title: 'p99.9', text: ({ distribution }) => optionalNs(distribution?.p999Ns) },
  { title: 'max', text: ({ distribution }) => optionalNs(distribution?.maxNs) },
  {
    title: 'to its floor',
    text: ({ ratios }) =>
      ratios
        .map(
          ({ to, median, min, max }) =>
            `${formatRatio(median)} ${to} (${formatRatio(min)} to ${formatRatio(max)})`,
        )
        .join(', '),
    align: 'left',
  },
]

/** One table per trial. */
export function formatResults(results: readonly Result[]): string {
  const names = [...new Set(results.map(({ trial }) => trial))]
  return names
    .map((name) => {
      const rows = results.filter(({ trial }) => trial === name)
      return `\n${name}\n\n${formatTable(resultColumns, rows)}\n`
    })
    .join('')
}

export function formatParams(params: Result['params']): string {
  return Object.entries(params)
    .map(([name, value]) =>
      name === 'payloadBytes' ? formatBytes(Number(value)) : `${name} ${value}`,
    )
    .join(', ')
}

export function formatValue(value: number, unit: Unit): string {
  switch (unit) {
    case 'ns':
      return formatNs(value)
    case '1/s':
      return `${formatCount(value)}/s`
    case 'B/s':
      return `${formatCount(value)}B/s`
    case 'B':
      return formatBytes(Math.round(value))
    case '%':
      return `${Number(value.toFixed(2))} %`
  }
}

export function formatSpread({ min, max }: { min: number; max: number }, unit: Unit): string {
  return `${formatValue(min, unit)} to ${formatValue(max, unit)}`
}

/** `281` is `'281 ns'`, `58337` is `'58.3 µs'`: three digits. */
export function formatNs(ns: number): string {
  const [scaled, unit] =
    ns < 999.5
      ? [ns, 'ns']
      : ns < 999.5e3
        ? [ns / 1e3, 'µs']
        : ns < 999.5e6
          ? [ns / 1e6, 'ms']
          : [ns / 1e9, 's']
  return `${threeDigits(scaled)} ${unit}`
}

/** `1423100` is `'1.42 M'`. */
export function formatCount(value: number): string {
  if (value < 999.5) return `${threeDigits(value)} `
  if (value < 999.5e3) return `${threeDigits(value / 1e3)} k`
  return value < 999.5e6 ? `${threeDigits(value / 1e6)} M` : `${threeDigits(value / 1e9)} G`
}

/** `1.4231` is `'1.42×'`, `1423.1` is `'1423×'`, `0.00123` is `'0.0012×'`. */
export function formatRatio(ratio: number): string {
  return `${ratio < 0.1 ? Number(ratio.toPrecision(2)) : threeDigits(ratio)}×`
}

export function threeDigits(value: number): string {
  const decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
  return Number(value.toFixed(decimals)).toString()
}

function optionalNs(ns: number | undefined): string {
  return ns === undefined ? '' : formatNs(ns)
}

function texts<Row>(columns: readonly Column<Row>[], row: Row): string[] {
  return columns.map(({ text }) => text(row))
}
