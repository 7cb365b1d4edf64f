// What the commands print: results on standard output, everything about them on standard error.
import type { Writable } from 'node:stream'
import type { WriteStream } from 'node:tty'

/** A reader that has seen enough (`rfaas leases | head -1`) is no failure. Other errors are thrown
 * where the write is awaited; without a listener they would end the process with a stack. */
export function tolerateClosedPipes(): void {
  process.stdout.on('error', () => undefined)
  process.stderr.on('error', () => undefined)
}

/** Resolves when everything has left the process. */
export function print(data: string | Uint8Array, stream: Writable = process.stdout): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(data, (error) => {
      if (error == null || (error as NodeJS.ErrnoException).code === 'EPIPE') resolve()
      else reject(error)
    })
  })
}

export function printJson(value: unknown): Promise<void> {
  return print(`${JSON.stringify(value, null, 2)}\n`)
}

/** A remark that is not the result. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

const codes = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 }
export type Style = keyof typeof codes

/** Colours, where they are seen and wanted (https://no-color.org). */
export function paint(style: Style, text: string, stream: Writable = process.stdout): string {
  const wanted =
    (stream as Partial<WriteStream>).isTTY === true &&
    (process.env['NO_COLOR'] ?? '') === '' &&
    process.env['TERM'] !== 'dumb'
  return wanted ? `\x1b[${codes[style]}m${text}\x1b[0m` : text
}

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  /** Numbers stand at the right edge of their column. */
  right?: boolean
}

/** Aligned columns; names may come from other machines, so nothing in them reaches the terminal. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ value }) => printable(value(row)))),
  ]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)))
  const lines = cells.map((line) =>
    line
      .map((cell, i) => {
        const width = widths[i] ?? 0
        return columns[i]?.right === true ? cell.padStart(width) : cell.padEnd(width)
      })
      .join('  ')
      .trimEnd(),
  )
  const [head = '', ...body] = lines
  return [paint('bold', head), ...body].map((line) => `${line}\n`).join('')
}

/** A table whose titles are its first row; all but the first column stand at their right edges. */
export function rows([titles = [], ...body]: readonly (readonly string[])[]): string {
  return table(
    body,
    titles.map((title, i) => ({
      ...{ title: title.toUpperCase(), right: i > 0 },
      value: (cells) => cells[i] ?? '',
    })),
  )
}

/** Without control characters. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
}
