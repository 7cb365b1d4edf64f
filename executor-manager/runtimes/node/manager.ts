// The worker's conversation with its executor manager: lines `key=value` on stdin up to an empty
// one, then "stop" or the end; JSON lines on file descriptor 3.
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'

import { invalidArgument, RfaasError } from '../../../lib/errors.js'

export const eventsFd = 3

export interface Configuration {
  provider: string
  device: string
  address: string
  ticket: Uint8Array
  package: string
  worker: number
  core: number
  slots: number
  payloadBytes: number
  outputBytes: number
  hotTimeoutUs: number
}

export function report(event: Record<string, unknown>): void {
  try {
    writeSync(eventsFd, `${JSON.stringify(event)}\n`)
  } catch {
    // The manager is gone, and stdin is about to say so.
  }
}

/** Reads the configuration; `onStop` is called when the manager wants the worker to stop. */
export async function readConfiguration(): Promise<{
  configuration: Configuration
  onStop: (listener: () => void) => void
}> {
  const values = new Map<string, string>()
  let stopped = false
  let listener: (() => void) | undefined
  const lines = createInterface({ input: process.stdin })
  await new Promise<void>((resolve, reject) => {
    let complete = false
    lines.on('line', (line) => {
      if (complete) {
        if (line !== 'stop') return
        stopped = true
        listener?.()
      } else if (line === '') {
        complete = true
        resolve()
      } else {
        const equals = line.indexOf('=')
        values.set(line.slice(0, Math.max(equals, 0)), line.slice(equals + 1))
      }
    })
    lines.on('close', () => {
      if (complete) process.exit(0)
      reject(new RfaasError('ERR_RFAAS_PROTOCOL', 'the configuration on stdin ended early'))
    })
  })
  return {
    configuration: parse(values),
    onStop: (added) => {
      listener = added
      if (stopped) added()
    },
  }
}

function parse(values: ReadonlyMap<string, string>): Configuration {
  const text = (key: string): string => {
    const value = values.get(key)
    if (value === undefined || value === '') throw invalidArgument(key, value ?? '', 'given')
    return value
  }
  const number = (key: string): number => {
    const value = text(key)
    if (!/^\d{1,15}$/.test(value)) throw invalidArgument(key, value, 'a whole number')
    return Number(value)
  }
  const ticket = Buffer.from(text('ticket'), 'hex')
  if (ticket.byteLength !== 32)
    throw new RfaasError('ERR_RFAAS_PROTOCOL', 'the ticket is malformed')
  return {
    provider: text('provider'),
    device: values.get('device') ?? '',
    address: text('address'),
    ticket,
    package: text('package'),
    worker: number('worker'),
    core: (values.get('core') ?? '') === '' ? -1 : number('core'),
    slots: number('slots'),
    payloadBytes: number('payload_bytes'),
    outputBytes: number('output_bytes'),
    hotTimeoutUs: number('hot_timeout_us'),
  }
}
