// The worker's line to the executor manager: configuration, then orders on stdin, events on fd 3.
import { readSync, writeSync } from 'node:fs'

const eventsFd = 3
const maxLineBytes = 8192
const maxOrderChars = 64

export interface WorkerConfiguration {
  provider: string
  device: string
  address: string
  ticket: Uint8Array
  package: string
  worker: number
  slots: number
  payloadBytes: number
  outputBytes: number
  hotTimeoutUs: number
}

/** Lines `key=value` up to an empty one, and not a byte further. */
export function readConfiguration(): WorkerConfiguration {
  const values = new Map<string, string>()
  for (let line = readLine(); line !== ''; line = readLine()) {
    const equals = line.indexOf('=')
    if (equals < 1) throw new Error('the configuration on stdin has a line without key')
    values.set(line.slice(0, equals), line.slice(equals + 1))
  }
  const text = (key: string): string => {
    const value = values.get(key)
    if (value === undefined) throw new Error(`the configuration on stdin has no ${key}`)
    return value
  }
  const number = (key: string): number => {
    const value = text(key)
    if (!/^\d{1,15}$/.test(value)) throw new Error(`${key} in the configuration is not a number`)
    return Number(value)
  }
  const ticket = Buffer.from(text('ticket'), 'hex')
  if (ticket.byteLength !== 32) throw new Error('ticket in the configuration has not 64 hex digits')
  return {
    provider: text('provider'),
    device: text('device'),
    address: text('address'),
    ticket,
    package: text('package'),
    worker: number('worker'),
    slots: number('slots'),
    payloadBytes: number('payload_bytes'),
    outputBytes: number('output_bytes'),
    hotTimeoutUs: number('hot_timeout_us'),
  }
}

export interface Orders {
  /** New calls are to be refused. */
  drain(): void
  /** Once: the manager says so, ends or is killed; or SIGTERM. */
  stop(): void
}

/** Calls back for what the manager says: lines, which may arrive in pieces. */
export function onOrders({ drain, stop }: Orders): void {
  let stopped = false
  const once = (): void => {
    if (!stopped) stop()
    stopped = true
  }
  let rest = ''
  process.stdin.setEncoding('latin1')
  process.stdin.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = (lines.pop() ?? '').slice(0, maxOrderChars)
    for (const line of lines) {
      if (line === 'drain') drain()
      else if (line === 'stop') once()
    }
  })
  process.stdin.once('end', once)
  process.stdin.once('error', once)
  process.once('SIGTERM', once)
}

export function sendEvent(event: Readonly<Record<string, unknown>>): void {
  const line = Buffer.from(`${JSON.stringify(event)}\n`)
  try {
    for (let sent = 0; sent < line.byteLength;) sent += writeSync(eventsFd, line, sent)
  } catch {
    // The manager is gone; stdin tells us so.
  }
}

function readLine(): string {
  const bytes: number[] = []
  const byte = new Uint8Array(1)
  for (;;) {
    if (readSync(0, byte) === 0) throw new Error('the configuration on stdin ended early')
    if (byte[0] === 10) return Buffer.from(bytes).toString('utf8')
    bytes.push(byte[0] ?? 0)
    if (bytes.length > maxLineBytes)
      throw new Error('the configuration has a line that is too long')
  }
}
