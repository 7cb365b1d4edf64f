// Aligned text: the first columns to the left, numbers to the right.

export interface Column<Row> {
  title: string
  text: (row: Row) => string
  align?: 'left' | 'right'
}

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

function texts<Row>(columns: readonly Column<Row>[], row: Row): string[] {
  return columns.map(({ text }) => text(row))
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

/** `1.4231` is `'1.42×'`, `1423.1` is `'1423×'`. */
export function formatRatio(ratio: number): string {
  return `${threeDigits(ratio)}×`
}

function threeDigits(value: number): string {
  const decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
  return Number(value.toFixed(decimals)).toString()
}
