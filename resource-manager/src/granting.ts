// Granting: requests wait in a line until the nodes have what they ask for. Most do not wait at all.
import { isLive } from '../../lib/control/lease-states.js'
import type { Logger } from '../../lib/control/log.js'
import type { Principal } from '../../lib/control/principal.js'
import type { LeaseGrant, LeaseRequest } from '../../lib/control/schemas.js'
import type { RfaasError } from '../../lib/errors.js'
import { fits, placeOn, type Candidate, type Demand } from '../schedulers/scheduler.js'
import type { PlacedPart, Scheduler, Usable } from '../schedulers/scheduler.js'
import type { LeaseRecord } from '../stores/store.js'
import { newLeaseId, partId } from './leases.js'
import { Kept, Queue, type Waiting } from './queue.js'
import { quotaRefusal, withinQuota } from './quotas.js'
import { hungUp, leaseEnded, noCapacity } from './refusals.js'
import type { State } from './state.js'
import { leaseGrant, type SignClaims } from './views.js'

const mostWaitingPerTenant = 256

export interface GrantingOptions {
  scheduler: Scheduler
  sign: SignClaims
  logger: Logger
}

export class Granting {
  readonly #state: State
  readonly #options: GrantingOptions
  readonly #queue = new Queue(mostWaitingPerTenant)

  constructor(state: State, options: GrantingOptions) {
    this.#state = state
    this.#options = options
  }

  get waiting(): number {
    return this.#queue.length
  }

  get nextDeadlineMs(): number | undefined {
    return this.#queue.nextDeadlineMs
  }

