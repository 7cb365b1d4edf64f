// Leases: the book of all that are not forgotten yet.
import { randomBytes } from 'node:crypto'
import { isLive, leaseStates } from '../../lib/control/lease-states.js'
import type { LeaseState } from '../../lib/control/schemas.js'
import type { LeaseRecord } from '../stores/store.js'

/** `l-` and 80 random bits in base 32: not to be guessed, short enough to be typed. */
export function newLeaseId(): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'
  let bits = BigInt(`0x${randomBytes(10).toString('hex')}`)
  let id = ''
  for (let digit = 0; digit < 16; digit += 1) {
    id += alphabet.charAt(Number(bits & 31n))
    bits >>= 5n
  }
  return `l-${id}`
}

/** Every lease that holds cores, and the most recent closed ones so that they can be looked up. */
export class LeaseBook {
  readonly #leases = new Map<string, LeaseRecord>()
  /** Not closed, by node: what placement and the nodes ask for. */
  readonly #holding = new Map<string, Map<string, LeaseRecord>>()
  /** In order of closing. */
  readonly #closed = new Set<string>()
  readonly #maxClosed: number

  constructor(maxClosed: number) {
    this.#maxClosed = maxClosed
  }

  get(id: string): LeaseRecord | undefined {
    return this.#leases.get(id)
  }

  all(): Iterable<LeaseRecord> {
    return this.#leases.values()
  }

  /** Leases that hold cores of a node, over ones included. */
  holding(node: string): Iterable<LeaseRecord> {
    return this.#holding.get(node)?.values() ?? []
  }

  /** Live leases whose time has come. */
  due(nowMs: number): LeaseRecord[] {
    const due: LeaseRecord[] = []
    for (const leases of this.#holding.values()) {
      for (const lease of leases.values()) {
        if (isLive(lease.state) && lease.expiresAtMs <= nowMs) due.push(lease)
      }
    }
    return due
  }

  /** When the next live lease expires. */
  nextExpiryMs(): number | undefined {
    let next: number | undefined
    for (const leases of this.#holding.values()) {
      for (const { state, expiresAtMs } of leases.values()) {
        if (isLive(state) && (next === undefined || expiresAtMs < next)) next = expiresAtMs
      }
    }
    return next
  }

  countByState(): Map<LeaseState, number> {
    const counts = new Map(leaseStates.map((state) => [state, 0]))
    for (const { state } of this.#leases.values()) counts.set(state, (counts.get(state) ?? 0) + 1)
    return counts
  }

  /** Adds or replaces; returns the ids of closed leases that are forgotten in exchange. */
  put(lease: LeaseRecord): string[] {
    this.#leases.set(lease.id, lease)
    let held = this.#holding.get(lease.node)
    if (lease.state !== 'closed') {
      if (held === undefined) this.#holding.set(lease.node, (held = new Map<string, LeaseRecord>()))
      held.set(lease.id, lease)
      return []
    }
    held?.delete(lease.id)
    this.#closed.add(lease.id)
    const forgotten: string[] = []
    for (const id of this.#closed) {
      if (this.#closed.size <= this.#maxClosed) break
      this.#closed.delete(id)
      this.#leases.delete(id)
      forgotten.push(id)
    }
    return forgotten
  }
}
