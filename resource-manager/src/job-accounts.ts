// What the batch system charges for harvest jobs, against what leases had of it: the ledger says what a
// lease had on a node, the job says when that node was it. For each job leased and idle core-time add up
// to its elapsed time times its cores, whatever anybody says.
import type { Clock } from '../../lib/control/clock.js'
import type { Principal } from '../../lib/control/principal.js'
import type { JobUsage, JobUsageQuery, JobUsageReport } from '../../lib/control/report-schemas.js'
import { placeIn } from '../schedulers/sorted.js'
import type { SeenJob } from '../sources/source.js'
import type { JobRecord, LeaseRecord, Store } from '../stores/store.js'
import { requireOperator } from './access.js'
import type { State } from './state.js'

// A store need not take thousands of records at once.
const mostAtOnce = 250

/** What a part of a lease had. */
interface Share {
  tenant: string
  node: string
  cores: readonly number[]
  startMs: number
  endMs: number
}

export class JobAccounts {
  readonly #state: State
  readonly #store: Store
  readonly #clock: Clock

  constructor(state: State, store: Store, clock: Clock) {
    this.#state = state
    this.#store = store
    this.#clock = clock
  }

  /** See ManagedNodes.account. */
  async saw(jobs: readonly SeenJob[], agoMs: number): Promise<void> {
    const atMs = Math.round(this.#clock.now() - agoMs)
    const changed = this.#state.jobs.changes(jobs, atMs)
    const changes: Promise<void>[] = []
    for (let at = 0; at < changed.length; at += mostAtOnce) {
      changes.push(this.#state.change({ jobs: changed.slice(at, at + mostAtOnce) }))
    }
    await Promise.all(changes)
    this.#state.jobs.looked(atMs)
  }

  /** Of the jobs that had their cores at some time from `from` to `to`. */
  async usage(principal: Principal, { from, to }: JobUsageQuery): Promise<JobUsageReport> {
    requireOperator(principal)
    const fromMs = from === undefined ? 0 : Date.parse(from)
    const toMs = to === undefined ? Infinity : Date.parse(to)
    const { jobs, leases } = this.#state
    const accounts = Array.from(jobs.all(), (job) => new JobAccount(job, jobs.untilMs(job)))
      .filter(({ job, untilMs }) => untilMs >= fromMs && job.beginMs < toMs)
      .sort((a, b) => a.job.beginMs - b.job.beginMs)
    // Those that close while the ledger is read are in it as well.
    const open = new Map<string, LeaseRecord>()
    for (const part of Array.from(leases.all()).flat()) {
      if (part.state !== 'closed' && part.job !== undefined) open.set(part.id, part)
    }
    const nowMs = this.#clock.now()
    await this.#store.settled()

    const byNode = new Map<string, JobAccount[]>()
    for (const account of accounts) {
      const { node } = account.job
      byNode.set(node, [...(byNode.get(node) ?? []), account])
    }
    const add = (share: Share): void => {
      for (const account of overlapping(byNode.get(share.node) ?? [], share)) account.add(share)
    }
    const [first] = accounts
    if (first !== undefined) {
      const position = { closedMs: first.job.beginMs, id: '' }
      for await (const entry of this.#store.ledger(position, Number.MAX_SAFE_INTEGER)) {
        if (entry.job !== undefined && !open.has(entry.id)) add(entry)
      }
    }
    // After those that are closed, as they had the cores after them.
    for (const { endedAtMs = nowMs, grantedAtMs: startMs, ...part } of open.values()) {
      add({ ...part, startMs, endMs: Math.min(endedAtMs, part.expiresAtMs) })
    }
    return { jobs: accounts.map((account) => account.usage), tenants: totals(accounts) }
  }
}

/** What leases had of the cores of one job. */
class JobAccount {
  readonly job: JobRecord
  readonly untilMs: number
  readonly tenants = new Map<string, number>()
  /** Until when each core of the job is accounted for. */
  readonly #untilMs = new Map<number, number>()

  constructor(job: JobRecord, untilMs: number) {
    this.job = job
    this.untilMs = untilMs
  }

  /** No more than the job's time and its cores, and no core twice: in the order in which leases end. */
  add({ tenant, cores, startMs, endMs }: Share): void {
    const { beginMs, cores: most } = this.job
    const toMs = Math.min(endMs, this.untilMs)
    for (const core of cores) {
      const known = this.#untilMs.get(core)
      if (known === undefined && this.#untilMs.size === most) continue
      const fromMs = Math.max(startMs, beginMs, known ?? 0)
      if (fromMs >= toMs) continue
      this.#untilMs.set(core, toMs)
      this.tenants.set(tenant, (this.tenants.get(tenant) ?? 0) + toMs - fromMs)
    }
  }

  get usage(): JobUsage {
    const { beginMs, endMs, seenMs: _, ...job } = this.job
    const elapsedMs = this.untilMs - beginMs
    const coreMs = elapsedMs * job.cores
    const tenants = shares(this.tenants)
    const leasedCoreMs = tenants.reduce((sum, tenant) => sum + tenant.coreMs, 0)
    return {
      ...job,
      begin: new Date(beginMs).toISOString(),
      ...(endMs !== undefined && { end: new Date(endMs).toISOString() }),
      elapsedMs,
      coreMs,
      leasedCoreMs,
      idleCoreMs: coreMs - leasedCoreMs,
      tenants,
    }
  }
}

/** Of the jobs of a node, which follow each other: those that were it when a lease was on it. */
function overlapping(jobs: readonly JobAccount[], { startMs, endMs }: Share): JobAccount[] {
  const first = placeIn(jobs, ({ untilMs }) => untilMs <= startMs)
  const last = placeIn(jobs, ({ job }) => job.beginMs < endMs)
  return jobs.slice(first, last)
}

function totals(accounts: readonly JobAccount[]): JobUsageReport['tenants'] {
  const sums = new Map<string, number>()
  for (const { tenants } of accounts) {
    for (const [tenant, coreMs] of tenants) sums.set(tenant, (sums.get(tenant) ?? 0) + coreMs)
  }
  return shares(sums)
}

function shares(coreMsOf: ReadonlyMap<string, number>): JobUsageReport['tenants'] {
  return Array.from(coreMsOf, ([tenant, coreMs]) => ({ tenant, coreMs })).sort((a, b) =>
    a.tenant < b.tenant ? -1 : 1,
  )
}
