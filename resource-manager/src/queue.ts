// Requests for leases that are not granted yet, first come, first served. Most stay for no longer than
// one turn of the event loop.
import type { LeaseGrant, LeaseRequest } from '../../lib/control/schemas.js'
import type { Principal } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'
import { covers, type Pool } from '../schedulers/pool.js'
import type { Candidate, Demand, Room } from '../schedulers/scheduler.js'
import { Deadlines } from './deadlines.js'

export class Waiting {
  readonly id: string
  readonly principal: Principal
  readonly request: LeaseRequest
  readonly sinceMs: number
  /** Who waits for the answer: more than one when a request is repeated with its requestId. */
  callers = 0
  readonly outcome: Promise<LeaseGrant>
  readonly settle: (outcome: Promise<LeaseGrant>) => void

  constructor(id: string, principal: Principal, request: LeaseRequest, nowMs: number) {
    this.id = id
    this.principal = principal
    this.request = request
    this.sinceMs = nowMs
    let settle: (outcome: Promise<LeaseGrant>) => void
    this.outcome = new Promise((resolve) => (settle = resolve))
    this.settle = settle!
    // Everybody may have hung up.
    this.outcome.catch(() => undefined)
  }

  refuse(error: RfaasError): void {
    this.settle(Promise.reject(error))
  }
}

export class Queue {
  /** In order of arrival. */
  readonly #waiting = new Map<string, Waiting>()
  readonly #deadlines = new Deadlines()
  readonly #perTenant = new Map<string, number>()
  readonly #mostPerTenant: number
  #arrivals = 0

  constructor(mostPerTenant: number) {
    this.#mostPerTenant = mostPerTenant
  }

  get length(): number {
    return this.#waiting.size
  }

  get nextDeadlineMs(): number | undefined {
    return this.#deadlines.next?.atMs
  }

  add(principal: Principal, request: LeaseRequest, nowMs: number): Waiting {
    const { tenant } = principal
    const { waitMs = 0 } = request
    const others = this.#perTenant.get(tenant) ?? 0
    if (waitMs > 0 && others >= this.#mostPerTenant) {
      throw new RfaasError(
        'ERR_RFAAS_QUOTA',
        `${others} requests of tenant ${tenant} wait for a lease already: let some of them end first`,
        { status: 409, field: 'waitMs' },
      )
    }
    this.#perTenant.set(tenant, others + 1)
    this.#arrivals += 1
    const waiting = new Waiting(String(this.#arrivals), principal, request, nowMs)
    this.#waiting.set(waiting.id, waiting)
    this.#deadlines.set(waiting.id, nowMs + waitMs)
    return waiting
  }

  /** A request of the tenant that was made before with the same requestId. */
  find(tenant: string, requestId: string): Waiting | undefined {
    for (const waiting of this.#waiting.values()) {
      if (waiting.request.requestId === requestId && waiting.principal.tenant === tenant) {
        return waiting
      }
    }
    return undefined
  }

  has(waiting: Waiting): boolean {
    return this.#waiting.has(waiting.id)
  }

  remove(waiting: Waiting): void {
    if (!this.#waiting.delete(waiting.id)) return
    this.#deadlines.delete(waiting.id)
    const { tenant } = waiting.principal
    const others = this.#perTenant.get(tenant)! - 1
    if (others === 0) this.#perTenant.delete(tenant)
    else this.#perTenant.set(tenant, others)
  }

  /** Whose time is up. */
  due(nowMs: number): Waiting[] {
    return this.#deadlines.due(nowMs).map((id) => this.#waiting.get(id)!)
  }

  [Symbol.iterator](): Iterator<Waiting> {
    return this.#waiting.values()
  }
}

/** Which nodes must be left alone for requests that have to wait: those that could serve them if they
 * were empty. Whoever came later gets what is free on the others; so a large request is not overtaken
 * for ever by small ones, and one that nothing can serve holds up nobody. */
export class Kept {
  readonly #pool: Pool
  /** Nodes with room for one of these when they are empty. */
  readonly #rooms: Room[] = []
  readonly #names = new Set<string>()
  #all = false

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** `only`: the node that the request is limited to. */
  keep(demand: Demand, only: string | undefined): void {
    if (only !== undefined) {
      const node = this.#pool.get(only)
      if (node !== undefined && covers(node.capacity, demand)) this.#names.add(only)
    } else if (demand.nodes > 1 && this.#pool.couldServe(demand)) {
      this.#all = true
    } else if (!this.#rooms.some((room) => covers(demand, room))) {
      this.#rooms.push(demand)
    }
  }

  has({ name, capacity }: Candidate): boolean {
    return this.#all || this.#names.has(name) || this.#rooms.some((room) => covers(capacity, room))
  }

  get everything(): boolean {
    if (this.#all || this.#names.size === this.#pool.size) return true
    return this.#pool.everyCapacity((capacity) =>
      this.#rooms.some((room) => covers(capacity, room)),
    )
  }

  /** Every node on which this could be is kept already, as somebody waits for no more. */
  allFor(demand: Demand): boolean {
    return demand.nodes === 1 && this.#rooms.some((room) => covers(demand, room))
  }
}
