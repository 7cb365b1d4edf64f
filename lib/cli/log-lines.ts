// The managers' JSON logs as lines for people: `rfaas up` on a terminal.
import { paint, printable } from './output.js'

interface Line {
  level: string
  time: string
  name: string
  msg?: string
  [field: string]: unknown
}

// What pino adds to every line, and what is always the same or of no use on one machine.
const hidden = new Set(['level', 'time', 'name', 'msg', 'pid', 'hostname', 'node', 'executor'])
const sha256 = /^[0-9a-f]{64}$/

/** A stream for createLogger() that writes readable lines to standard error. What goes well is told
 * only after show() and before hide(): starting and stopping are not worth a page. */
export class ReadableLog {
  #shown = false

  show(): void {
    this.#shown = true
  }

  hide(): void {
    this.#shown = false
  }

  write(json: string): void {
    const line = JSON.parse(json) as Line
    if (this.#shown || line.level !== 'info') process.stderr.write(`${readable(line)}\n`)
  }
}

function readable(line: Line): string {
  const clock = new Date(line.time).toLocaleTimeString('en-GB')
  const message = line.msg ?? ''
  // What functions print is what their author is looking for.
  if (message === 'worker output') {
    return `${faint(clock)}  ${printable(String(line['text']))}  ${faint(`(${String(line['stream'])})`)}`
  }
  const fields = Object.entries(line).filter(([key]) => !hidden.has(key))
  const details = fields.map(([key, value]) => faint(`${key} ${printable(show(value))}`))
  return [`${faint(clock)}  ${mark(line.level)}${printable(message)}`, ...details].join('  ')
}

function mark(level: string): string {
  if (level === 'error' || level === 'fatal') return paint('red', 'error: ', process.stderr)
  if (level === 'warn') return paint('yellow', 'warning: ', process.stderr)
  return ''
}

function faint(text: string): string {
  return paint('dim', text, process.stderr)
}

function show(value: unknown): string {
  if (typeof value === 'string') return sha256.test(value) ? `${value.slice(0, 12)}…` : value
  if (typeof value === 'object' && value !== null && 'message' in value) {
    return String((value as { message: unknown }).message)
  }
  return JSON.stringify(value)
}
