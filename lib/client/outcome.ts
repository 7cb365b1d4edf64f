// From the status of a call, or the errno of the fabric, to the error that the caller gets.
import { RfaasError, type ErrorCode } from '../errors.js'
import { native, type NativeCallStatus } from '../native.js'

const names = new Map<number, NativeCallStatus>(
  Object.entries(native.constants.callStatuses).map(([name, value]) => [
    value,
    name as NativeCallStatus,
  ]),
)

interface Meaning {
  code: ErrorCode
  /** When the worker said nothing more. */
  text: string
  mayHaveRun: boolean
}

const meanings: Readonly<Record<Exclude<NativeCallStatus, 'ok'>, Meaning>> = {
  functionError: {
    code: 'ERR_RFAAS_FUNCTION',
    text: 'the function failed without a message',
    mayHaveRun: true,
  },
  unknownFunction: {
    code: 'ERR_RFAAS_UNKNOWN_FUNCTION',
    text: 'the package has no such function',
    mayHaveRun: false,
  },
  outputTooSmall: {
    code: 'ERR_RFAAS_OUTPUT_TOO_SMALL',
    text: 'the result does not fit the output',
    mayHaveRun: true,
  },
  deadline: {
    code: 'ERR_RFAAS_DEADLINE',
    text: 'the deadline passed before the worker answered; the function may still have run',
    mayHaveRun: true,
  },
  leaseEnded: {
    code: 'ERR_RFAAS_LEASE_ENDED',
    text: 'the lease has ended; the call did not run',
    mayHaveRun: false,
  },
  badRequest: {
    code: 'ERR_RFAAS_PROTOCOL',
    text: 'the worker could not make sense of the request',
    mayHaveRun: false,
  },
  workerLost: {
    code: 'ERR_RFAAS_WORKER_LOST',
    text: 'the worker ended before it answered; the call may or may not have run',
    mayHaveRun: true,
  },
  leaseRevoked: {
    code: 'ERR_RFAAS_LEASE_REVOKED',
    text: 'the lease is being revoked; the call did not run',
    mayHaveRun: false,
  },
  notReceived: {
    code: 'ERR_RFAAS_WORKER_LOST',
    text: 'the worker was lost before it started the call; the call did not run',
    mayHaveRun: false,
  },
}

/** The error of a call to `name` that ended with `status`; `said` is what the worker said. `before`:
 * another worker may have run it. */
export function callError(name: string, status: number, said: string, before = false): RfaasError {
  const known = names.get(status)
  if (known === undefined || known === 'ok') {
    const message = `${name}: the worker sent unknown status ${status}`
    return new RfaasError('ERR_RFAAS_PROTOCOL', message, { mayHaveRun: true })
  }
  const { code, text, mayHaveRun } = meanings[known]
  const message = `${name}: ${said === '' ? text : said}`
  return new RfaasError(code, message, { mayHaveRun: mayHaveRun || before })
}

/** What the addon's data path returns, of errno(3). */
export const errnos = {
  closed: -9, // EBADF
  noSlot: -11, // EAGAIN
  slotTaken: -16, // EBUSY
  tooLong: -90, // EMSGSIZE
  inDoubt: -104, // ECONNRESET
  notConnected: -107, // ENOTCONN
} as const

const sendErrors: Readonly<Record<number, [ErrorCode, string]>> = {
  [errnos.closed]: ['ERR_RFAAS_CLOSED', 'the functions are closed'],
  [errnos.noSlot]: ['ERR_RFAAS_QUEUE_FULL', 'every slot of the worker is in use'],
  [errnos.slotTaken]: ['ERR_RFAAS_QUEUE_FULL', 'every slot of the worker is in use'],
  [errnos.tooLong]: ['ERR_RFAAS_PAYLOAD_TOO_LARGE', 'the payload is longer than a slot'],
  [errnos.notConnected]: ['ERR_RFAAS_WORKER_LOST', 'no worker is connected; the call did not run'],
}

/** The error of a call that could not be sent. */
export function sendError(name: string, errno: number): RfaasError {
  const [code, message] = sendErrors[errno] ?? ['ERR_RFAAS_FABRIC', 'the call could not be sent']
  const details = { errno, syscall: 'submit', mayHaveRun: false }
  return new RfaasError(code, `${name}: ${message}`, details)
}
