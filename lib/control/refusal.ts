// What an error looks like from outside, the same for every manager and every way to ask.
import { RfaasError, type ErrorCode } from '../errors.js'
import type { ErrorBody } from './schemas.js'

const statusOf: Partial<Record<ErrorCode, number>> = {
  ERR_RFAAS_INVALID_ARGUMENT: 400,
  ERR_RFAAS_UNAUTHORIZED: 401,
  ERR_RFAAS_FORBIDDEN: 403,
  ERR_RFAAS_NOT_FOUND: 404,
  ERR_RFAAS_NO_CAPACITY: 409,
  ERR_RFAAS_QUOTA: 409,
  ERR_RFAAS_LEASE_ENDED: 409,
  ERR_RFAAS_LEASE_REVOKED: 409,
  ERR_RFAAS_PAYLOAD_TOO_LARGE: 413,
  ERR_RFAAS_PACKAGE: 422,
  ERR_RFAAS_UNAVAILABLE: 503,
  ERR_RFAAS_CLOSED: 503,
  ERR_RFAAS_FABRIC_UNAVAILABLE: 503,
}

/** The error as it is told to whoever asked, with its HTTP status. */
export function translate(error: unknown): RfaasError & { status: number } {
  if (error instanceof RfaasError) {
    return withStatus(error, error.status ?? statusOf[error.code] ?? 500)
  }
  const { statusCode, code, message } = error as { statusCode?: number; code?: string } & Error
  switch (code) {
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return withStatus(badRequest(message), 415)
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return withStatus(badRequest('the body is longer than this route takes'), 413)
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return withStatus(badRequest('body is empty, must be JSON'), 400)
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    const sentence = error instanceof SyntaxError ? `body is not valid JSON: ${message}` : message
    return withStatus(badRequest(sentence), statusCode)
  }
  // What went wrong inside is for the log; the client learns where to look.
  return withStatus(
    new RfaasError('ERR_RFAAS_INTERNAL', 'the manager failed inside: its log has the details'),
    500,
  )
}

function withStatus(error: RfaasError, status: number): RfaasError & { status: number } {
  const { code, message, field, allowed } = error
  const details = { status, ...(field && { field }), ...(allowed && { allowed }) }
  return new RfaasError(code, message, details) as RfaasError & { status: number }
}

export function badRequest(message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', message, { status: 400 })
}

export function bodyOf({ code, message, field, allowed }: RfaasError): ErrorBody {
  return { error: { code, message, ...(field && { field }), ...(allowed && { allowed }) } }
}
