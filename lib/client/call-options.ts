// What a caller may say about a call.
import { invalidArgument } from '../errors.js'

/** A call's time when the caller sets none. */
export const defaultTimeoutMs = 30_000
const maxTimeoutMs = 3_600_000

export interface CallOptions {
  /** Default 30 s, at most an hour. */
  timeoutMs?: number
}

export interface InvokeOptions extends CallOptions {
  /** Stops the waiting. The function may still run, and its result is dropped. */
  signal?: AbortSignal
}

export interface MapOptions extends InvokeOptions {
  /** Calls in flight at once; default: as many as the workers have slots. */
  concurrency?: number
}

/** In microseconds. */
export function timeoutOf({ timeoutMs = defaultTimeoutMs }: CallOptions): number {
  if (!(timeoutMs > 0 && timeoutMs <= maxTimeoutMs)) {
    throw invalidArgument('timeoutMs', timeoutMs, `a number above 0 and at most ${maxTimeoutMs}`)
  }
  return Math.ceil(timeoutMs * 1000)
}
