// Requests for leases that are not granted yet, first come, first served. Most stay for no longer than
// one turn of the event loop.
import type { LeaseGrant, LeaseRequest } from '../../lib/control/schemas.js'
import type { Principal } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'
import type { Candidate, Demand, Scheduler } from '../schedulers/first-fit.js'
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

/** Which nodes must be left alone for a request that has to wait: those that could serve it if they
 * were empty. Whoever came later gets what is free on the others; so a large request is not overtaken
 * for ever by small ones, and one that nothing can serve holds up nobody. */
export function keptFor(
  demand: Demand,
  emptyNodes: readonly Candidate[],
  scheduler: Scheduler,
): string[] {
  const alone = emptyNodes.filter((node) => scheduler(demand, [node]) !== undefined)
  const kept = demand.nodes > 1 && scheduler(demand, emptyNodes) !== undefined ? emptyNodes : alone
  return kept.map(({ name }) => name)
}
