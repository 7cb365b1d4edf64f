// What a caller may say about a call.
import { invalidArgument } from '../errors.js'

/** A call's time when the caller sets none. */
export const defaultTimeoutMs = 30_000
const maxTimeoutMs = 3_600_000

// The worker enforces a deadline and says so; only if it cannot does the client, a little later.
export const graceUs = 50_000

export interface CallOptions {
  /** Default 30 s, at most an hour. */
  timeoutMs?: number
  /** The function may run more than once: a call whose worker is lost while it may have run is sent
   * to another worker until its deadline. Default false: its error says that nobody knows. */
  idempotent?: boolean
}

export interface InvokeOptions extends CallOptions {
  /** Stops the waiting. The function may still run, and its result is dropped. */
  signal?: AbortSignal
}

export interface MapOptions extends InvokeOptions {
  /** Calls in flight at once; default: as many as the workers have slots. */
  concurrency?: number
}

export interface RecordOptions extends MapOptions {
  /** Of one input. */
  inputBytes: number
  /** Room for one result. */
  outputBytes: number
}

/** In microseconds. */
export function timeoutOf({ timeoutMs = defaultTimeoutMs }: CallOptions): number {
  if (!(timeoutMs > 0 && timeoutMs <= maxTimeoutMs)) {
    throw invalidArgument('timeoutMs', timeoutMs, `a number above 0 and at most ${maxTimeoutMs}`)
  }
  return Math.ceil(timeoutMs * 1000)
}

/** What was agreed on with the executor. */
export interface FunctionsSettings {
  slots: number
  payloadBytes: number
  outputBytes: number
  /** How long the event loop polls for results after the last one before it sleeps. */
  hotWaitMs: number
}
