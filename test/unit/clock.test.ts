import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { SteadyClock } from '../../lib/control/clock.js'

afterEach(() => {
  vi.useRealTimers()
})

const hour = 3_600_000

function setWallClock(nowMs: number): void {
  vi.useFakeTimers({ toFake: ['Date'], now: nowMs })
}

describe('the clock of leases', () => {
  it('starts as the wall clock and goes on by itself', async () => {
    const before = Date.now()
    const clock = new SteadyClock()
    const first = clock.now()
    expect(first).toBeGreaterThanOrEqual(before)
    expect(first).toBeLessThanOrEqual(Date.now())
    await delay(20)
    expect(clock.now()).toBeGreaterThanOrEqual(first + 19)
    expect(Number.isInteger(clock.now())).toBe(true)
  })

  it.each([hour, -hour])('does not follow when the wall clock is set by %d ms', (jump) => {
    const clock = new SteadyClock()
    const before = clock.now()
    setWallClock(Date.now() + jump)
    expect(Math.abs(clock.now() - before)).toBeLessThan(hour / 2)
  })

  it('goes on in the next process of the same boot, and starts anew in another boot', () => {
    const { anchor } = new SteadyClock()
    const before = new SteadyClock(anchor).now()
    setWallClock(Date.now() + hour)
    expect(new SteadyClock(anchor).now() - before).toBeLessThan(hour / 2)
    const rebooted = new SteadyClock({ ...anchor, bootId: 'another' })
    expect(rebooted.now() - before).toBeGreaterThan(hour / 2)
    expect(rebooted.anchor.bootId).toBe(anchor.bootId)
  })
})
