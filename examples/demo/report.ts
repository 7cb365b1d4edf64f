// How the demo speaks: one paragraph per step on standard output, progress on standard error.
import { stderr, stdout } from 'node:process'

const labelWidth = 13

/** Runs a step that may take a second and says so meanwhile; on a terminal the line disappears. */
export async function progress<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  stderr.write(stderr.isTTY ? `  … ${what}` : `… ${what}\n`)
  try {
    return await work()
  } finally {
    if (stderr.isTTY) stderr.write('\r\x1b[K')
  }
}

/** A label and its lines below each other. */
export function paragraph(label: string, ...lines: string[]): void {
  lines.forEach((line, index) => {
    stdout.write(`  ${(index === 0 ? label : '').padEnd(labelWidth)}${line}\n`)
  })
}

/** Ends a paragraph with the outcome of its check, and what is wrong if it failed. */
export function verdict(claim: readonly string[], problems: readonly string[]): void {
  const [first, ...rest] = claim
  const lines = [`${problems.length === 0 ? '✓' : '✗ not so:'} ${first}`, ...rest, ...problems]
  paragraph('', ...lines.map((line, index) => (index === 0 ? line : `  ${line}`)))
  stdout.write('\n')
}

export function duration(milliseconds: number): string {
  if (milliseconds < 1e-3) return `${Math.round(milliseconds * 1e6)} ns`
  if (milliseconds < 1) return `${significant(milliseconds * 1e3)} µs`
  if (milliseconds < 1000) return `${significant(milliseconds)} ms`
  return `${significant(milliseconds / 1000)} s`
}

export function integer(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

/** Three digits, never in exponential notation. */
export function significant(value: number): string {
  if (value >= 100) return integer(value)
  return value.toPrecision(3)
}
