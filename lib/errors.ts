// Every error that rfaas raises on purpose. Programs decide by `code`, people read `message`.

/** Stable codes: a published one never changes its meaning. */
export type ErrorCode =
  | 'ERR_RFAAS_INVALID_ARGUMENT' // an argument, option, flag, config key or body field is wrong
  | 'ERR_RFAAS_CLOSED' // the object was closed
  | 'ERR_RFAAS_UNAVAILABLE' // a manager cannot be reached
  | 'ERR_RFAAS_PROTOCOL' // the other side answered nonsense or speaks another version
  | 'ERR_RFAAS_UNAUTHORIZED' // token missing, forged, expired or for something else
  | 'ERR_RFAAS_FORBIDDEN' // whoever asks is known, and may not do this
  | 'ERR_RFAAS_NOT_FOUND' // no such lease, node, package, executor
  | 'ERR_RFAAS_NO_CAPACITY' // no node has the cores and memory that were asked for
  | 'ERR_RFAAS_QUOTA' // the tenant would hold more than it may
  | 'ERR_RFAAS_LEASE_ENDED' // expired, released or revoked; the call did not run
  | 'ERR_RFAAS_LEASE_REVOKED' // the lease is being taken back; the call did not run
  | 'ERR_RFAAS_FABRIC' // a fabric operation failed; see `errno` and `syscall`
  | 'ERR_RFAAS_FABRIC_UNAVAILABLE' // the provider or device cannot be used on this host
  | 'ERR_RFAAS_PACKAGE' // the function package cannot be loaded
  | 'ERR_RFAAS_EXECUTOR' // an executor could not be started
  | 'ERR_RFAAS_UNKNOWN_FUNCTION'
  | 'ERR_RFAAS_FUNCTION' // the function itself failed; message is its own
  | 'ERR_RFAAS_PAYLOAD_TOO_LARGE'
  | 'ERR_RFAAS_OUTPUT_TOO_SMALL'
  | 'ERR_RFAAS_QUEUE_FULL' // every slot of the worker is in use
  | 'ERR_RFAAS_DEADLINE' // the deadline passed; the function may still have run
  | 'ERR_RFAAS_ABORTED' // the caller aborted; the function may still run
  | 'ERR_RFAAS_WORKER_LOST' // the worker ended; the call may or may not have run
  | 'ERR_RFAAS_INTERNAL'

export interface ErrorDetails extends ErrorOptions {
  /** Which argument, option, key or field. */
  field?: string
  /** What was given for it. */
  value?: unknown
  /** What would have been right. */
  allowed?: string
  errno?: number
  syscall?: string
  /** HTTP status, where the error came from or goes to HTTP. */
  status?: number
  /** Of a call: false when the function certainly did not run, true when nobody can tell. */
  mayHaveRun?: boolean
}

const brand = Symbol.for('rfaas.error')

/** The one error class of rfaas. `instanceof` also holds across copies of the package. */
export class RfaasError extends Error {
  readonly code: ErrorCode
  readonly field?: string
  readonly value?: unknown
  readonly allowed?: string
  readonly errno?: number
  readonly syscall?: string
  readonly status?: number
  readonly mayHaveRun?: boolean

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, ...rest } = details
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'RfaasError'
    this.code = code
    Object.assign(this, rest)
    Object.defineProperty(this, brand, { value: true })
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value
  }
}

/** `field` was `value`, which is wrong; `allowed` says what is right. */
export function invalidArgument(field: string, value: unknown, allowed: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `${field} is ${show(value)}, must be ${allowed}`,
    { field, value, allowed, status: 400 },
  )
}

function show(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value)
  if (typeof value === 'object' && value !== null)
    return Array.isArray(value) ? 'an array' : 'an object'
  return String(value)
}
