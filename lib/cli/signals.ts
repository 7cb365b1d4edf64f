// SIGINT and SIGTERM: the first one asks, the second one ends the process at once.
import { Interrupted } from './failure.js'

type StopSignal = 'SIGINT' | 'SIGTERM'
const stopSignals: readonly StopSignal[] = ['SIGINT', 'SIGTERM']

/** Resolves with the first stop signal. Call it before the work begins that it is to end. */
export function stopRequested(): Promise<StopSignal> {
  return new Promise((resolve) => {
    const listener = (signal: NodeJS.Signals): void => {
      for (const name of stopSignals) process.off(name, listener)
      resolve(signal as StopSignal)
    }
    for (const name of stopSignals) process.on(name, listener)
  })
}

/** Runs `work` with a signal that aborts when the user interrupts; `work` cleans up and throws. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const listener = (name: NodeJS.Signals): void => {
    for (const other of stopSignals) process.off(other, listener)
    controller.abort(new Interrupted(name as StopSignal))
  }
  for (const name of stopSignals) process.on(name, listener)
  try {
    const result = await work(controller.signal)
    controller.signal.throwIfAborted()
    return result
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error
  } finally {
    for (const name of stopSignals) process.off(name, listener)
  }
}