  /** The lease, at once or within the time that the request may wait. `caller` aborts when nobody
   * waits for the answer any more. */
  async request(
    principal: Principal,
    request: LeaseRequest,
    caller: AbortSignal,
  ): Promise<LeaseGrant> {
    const { tenant } = principal
    const { requestId, waitMs = 0 } = request
    if (requestId !== undefined) {
      const granted = this.#state.leases.requested(tenant, requestId)
      if (granted !== undefined) {
        await this.#state.settled()
        return this.grantOf(granted[0]!.lease)
      }
      const repeated = this.#queue.find(tenant, requestId)
      if (repeated !== undefined) return this.#outcomeFor(repeated, caller)
    }
    const never = quotaRefusal(principal, request, { leases: 0, cores: 0, memoryBytes: 0 })
    if (never !== undefined) throw never
    const waiting = this.#queue.add(principal, request, this.#state.clock.now())
    const outcome = this.#outcomeFor(waiting, caller)
    this.serve()
    if (waitMs === 0 && this.#queue.has(waiting)) this.#refuse(waiting)
    return outcome
  }

  /** Gives what is free to those who wait, in order. */
  serve(): void {
    const { pool } = this.#state.nodes
    const kept = new Kept(pool)
    const usable = (node: Candidate): boolean => !kept.has(node)
    const nowMs = this.#state.clock.now()
    for (const waiting of this.#queue) {
      const { principal, request } = waiting
      if (!withinQuota(principal, request, this.#state.leases.holding(principal.tenant))) continue
      const demand = demandOf(request, nowMs)
      if (kept.allFor(demand)) continue
      const placement = this.#place(demand, request.node, usable)
      if (placement !== undefined) {
        this.#queue.remove(waiting)
        waiting.settle(this.#grantTo(waiting, placement))
        continue
      }
      kept.keep(demand, request.node)
      if (kept.everything) return
    }
  }

  /** `only`: nowhere else. */
  #place(demand: Demand, only: string | undefined, usable: Usable): PlacedPart[] | undefined {
    const { pool } = this.#state.nodes
    if (only === undefined) return this.#options.scheduler(demand, pool, usable)
    const node = pool.get(only)
    if (node === undefined || !fits(demand, node) || !usable(node)) return undefined
    return placeOn(node, demand)
  }

  async #grantTo(waiting: Waiting, placement: readonly PlacedPart[]): Promise<LeaseGrant> {
    const { principal, request } = waiting
    const id = newLeaseId()
    const epoch = this.#state.nextEpoch()
    const nowMs = this.#state.clock.now()
    const parts = placement.map(({ node, cores, memoryBytes }, part): LeaseRecord => {
      const job = this.#state.nodes.get(node)?.job
      return {
        id: partId(id, part, placement.length),
        lease: id,
        part,
        state: 'granted',
        tenant: principal.tenant,
        node,
        cores,
        memoryBytes,
        epoch,
        grantedAtMs: nowMs,
        expiresAtMs: nowMs + request.durationMs,
        ...(job !== undefined && { job }),
        ...(request.requestId === undefined ? {} : { requestId: request.requestId }),
      }
    })
    const durable = this.#state.change({ leases: parts, epoch })
    this.#prepare(request, parts)
    await durable
    const on = parts.map(({ node, cores }) => ({ node, cores }))
    this.#options.logger.info({ lease: id, tenant: principal.tenant, on }, 'lease granted')
    // Nobody will ever know of it; with a requestId the caller may come back and ask.
    if (waiting.callers === 0 && request.requestId === undefined) {
      await this.#state.end(parts, 'release')
      throw hungUp()
    }
    return this.grantOf(id)
  }

  /** The nodes need not wait for the disk, nor for the client: should the lease not come about, they
   * will have started a few workers in vain. Those over RDMA cannot start ahead. */
  #prepare({ executor, hostId }: LeaseRequest, parts: readonly LeaseRecord[]): void {
    const { nodes } = this.#state
    if (executor?.provider !== 'shm') return
    if (!parts.every(({ node }) => nodes.get(node)?.hostId === hostId)) return
    for (const { id, node, cores, memoryBytes } of parts) {
      nodes.tell(node, 'prepare', { lease: id, executor, cores, memoryBytes })
    }
  }

  #outcomeFor(waiting: Waiting, caller: AbortSignal): Promise<LeaseGrant> {
    waiting.callers += 1
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        waiting.callers -= 1
        if (waiting.callers === 0 && this.#queue.has(waiting)) {
          this.#queue.remove(waiting)
          this.serve()
        }
        reject(hungUp())
      }
      caller.addEventListener('abort', leave, { once: true })
      waiting.outcome
        .finally(() => caller.removeEventListener('abort', leave))
        .then(resolve, reject)
      if (caller.aborted) leave()
    })
  }

  #refuse(waiting: Waiting): void {
    const { principal, request, sinceMs } = waiting
    this.#queue.remove(waiting)
    const waitedMs = request.waitMs === undefined ? 0 : this.#state.clock.now() - sinceMs
    waiting.refuse(
      quotaRefusal(principal, request, this.#state.leases.holding(principal.tenant)) ??
        noCapacity(request, this.#state.nodes, waitedMs),
    )
  }

  /** Refuses those who have waited for as long as they would; false when there are none. */
  refuseLate(nowMs: number): boolean {
    const late = this.#queue.due(nowMs)
    for (const waiting of late) this.#refuse(waiting)
    return late.length > 0
  }

  refuseAll(error: RfaasError): void {
    for (const waiting of this.#queue) {
      this.#queue.remove(waiting)
      waiting.refuse(error)
    }
  }

  /** What the client of a lease gets; throws when none of it is live. */
  grantOf(id: string): LeaseGrant {
    const parts = this.#state.leases.get(id)!
    if (!parts.some(({ state }) => isLive(state))) throw leaseEnded(parts)
    return leaseGrant(parts, (name) => this.#state.nodes.get(name), this.#options.sign)
  }
}

function demandOf(request: LeaseRequest, nowMs: number): Demand {
  const { cores, memoryBytes, nodes = 1, durationMs, hostId } = request
  return { cores, memoryBytes, nodes, untilMs: nowMs + durationMs, hostId }
}
