// The worker's line to the executor manager: configuration, then orders on stdin, events on fd 3.
import { closeSync, readSync, writeSync } from 'node:fs'

const eventsFd = 3
const maxLineChars = 8192

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
  /** Where the id of the request that was started last is kept, if at all. */
  startedFd: number
}

export interface Orders {
  /** New calls are to be refused. */
  drain(): void
  /** Once: the manager says so, ends or is killed; or SIGTERM. */
  stop(): void
}

/** Resolves when the manager has said what this worker is for: lines `key=value` up to an empty one.
 * What it says then are orders. With `goFd` nothing of it is looked at before the launcher has written a
 * byte there, which may be long in coming: it has done all it had to. */
export function listenToManager(
  { drain, stop }: Orders,
  goFd: number | undefined,
): Promise<WorkerConfiguration> {
  let stopped = false
  const once = (): void => {
    if (!stopped) stop()
    stopped = true
  }
  return new Promise((resolve, reject) => {
    let configuration: Map<string, string> | undefined = new Map()
    const take = (line: string): void => {
      if (configuration === undefined) {
        if (line === 'drain') drain()
        else if (line === 'stop') once()
      } else if (line === '') {
        const complete = configuration
        configuration = undefined
        resolve(parseConfiguration(complete))
      } else {
        const equals = line.indexOf('=')
        configuration.set(line.slice(0, equals), line.slice(equals + 1))
      }
    }
    let rest = ''
    process.stdin.setEncoding('utf8')
    process.stdin.on('data', (text: string) => {
      try {
        const lines = (rest + text).split('\n')
        rest = (lines.pop() ?? '').slice(0, maxLineChars)
        lines.forEach(take)
      } catch (error) {
        reject(error as Error)
      }
    })
    process.stdin.once('end', once)
    process.stdin.once('error', once)
    process.once('SIGTERM', once)
    if (goFd !== undefined) awaitGo(goFd)
  })
}

/** Everything is loaded by now, and nothing else is to be done: it holds the thread. */
function awaitGo(fd: number): void {
  const came = readSync(fd, Buffer.alloc(1))
  if (came === 0) process.exit(1) // the launcher has ended
  closeSync(fd)
}

function parseConfiguration(values: ReadonlyMap<string, string>): WorkerConfiguration {
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
    startedFd: values.has('started_fd') ? number('started_fd') : -1,
  }
}

export function sendEvent(event: Readonly<Record<string, unknown>>): void {
  const line = Buffer.from(`${JSON.stringify(event)}\n`)
  try {
    for (let sent = 0; sent < line.byteLength;) sent += writeSync(eventsFd, line, sent)
  } catch {
    // The manager is gone; stdin tells us so.
  }
}
