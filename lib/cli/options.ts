// Options that several commands have, and how their values are read.
import { InvalidArgumentError, Option } from 'commander'

import { RfaasError } from '../errors.js'
import { parseBytes, parseDuration } from '../units.js'

const defaultUrl = 'http://127.0.0.1:7070'

export function urlOption(): Option {
  return new Option('--url <url>', 'resource manager').env('RFAAS_URL').default(defaultUrl)
}

export function jsonOption(): Option {
  return new Option('--json', 'as JSON, for programs')
}

export function bytes(text: string): number {
  return checked(() => parseBytes(text, 'it'))
}

export function duration(text: string): number {
  return checked(() => parseDuration(text, 'it'))
}

export function integer(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= minimum && value <= maximum) return value
    throw new InvalidArgumentError(`It must be a whole number from ${minimum} to ${maximum}.`)
  }
}

function checked<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof RfaasError) || error.allowed === undefined) throw error
    throw new InvalidArgumentError(`It must be ${error.allowed}.`)
  }
}
