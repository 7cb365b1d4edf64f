// Options that several commands have, and how their values are read.
import { InvalidArgumentError, Option, type Command } from 'commander'

import { RfaasError } from '../errors.js'
import { parseBytes, parseDuration } from '../units.js'

const defaultUrl = 'http://127.0.0.1:7070'

/** Where the resource manager is, and how to get in. */
export interface Target {
  url: string
  keyFile?: string
  ca?: string
  allowPlaintext?: boolean
}

/** Keys come in files: arguments can be read by every user of the host. */
export function withTarget(command: Command): Command {
  return command
    .addOption(new Option('--url <url>', 'resource manager').env('RFAAS_URL').default(defaultUrl))
    .option('--key-file <file>', 'your API key, mode 0600 (default: RFAAS_KEY, RFAAS_KEY_FILE)')
    .option('--ca <file>', "authorities of the managers' certificates (default: RFAAS_CA)")
    .option('--allow-plaintext', 'send the key without TLS where nobody can listen')
}

export function jsonOption(): Option {
  return new Option('--json', 'as JSON, for programs')
}

/** What a trace may not say of its cluster. */
export interface Machine {
  nodes?: number
  coresPerNode?: number
  nodeMemory: number
}

export function withMachine(command: Command): Command {
  return command
    .option('--nodes <count>', 'of the cluster (default: what the trace says)', integer(1, 200_000))
    .option('--cores-per-node <count>', '(default: what the trace says)', integer(1, 4096))
    .addOption(optionOf('--node-memory <size>', 'where the trace does not say', bytes, '64GiB'))
}

/** An option whose default is shown as it is typed. */
export function optionOf(
  flags: string,
  description: string,
  read: (text: string) => unknown,
  otherwise: string,
): Option {
  return new Option(flags, description).argParser(read).default(read(otherwise), otherwise)
}

/** Several of them, with commas. */
export function list<T>(one: (text: string) => T): (text: string) => T[] {
  return (text) => text.split(',').map((part) => one(part.trim()))
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
