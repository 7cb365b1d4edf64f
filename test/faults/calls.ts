// Calls whose end is watched. The first rule of the matrix: no promise ever hangs.
import { setTimeout as sleep } from 'node:timers/promises'

import { RfaasError, type Functions, type InvokeOptions } from '../../lib/index.js'

/** How late somebody may learn of a deadline on a busy machine. */
export const slackMs = 10_000

/** A deadline for calls with which nothing is wrong, on however slow a machine. */
export const patienceMs = 20_000

/** In which a call with this deadline has to have ended. */
export const outcomeTimeoutMs = (timeoutMs: number): number => timeoutMs + slackMs

export interface Outcome {
  /** `ok`, or the code of the error. */
  code: string
  message: string
  /** Of an error: false when the function certainly did not run. */
  mayHaveRun: boolean | undefined
  result: Uint8Array | undefined
  ms: number
}

/** Resolves with how the call ended; rejects if it did not end by its deadline and a little. */
export async function outcomeOf(call: Promise<Uint8Array>, timeoutMs: number): Promise<Outcome> {
  const began = performance.now()
  const since = (): number => performance.now() - began
  const settled = call.then(
    (result): Outcome => {
      return { code: 'ok', message: '', mayHaveRun: undefined, result, ms: since() }
    },
    (error: unknown): Outcome => {
      if (!(error instanceof RfaasError)) throw error
      const { code, message, mayHaveRun } = error
      return { code, message, mayHaveRun, result: undefined, ms: since() }
    },
  )
  const stop = new AbortController()
  const hung = sleep(outcomeTimeoutMs(timeoutMs), undefined, { signal: stop.signal }).then(() => {
    throw new Error(`a call with a deadline of ${timeoutMs} ms did not settle`)
  })
  hung.catch(() => undefined)
  try {
    return await Promise.race([settled, hung])
  } finally {
    stop.abort()
  }
}

export function invoke(
  functions: Functions,
  name: string,
  input: Uint8Array,
  { timeoutMs = patienceMs, ...options }: InvokeOptions = {},
): Promise<Outcome> {
  return outcomeOf(functions.invoke(name, input, { ...options, timeoutMs }), timeoutMs)
}

export const word = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)

/** So many calls that each sleep on a worker. */
export function sleepers(
  functions: Functions,
  count: number,
  sleepMs: number,
  timeoutMs = patienceMs,
): Promise<Outcome[]> {
  const input = word(sleepMs)
  return Promise.all(
    Array.from({ length: count }, () => invoke(functions, 'sleep_ms', input, { timeoutMs })),
  )
}

/** Resolves when every slot of every worker answers again; with the time that it took. */
export async function recovered(functions: Functions, withinMs = 30_000): Promise<number> {
  const began = performance.now()
  for (;;) {
    const outcomes = await sleepers(functions, 8 * functions.workers, 1, patienceMs)
    if (outcomes.every(({ code }) => code === 'ok')) return performance.now() - began
    if (performance.now() - began > withinMs) throw new Error(`still ${summary(outcomes)}`)
  }
}

/** `3 ok, 1 ERR_RFAAS_WORKER_LOST`. */
export function summary(outcomes: readonly Outcome[]): string {
  const counts = new Map<string, number>()
  for (const { code } of outcomes) counts.set(code, (counts.get(code) ?? 0) + 1)
  return [...counts].map(([code, count]) => `${count} ${code}`).join(', ')
}

/** A steady stream of echoes, so that a pause or a failure cannot go unseen. */
export class Traffic {
  readonly failures: Outcome[] = []
  /** Calls that were answered, rightly. */
  answered = 0
  /** Longest time without an answer. */
  longestGapMs = 0
  #lastAt = performance.now()
  #stopped = false
  readonly #lanes: Promise<void>[]

  constructor(functions: Functions, { lanes = 2, timeoutMs = patienceMs } = {}) {
    this.#lanes = Array.from({ length: lanes }, () => this.#run(functions, timeoutMs))
    for (const lane of this.#lanes) lane.catch(() => undefined)
  }

  async stop(): Promise<this> {
    this.#stopped = true
    await Promise.all(this.#lanes)
    this.#measureGap()
    return this
  }

  /** Resolves with the next answer. */
  async next(withinMs = patienceMs): Promise<void> {
    const { answered } = this
    const deadline = performance.now() + withinMs
    while (this.answered === answered) {
      if (performance.now() > deadline) throw new Error(`no call was answered for ${withinMs} ms`)
      await sleep(1)
    }
  }

  async #run(functions: Functions, timeoutMs: number): Promise<void> {
    for (let i = 0; !this.#stopped; i += 1) {
      const sent = word(i)
      const outcome = await invoke(functions, 'echo', sent, { timeoutMs })
      if (outcome.code !== 'ok') this.failures.push(outcome)
      else if (Buffer.compare(outcome.result ?? sent, sent) !== 0) throw new Error('a wrong echo')
      else {
        this.#measureGap()
        this.answered += 1
      }
      await sleep(2)
    }
  }

  #measureGap(): void {
    const now = performance.now()
    this.longestGapMs = Math.max(this.longestGapMs, now - this.#lastAt)
    this.#lastAt = now
  }
}
