// What a manager's answer means to whoever asked, and what to tell him when none came.
import { RfaasError, type ErrorCode } from '../errors.js'
import { inspect } from './check.js'
import { ErrorBody } from './schemas.js'

export interface Answer {
  /** Of HTTP. */
  status: number
  /** Its words for it; may be empty. */
  reason: string
  /** Undefined when there is none, or when it is not JSON. */
  body: unknown
  empty: boolean
}

/** The error that the manager raised, with its own code; or what the status alone tells. */
export function errorFrom(name: string, { status, reason, body, empty }: Answer): RfaasError {
  if (inspect(ErrorBody, body) === undefined) {
    const { code, message, field, allowed } = (body as ErrorBody).error
    if (/^ERR_RFAAS_[A-Z_]{1,40}$/.test(code)) {
      return new RfaasError(code as ErrorCode, message, {
        status,
        ...(field === undefined ? {} : { field }),
        ...(allowed === undefined ? {} : { allowed }),
      })
    }
  }
  // Answers to HEAD have no body.
  if (empty && status === 404) {
    return new RfaasError('ERR_RFAAS_NOT_FOUND', `${name}: not found`, { status: 404 })
  }
  if (empty && status === 401) {
    return new RfaasError('ERR_RFAAS_UNAUTHORIZED', `${name}: refused`, { status: 401 })
  }
  // A proxy in between, or a manager that is just shutting down.
  if (status >= 502 && status <= 504) {
    const message = `${name}: unavailable (${status}): check that the manager runs`
    return new RfaasError('ERR_RFAAS_UNAVAILABLE', message, { status })
  }
  return protocolError(name, `${status} ${reason}`.trim(), status)
}

export function protocolError(name: string, got: string, status?: number): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_PROTOCOL',
    `${name} answered ${got}: check that the URL is that of an rfaas manager of this version`,
    status === undefined ? {} : { status },
  )
}

export function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // Several addresses were tried.
  if (error instanceof AggregateError && error.errors[0] instanceof Error) {
    return error.errors[0].message
  }
  return error.message === '' ? error.name : error.message
}

export function adviceFor(error: unknown, url: string): string {
  const { code = '' } = error as NodeJS.ErrnoException
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'use a name or address that is in the certificate of the manager'
  }
  if (/CERT|ISSUER|SIGNATURE/.test(code)) {
    return 'name the authority that signed the certificate of the manager with --ca (ca, RFAAS_CA)'
  }
  if (code === 'EPROTO' || (code === 'ECONNRESET' && !url.startsWith('https:'))) {
    return 'check that the manager runs, and whether its URL begins with http: or https:'
  }
  return 'check that the manager runs and that its URL is right'
}
