// From the status of a call, or the errno of the fabric, to the error that the caller gets.
import { RfaasError, type ErrorCode } from '../errors.js'
import { native, type NativeCallStatus } from '../native.js'

const names = new Map<number, NativeCallStatus>(
  Object.entries(native.constants.callStatuses).map(([name, value]) => [
    value,
    name as NativeCallStatus,
  ]),
)

const codes: Readonly<Record<Exclude<NativeCallStatus, 'ok'>, ErrorCode>> = {
  functionError: 'ERR_RFAAS_FUNCTION',
  unknownFunction: 'ERR_RFAAS_UNKNOWN_FUNCTION',
  outputTooSmall: 'ERR_RFAAS_OUTPUT_TOO_SMALL',
  deadline: 'ERR_RFAAS_DEADLINE',
  leaseEnded: 'ERR_RFAAS_LEASE_ENDED',
  badRequest: 'ERR_RFAAS_PROTOCOL',
  workerLost: 'ERR_RFAAS_WORKER_LOST',
}

const fallback: Readonly<Record<Exclude<NativeCallStatus, 'ok'>, string>> = {
  functionError: 'the function failed without a message',
  unknownFunction: 'the package has no such function',
  outputTooSmall: 'the result does not fit the output',
  deadline: 'the deadline passed before the worker answered; the function may still have run',
  leaseEnded: 'the lease has ended; the call did not run',
  badRequest: 'the worker could not make sense of the request',
  workerLost: 'the worker ended before it answered; the call may or may not have run',
}

/** The error of a call to `name` that ended with `status`; `text` is what the worker said. */
export function callError(name: string, status: number, text: string): RfaasError {
  const known = names.get(status)
  if (known === undefined || known === 'ok') {
    return new RfaasError('ERR_RFAAS_PROTOCOL', `${name}: the worker sent unknown status ${status}`)
  }
  return new RfaasError(codes[known], `${name}: ${text === '' ? fallback[known] : text}`)
}

const errnos: Readonly<Record<number, [ErrorCode, string]>> = {
  [-9]: ['ERR_RFAAS_CLOSED', 'the functions are closed'], // EBADF
  [-11]: ['ERR_RFAAS_QUEUE_FULL', 'every slot of the worker is in use'], // EAGAIN
  [-16]: ['ERR_RFAAS_QUEUE_FULL', 'every slot of the worker is in use'], // EBUSY
  [-90]: ['ERR_RFAAS_PAYLOAD_TOO_LARGE', 'the payload is longer than a slot'], // EMSGSIZE
  [-107]: ['ERR_RFAAS_WORKER_LOST', 'the worker is not connected; the call did not run'], // ENOTCONN
}

/** The error of a call that could not be sent. */
export function sendError(name: string, errno: number): RfaasError {
  const [code, message] = errnos[errno] ?? ['ERR_RFAAS_FABRIC', 'the call could not be sent']
  return new RfaasError(code, `${name}: ${message}`, { errno, syscall: 'submit' })
}
