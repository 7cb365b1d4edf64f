// The clients of a simulation: each task leases cores, runs call after call on all of them, and goes on
// with another lease when one ends, until its work is done or nobody gives it a lease in time.
import type { Principal } from '../../lib/control/principal.js'
import type { LeaseGrant } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'
import type { Manager } from '../src/manager.js'
import type { Holder, HarvestedNode } from './harvested-node.js'
import type { Tally } from './tally.js'
import type { VirtualTime } from './virtual-time.js'
import type { Work } from './work.js'
import type { Task } from './workload.js'

export interface ClientOptions {
  leaseMs: number
  /** From a grant to the first call. */
  coldStartMs: number
  callMs: number
  /** How long a request for a lease waits. */
  waitMs: number
}

export interface World {
  manager: Manager
  time: VirtualTime
  tally: Tally
  work: Work
  node(name: string): HarvestedNode
}

// A tenant may have so many requests waiting and no more; these are different ones.
const tenants = Array.from({ length: 200 }, (_, i): Principal => {
  return { tenant: `t${i}`, role: 'tenant', keyId: `t${i}` }
})

export class Client {
  readonly #world: World
  readonly #options: ClientOptions
  readonly #task: Task
  readonly #principal: Principal
  /** Calls on each core that are still to run. */
  #callsLeft: number

  constructor(task: Task, index: number, options: ClientOptions, world: World) {
    this.#task = task
    this.#options = options
    this.#world = world
    this.#principal = tenants[index % tenants.length]!
    this.#callsLeft = Math.ceil(task.workMs / options.callMs)
    this.#request()
  }

  #request(): void {
    const { manager, time, tally, work } = this.#world
    const { leaseMs, coldStartMs, callMs, waitMs } = this.#options
    const { cores, memoryBytes, nodes } = this.#task
    const calls = Math.min(this.#callsLeft, Math.floor((leaseMs - coldStartMs) / callMs))
    const durationMs = coldStartMs + calls * callMs
    const askedMs = time.now()
    const request = { cores, memoryBytes, nodes, durationMs, waitMs }
    const answered = manager.grant(this.#principal, request).then(
      (grant) => {
        tally.granted(time.now() - askedMs, grant.lease.parts.length)
        new Tenure(grant, calls, this)
      },
      (error: unknown) => {
        if (!(error instanceof RfaasError) || error.code !== 'ERR_RFAAS_NO_CAPACITY') throw error
        tally.refused(this.#callsLeft * callMs * cores)
      },
    )
    work.track(answered)
  }

  get world(): World {
    return this.#world
  }

  get options(): ClientOptions {
    return this.#options
  }

  get cores(): number {
    return this.#task.cores
  }

  get principal(): Principal {
    return this.#principal
  }

  /** A lease is over, and so many calls ran on each of its cores. */
  goOn(calls: number): void {
    this.#callsLeft -= calls
    if (this.#callsLeft > 0) this.#request()
  }
}

/** A lease that a client has: as many calls one after the other as it is meant for. All its cores call in
 * step. */
class Tenure implements Holder {
  readonly #client: Client
  readonly #grant: LeaseGrant
  readonly #calls: number
  readonly #grantedMs: number
  #stopWork: () => void
  #over = false

  constructor(grant: LeaseGrant, calls: number, client: Client) {
    const { time, node, tally } = client.world
    const { coldStartMs, callMs } = client.options
    this.#client = client
    this.#grant = grant
    this.#calls = calls
    this.#grantedMs = time.now()
    tally.leaseBegins(client.cores, this.#grantedMs)
    for (const part of grant.lease.parts) node(part.node).hold(part.id, this)
    this.#stopWork = time.after(coldStartMs + calls * callMs, () => this.#end(calls))
  }

  /** Running calls may finish within the notice; the others go to the next lease. */
  revoking(noticeMs: number): void {
    if (this.#over) return
    this.#over = true
    this.#stopWork()
    const { time, tally } = this.#client.world
    const { coldStartMs, callMs } = this.#client.options
    const { cores } = this.#client
    const workedMs = time.now() - this.#grantedMs - coldStartMs
    const done = Math.max(0, Math.floor(workedMs / callMs))
    // Before the first call nothing runs.
    const leftMs = workedMs < 0 ? 0 : (done + 1) * callMs - workedMs
    const running = workedMs < 0 ? 0 : 1
    const saved = leftMs <= noticeMs
    tally.preempted({
      lost: saved ? 0 : running * cores,
      moved: (this.#calls - done - running) * cores,
    })
    time.after(Math.min(leftMs, noticeMs), () => this.#end(done + (saved ? running : 0)))
  }

  #end(calls: number): void {
    this.#over = true
    const { manager, tally, time, work } = this.#client.world
    const { cores } = this.#client
    const { callMs } = this.#client.options
    tally.leaseEnds(cores, this.#grantedMs, time.now(), calls, callMs)
    work.track(manager.release(this.#client.principal, this.#grant.lease.id))
    this.#client.goOn(calls)
  }
}
