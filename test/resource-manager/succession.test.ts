// The clock of a successor on another host, or after a boot: it goes on from where the leader's was.
import { describe, expect, it } from 'vitest'
import type { Clock } from '../../lib/control/clock.js'
import { clockAfterLeader } from '../../resource-manager/src/succession.js'
import type { LeaseRecord, Snapshot } from '../../resource-manager/stores/store.js'

const ttlMs = 5000
const ownMs = 50_000
const own = { now: () => ownMs } as Clock
const held = { state: 'granted' } as LeaseRecord

function after(leaderMs: number): number {
  const snapshot = {
    clock: { bootId: 'another boot', offsetMs: 0 },
    leases: [held],
  } as unknown as Snapshot
  // Heard of 300 ms ago, between two looks that are 250 ms apart.
  const sign = {
    revision: '1',
    nowMs: leaderMs,
    notBeforeMs: ownMs - 550,
    notAfterMs: ownMs - 300,
  }
  return clockAfterLeader(snapshot, sign, own, ttlMs).now()
}

const hourMs = 3_600_000
/** The test itself takes time. */
const aMomentMs = 1000

describe('the clock of a successor', () => {
  it('is its wall clock where that can be what the leader would show now', () => {
    const wallMs = Date.now()
    const shown = after(wallMs - 300)
    expect(shown).toBeGreaterThanOrEqual(wallMs)
    expect(shown).toBeLessThan(wallMs + aMomentMs)
    // Its sign may have taken up to its time to be stored.
    expect(after(wallMs - 4000)).toBeGreaterThanOrEqual(wallMs)
  })

  it('does not stand behind the leader, however late its own wall clock is', () => {
    const leaderMs = Date.now() + hourMs
    const shown = after(leaderMs)
    expect(shown).toBeGreaterThanOrEqual(leaderMs + 300)
    expect(shown).toBeLessThan(leaderMs + 300 + aMomentMs)
  })

  it('is ahead of the leader by at most its timeout, however early its own wall clock is', () => {
    const leaderMs = Date.now() - hourMs
    const shown = after(leaderMs)
    expect(shown).toBeGreaterThanOrEqual(leaderMs + 300)
    expect(shown).toBeLessThan(leaderMs + 550 + ttlMs + aMomentMs)
  })

  it('is its wall clock where nothing was heard of a leader', () => {
    const snapshot = { clock: undefined, leases: [held] } as unknown as Snapshot
    const wallMs = Date.now()
    const shown = clockAfterLeader(snapshot, undefined, own, ttlMs).now()
    expect(shown).toBeGreaterThanOrEqual(wallMs)
    expect(shown).toBeLessThan(wallMs + aMomentMs)
  })
})
