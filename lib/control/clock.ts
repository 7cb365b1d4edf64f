// Time that nobody can set. Leases are measured with it: a jump of the wall clock, by hand or by NTP,
// neither ends one early nor lengthens it.
import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'

export interface Clock {
  /** Unix time in whole milliseconds. Never goes back, never jumps ahead. */
  now(): number
}

/** Calls back once, when so much time has passed; what it returns calls that off. No process stays alive
 * for it. */
export type After = (delayMs: number, callback: () => void) => () => void

export const after: After = (delayMs, callback) => {
  const timer = setTimeout(callback, delayMs).unref()
  return () => clearTimeout(timer)
}

/** How Unix time and the boot clock were related when somebody looked. A process that is started
 * again in the same boot goes on from it, although the wall clock may have been set meanwhile. */
export interface ClockAnchor {
  bootId: string
  offsetMs: number
}

const lookEveryMs = 1000
// The uptime comes in hundredths of a second; a shorter sleep is none.
const noiseMs = 1000

/** The wall clock of one moment, carried on by the boot clock, which also runs while the machine is
 * suspended. */
export class SteadyClock implements Clock {
  readonly anchor: ClockAnchor
  #asleepMs = 0
  #lookedAtMs = -Infinity

  /** Goes on from `anchor` if that is of this boot, from the wall clock otherwise. */
  constructor(anchor?: ClockAnchor) {
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    this.anchor =
      anchor?.bootId === bootId ? anchor : { bootId, offsetMs: Date.now() - this.#bootMs() }
  }

  now(): number {
    return Math.floor(this.anchor.offsetMs + this.#bootMs())
  }

  /** Node reads the clock that stands still in suspend (to the nanosecond) and the uptime, which does
   * not (to the hundredth): the sleep is what they differ by. */
  #bootMs(): number {
    const awakeMs = monotonicMs()
    if (awakeMs - this.#lookedAtMs >= lookEveryMs) {
      this.#lookedAtMs = awakeMs
      const uptimeMs = uptime() * 1000
      // Read after the uptime, so that a pause between the two is not taken for sleep.
      const asleepMs = uptimeMs - monotonicMs()
      if (asleepMs > this.#asleepMs + noiseMs) this.#asleepMs = asleepMs
    }
    return awakeMs + this.#asleepMs
  }
}

/** Grows by itself in this boot, whichever process asks. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
