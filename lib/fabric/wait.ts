// One pending wait: settles once, by its event, a deadline, an abort or a close.
import { addAbortListener } from 'node:events'

import { invalidArgument, RfaasError } from '../errors.js'
import { checkTimeout } from './checks.js'

export interface WaitOptions {
  /** Milliseconds after which the wait fails with ERR_RFAAS_DEADLINE. Default: none. */
  timeoutMs?: number
  /** Aborting makes the wait fail with ERR_RFAAS_ABORTED; its `cause` is the signal's reason. */
  signal?: AbortSignal
}

export interface Wait<T> {
  readonly promise: Promise<T>
  resolve(value: T): void
  reject(error: RfaasError): void
}

/** Throws if an option is wrong or the signal already aborted: before any work is begun. */
export function checkWait(what: string, options: WaitOptions): WaitOptions {
  const { signal } = options
  checkTimeout('timeoutMs', options.timeoutMs)
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw invalidArgument('signal', signal, 'an AbortSignal')
  }
  if (signal?.aborted === true) throw abortedError(what, signal)
  return options
}

/** `end` runs when the wait settles, before its promise. */
export function startWait<T>(what: string, options: WaitOptions, end: () => void): Wait<T> {
  const { signal, timeoutMs = Infinity } = checkWait(what, options)
  let settled = false
  let timer: NodeJS.Timeout | undefined
  let listener: Disposable | undefined
  const settle = (act: () => void) => {
    if (settled) return
    settled = true
    clearTimeout(timer)
    listener?.[Symbol.dispose]()
    end()
    act()
  }
  let resolve!: (value: T) => void
  let reject!: (error: RfaasError) => void
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = (value) => settle(() => onResolve(value))
    reject = (error) => settle(() => onReject(error))
  })
  if (timeoutMs !== Infinity) {
    timer = setTimeout(() => {
      reject(new RfaasError('ERR_RFAAS_DEADLINE', `${what}: nothing within ${timeoutMs} ms`))
    }, timeoutMs)
  }
  if (signal !== undefined) {
    listener = addAbortListener(signal, () => reject(abortedError(what, signal)))
  }
  return { promise, resolve, reject }
}

function abortedError(what: string, signal: AbortSignal): RfaasError {
  return new RfaasError('ERR_RFAAS_ABORTED', `${what}: aborted`, { cause: signal.reason })
}
