// Leases: the book of all that are not forgotten yet. A lease is made of parts, one per node; each
// part is a record with a state of its own.
import { randomBytes } from 'node:crypto'
import { isLive, leaseStates } from '../../lib/control/lease-states.js'
import type { LeaseState } from '../../lib/control/schemas.js'
import type { LeaseRecord } from '../stores/store.js'
import { Deadlines } from './deadlines.js'

/** What the leases of a tenant hold, those that are over included until their nodes confirm. */
export interface Holding {
  leases: number
  cores: number
  memoryBytes: number
}

interface Lease {
  /** In order. */
  parts: LeaseRecord[]
  /** Parts that hold cores. */
  open: number
}

/** `l-` and 80 random bits in base 32: not to be guessed, short enough to be typed. */
export function newLeaseId(): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'
  let id = ''
  for (const byte of randomBytes(16)) id += alphabet.charAt(byte & 31)
  return `l-${id}`
}

/** A part has its lease's id when it is the only one. */
export function partId(lease: string, part: number, parts: number): string {
  return parts === 1 ? lease : `${lease}.${part}`
}

/** Every lease that holds cores, and the most recent closed ones so that they can be looked up. */
export class LeaseBook {
  readonly #leases = new Map<string, Lease>()
  readonly #parts = new Map<string, LeaseRecord>()
  /** Ids of leases by the tenants' request ids. */
  readonly #requests = new Map<string, string>()
  readonly #holdings = new Map<string, Holding>()
  /** When live parts expire, or their notice ends. */
  readonly #deadlines = new Deadlines()
  /** Leases of which no part holds cores, in order of closing. */
  readonly #closed = new Set<string>()
  readonly #maxClosed: number

  constructor(maxClosed: number) {
    this.#maxClosed = maxClosed
  }

  /** The parts of a lease, in order. */
  get(id: string): readonly LeaseRecord[] | undefined {
    return this.#leases.get(id)?.parts
  }

  part(id: string): LeaseRecord | undefined {
    return this.#parts.get(id)
  }

  requested(tenant: string, requestId: string): readonly LeaseRecord[] | undefined {
    const id = this.#requests.get(requestKey(tenant, requestId))
    return id === undefined ? undefined : this.get(id)
  }

  /** Each lease as its parts, in order of their grants. */
  *all(): Generator<readonly LeaseRecord[]> {
    for (const { parts } of this.#leases.values()) yield parts
  }

  holding(tenant: string): Holding {
    return this.#holdings.get(tenant) ?? { leases: 0, cores: 0, memoryBytes: 0 }
  }

  get nextDeadlineMs(): number | undefined {
    return this.#deadlines.next?.atMs
  }

  /** Live parts whose time has come. */
  due(nowMs: number): LeaseRecord[] {
    return this.#deadlines.due(nowMs).map((id) => this.#parts.get(id)!)
  }

  countByState(): Map<LeaseState, number> {
    const counts = new Map(leaseStates.map((state) => [state, 0]))
    for (const { state } of this.#parts.values()) counts.set(state, counts.get(state)! + 1)
    return counts
  }

  /** Adds or replaces a part; returns the ids of the parts that are forgotten in exchange. */
  put(record: LeaseRecord): string[] {
    const held = this.#parts.get(record.id)
    this.#parts.set(record.id, record)
    let lease = this.#leases.get(record.lease)
    if (lease === undefined) this.#leases.set(record.lease, (lease = { parts: [], open: 0 }))
    lease.parts[record.part] = record
    if (record.requestId !== undefined) {
      this.#requests.set(requestKey(record.tenant, record.requestId), record.lease)
    }
    const dueMs = deadlineOf(record)
    if (dueMs === undefined) this.#deadlines.delete(record.id)
    else this.#deadlines.set(record.id, dueMs)

    const before = held !== undefined && held.state !== 'closed' ? 1 : 0
    const after = record.state !== 'closed' ? 1 : 0
    this.#count(lease, record, after - before)
    if (lease.open === 0) this.#closed.add(record.lease)
    else this.#closed.delete(record.lease)
    return this.#forget()
  }

  #count(lease: Lease, { tenant, cores, memoryBytes }: LeaseRecord, change: number): void {
    if (change === 0) return
    const holding = this.#holdings.get(tenant) ?? { leases: 0, cores: 0, memoryBytes: 0 }
    const before = lease.open
    lease.open += change
    if (before === 0 || lease.open === 0) holding.leases += change
    holding.cores += change * cores.length
    holding.memoryBytes += change * memoryBytes
    if (holding.leases === 0) this.#holdings.delete(tenant)
    else this.#holdings.set(tenant, holding)
  }

  #forget(): string[] {
    const forgotten: string[] = []
    for (const id of this.#closed) {
      if (this.#closed.size <= this.#maxClosed) break
      this.#closed.delete(id)
      for (const { id: part, tenant, requestId } of this.get(id) ?? []) {
        this.#parts.delete(part)
        if (requestId !== undefined) this.#requests.delete(requestKey(tenant, requestId))
        forgotten.push(part)
      }
      this.#leases.delete(id)
    }
    return forgotten
  }
}

/** When something happens to a live part by itself. */
function deadlineOf({ state, expiresAtMs, revokeAtMs }: LeaseRecord): number | undefined {
  if (!isLive(state)) return undefined
  return state === 'revoking' ? Math.min(expiresAtMs, revokeAtMs ?? 0) : expiresAtMs
}

/** Neither may contain a space. */
function requestKey(tenant: string, requestId: string): string {
  return `${tenant} ${requestId}`
}
