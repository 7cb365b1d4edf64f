// How commands end: 0, 1 failure, 2 wrong usage, 130 and 143 when interrupted.
import { CommanderError } from 'commander'

import { RfaasError, type ErrorCode } from '../errors.js'
import { paint } from './output.js'

export const exitFailure = 1
export const exitUsage = 2

/** SIGINT or SIGTERM ended what the command was doing. */
export class Interrupted extends Error {
  constructor(readonly signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
  }
}

const hints: Partial<Record<ErrorCode, string>> = {
  ERR_RFAAS_NO_CAPACITY: "'rfaas nodes' shows what is free, 'rfaas leases' who holds the rest",
  ERR_RFAAS_UNAUTHORIZED: '--key-file or RFAAS_KEY_FILE names the file with your API key',
  ERR_RFAAS_FABRIC_UNAVAILABLE: "'rfaas doctor' tells what this host can do and what to change",
  ERR_RFAAS_DEADLINE: '--timeout gives the function more time',
}

/** A failure of the command itself, which knows what to do about it. */
export class CommandError extends Error {
  readonly hint: string | undefined

  constructor(message: string, options: ErrorOptions & { hint?: string } = {}) {
    super(message, options)
    this.name = 'CommandError'
    this.hint = options.hint
  }
}

/** Says what went wrong and returns the exit code. */
export function report(error: unknown, debug: boolean): number {
  // It has printed its help, version or complaint already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitUsage
  if (error instanceof Interrupted) return error.signal === 'SIGINT' ? 130 : 143
  const message = error instanceof Error ? error.message : String(error)
  let text = `${paint('red', 'rfaas:', process.stderr)} ${message}\n`
  const hint = hintFor(error)
  if (hint !== undefined && !debug) text += `  ${hint}\n`
  if (debug) text += `${details(error)}\n`
  process.stderr.write(text)
  const usage = error instanceof RfaasError && error.code === 'ERR_RFAAS_INVALID_ARGUMENT'
  return usage ? exitUsage : exitFailure
}

function hintFor(error: unknown): string | undefined {
  if (error instanceof CommandError) return error.hint
  if (error instanceof RfaasError) return hints[error.code]
  // Not raised on purpose: somebody has to find out where it came from.
  return '--debug shows where this happened'
}

function details(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const code = error instanceof RfaasError ? `${error.code} ` : ''
  const cause = error.cause === undefined ? '' : `\ncaused by ${details(error.cause)}`
  return `${code}${error.stack ?? error.message}${cause}`
}
