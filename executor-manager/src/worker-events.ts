// What a worker says on its descriptor 3, one event a line. A tenant's function can say the same.
import { Type, type Static } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import { UnconfinedEvent } from './sandbox.js'

const functionName = Type.String({ minLength: 1, maxLength: 127 })
const requestId = Type.String({ pattern: '^[0-9]{1,20}$' })
const nanoseconds = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const sentence = Type.String({ maxLength: 4096 })

const WorkerEvent = Type.Union([
  UnconfinedEvent,
  Type.Object({
    event: Type.Literal('ready'),
    address: Type.String({ minLength: 1, maxLength: 256 }),
    functions: Type.Array(functionName, { minItems: 1, maxItems: 4096, uniqueItems: true }),
  }),
  Type.Object({ event: Type.Literal('error'), message: sentence }),
  Type.Object({ event: Type.Literal('connected') }),
  Type.Object({ event: Type.Literal('disconnected') }),
  Type.Object({ event: Type.Literal('refused'), reason: sentence }),
  Type.Object({
    event: Type.Literal('served'),
    /** Answered since the last word of it. */
    calls: Type.Integer({ minimum: 0, maximum: 2 ** 40 }),
    /** Of those that were timed, from arrival to answer. */
    p50Ns: Type.Optional(nanoseconds),
    p99Ns: Type.Optional(nanoseconds),
  }),
  Type.Object({
    event: Type.Literal('running'),
    function: Type.Optional(functionName),
    requestId: Type.Optional(requestId),
  }),
  // From the launcher, when the worker has ended: the request that it started last, 0 for none.
  Type.Object({ event: Type.Literal('last-started'), requestId }),
  Type.Object({
    event: Type.Literal('timeout'),
    function: Type.Optional(functionName),
    requestId: Type.Optional(requestId),
  }),
])
export type WorkerEvent = Static<typeof WorkerEvent>
export type ServedCalls = Extract<WorkerEvent, { event: 'served' }>

/** The event of a line, or what is wrong with it. */
export function parseWorkerEvent(line: string): WorkerEvent | string {
  let event: unknown
  try {
    event = JSON.parse(line)
  } catch {
    return 'sent an event that is not JSON'
  }
  const finding = inspect(WorkerEvent, event)
  return finding === undefined ? (event as WorkerEvent) : 'sent an event that makes no sense'
}
