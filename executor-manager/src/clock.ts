// The resource manager's clock as this node hears it. Expiries in tokens are meant by it, and between
// its answers it is carried on by a clock that nobody can set.
import { SteadyClock, type Clock } from '../../lib/control/clock.js'

export class ManagerClock implements Clock {
  readonly #local = new SteadyClock()
  // Nothing was heard yet: the first answer decides.
  #aheadMs = -Infinity

  now(): number {
    return this.local() + this.#aheadMs
  }

  /** What `heard` wants to know of the moment in which the resource manager was asked. */
  local(): number {
    return this.#local.now()
  }

  /** It said `nowMs` some time between `askedAtMs` and now. What we thought stays if that can be, so
   * that slow answers change nothing; the first one counts as if it had been on its way back all the
   * time: a lease ends late by as much, never early. */
  heard(nowMs: number, askedAtMs: number): void {
    const least = nowMs - this.local()
    const most = nowMs - askedAtMs
    this.#aheadMs = Math.min(Math.max(this.#aheadMs, least), most)
  }
}
