// Checks of what programs pass to the fabric, and the errors of native return codes.
import { getSystemErrorName } from 'node:util'

import { invalidArgument, RfaasError } from '../errors.js'

export function checkInteger(field: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw invalidArgument(field, value, `an integer from ${min} to ${max}`)
  }
  return value
}

export function checkBytes(field: string, value: unknown, max: number): Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalidArgument(field, value, 'a Uint8Array')
  if (value.byteLength > max) {
    throw invalidArgument(`${field}.byteLength`, value.byteLength, `at most ${max} on this device`)
  }
  return value
}

/** Milliseconds until a wait gives up; undefined or Infinity: never. */
export function checkTimeout(field: string, value: unknown): void {
  if (value === undefined || value === Infinity) return
  if (typeof value !== 'number' || !(value >= 0 && value <= 0x7fffffff)) {
    throw invalidArgument(field, value, 'milliseconds from 0 to 2147483647, or Infinity')
  }
}

export function closedError(what: string): RfaasError {
  return new RfaasError('ERR_RFAAS_CLOSED', `the ${what} is closed`)
}

/** The error for a negative return code of the data path. */
export function codeError(code: number, syscall: string): RfaasError {
  const name = getSystemErrorName(code)
  if (name === 'EBADF') return new RfaasError('ERR_RFAAS_CLOSED', `${syscall}: it is closed`)
  return new RfaasError('ERR_RFAAS_FABRIC', `${syscall}: ${explain(name)}`, {
    errno: code,
    syscall,
  })
}

function explain(name: string): string {
  switch (name) {
    case 'ENOTCONN':
      return 'ENOTCONN, the queue pair is not connected'
    case 'EMSGSIZE':
      return 'EMSGSIZE, more bytes than the queue pair takes inline or the device in one message'
    case 'EINVAL':
      return 'EINVAL, the device does not take such a request'
    default:
      return name
  }
}
