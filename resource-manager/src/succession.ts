// What time it is for leases when a manager starts, or takes over. Leases are measured by the clock of who
// leads, and the wall clocks of two hosts may differ: the successor goes on from where the other one was.
import { SteadyClock, type Clock } from '../../lib/control/clock.js'
import type { Snapshot } from '../stores/store.js'

/** A sign of life of the leader before. */
export interface Sign {
  revision: string
  /** What its clock showed, at most a term's time before etcd had it. */
  nowMs: number
  /** By our own clock: etcd had it between the two. */
  notBeforeMs: number | undefined
  notAfterMs: number
}

/** As long as a lease holds cores, time goes on as it did: the wall clock may have been set since. */
export function clockAfter({ clock, leases }: Snapshot): SteadyClock {
  const held = leases.some(({ state }) => state !== 'closed')
  return new SteadyClock(held ? clock : undefined)
}

/** In the same boot of the same host: the same clock. Else the wall clock, as far as it can be what the
 * other one shows now. */
export function clockAfterLeader(
  snapshot: Snapshot,
  sign: Sign | undefined,
  own: Clock,
  ttlMs: number,
): SteadyClock {
  const next = clockAfter(snapshot)
  const { clock } = snapshot
  if (sign === undefined || next.anchor.bootId === clock?.bootId) return next
  const nowMs = own.now()
  const least = sign.nowMs + nowMs - sign.notAfterMs
  const most = sign.nowMs + ttlMs + nowMs - (sign.notBeforeMs ?? -Infinity)
  const { bootId, offsetMs } = next.anchor
  const wallMs = next.now()
  return new SteadyClock({
    bootId,
    offsetMs: offsetMs + Math.min(Math.max(wallMs, least), most) - wallMs,
  })
}
