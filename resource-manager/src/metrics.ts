// What Prometheus sees of the resource manager.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Leadership } from './leadership.js'
import type { Office } from './office.js'

export interface ManagerMetrics {
  grants: Counter
  refusals: Counter<'code'>
  /** From the request to the durable grant, waiting included. */
  grantDuration: Histogram
  /** The same, of the newest grants. */
  grantTimes: GrantTimes
}

const rememberedGrants = 512

export class GrantTimes {
  readonly #newestMs: number[] = []
  #count = 0

  /** Since the start. */
  get count(): number {
    return this.#count
  }

  add(ms: number): void {
    this.#newestMs[this.#count % rememberedGrants] = ms
    this.#count += 1
  }

  /** 0 as long as nothing was granted. */
  percentile(share: number): number {
    const sorted = [...this.#newestMs].sort((a, b) => a - b)
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0
  }
}

/** Gauges are read off the manager when they are asked for: they cannot drift. One that does not decide
 * has none. */
export function createMetrics(registry: Registry, office: Office): ManagerMetrics {
  const registers = [registry]
  new Gauge({
    name: 'rfaas_leases',
    help: 'Leases by state, each part counted; closed are only those that can still be looked up',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset()
      for (const [state, count] of office.current?.countLeases() ?? []) this.set({ state }, count)
    },
  })
  new Gauge({
    name: 'rfaas_nodes',
    help: 'Registered nodes by state',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset()
      const counts = Object.entries(office.current?.countNodes() ?? {})
      for (const [state, count] of counts) this.set({ state }, count)
    },
  })
  new Gauge({
    name: 'rfaas_cores',
    help: 'Cores of the nodes that are up, by whether a lease holds them',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset()
      if (office.current === undefined) return
      let free = 0
      let leased = 0
      for (const node of office.current.nodes()) {
        if (node.state !== 'up') continue
        free += node.freeCores
        leased += node.cores - node.freeCores
      }
      this.set({ state: 'free' }, free)
      this.set({ state: 'leased' }, leased)
    },
  })
  new Gauge({
    name: 'rfaas_lease_requests_waiting',
    help: 'Requests for leases that wait until something is free',
    registers,
    collect() {
      this.reset()
      if (office.current !== undefined) this.set(office.current.countWaiting())
    },
  })
  return {
    grantTimes: new GrantTimes(),
    grants: new Counter({
      name: 'rfaas_lease_grants_total',
      help: 'Leases granted since the start',
      registers,
    }),
    refusals: new Counter({
      name: 'rfaas_lease_refusals_total',
      help: 'Lease requests refused since the start, by error code',
      labelNames: ['code'],
      registers,
    }),
    grantDuration: new Histogram({
      name: 'rfaas_lease_grant_duration_seconds',
      help: 'Time from a lease request to its durable grant, waiting included',
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1],
      registers,
    }),
  }
}

/** Of one of several managers. */
export function addLeadershipMetrics(registry: Registry, leadership: Leadership): void {
  const registers = [registry]
  new Gauge({
    name: 'rfaas_leader',
    help: '1: this resource manager decides for all, 0: it follows',
    registers,
    collect() {
      this.set(leadership.current === undefined ? 0 : 1)
    },
  })
  new Gauge({
    name: 'rfaas_leader_terms',
    help: 'How often this resource manager was elected since its start',
    registers,
    collect() {
      this.set(leadership.terms)
    },
  })
  new Gauge({
    name: 'rfaas_etcd_well',
    help: '1: the member of etcd answers, has a leader and raised no alarm',
    labelNames: ['member'],
    registers,
    collect() {
      this.reset()
      for (const { url, problem } of leadership.etcdStatus) {
        this.set({ member: url }, problem === undefined ? 1 : 0)
      }
    },
  })
  new Gauge({
    name: 'rfaas_etcd_database_bytes',
    help: "Size of each member's database, of all that etcd is used for",
    labelNames: ['member'],
    registers,
    collect() {
      this.reset()
      for (const { url, dbBytes } of leadership.etcdStatus) {
        if (dbBytes !== undefined) this.set({ member: url }, dbBytes)
      }
    },
  })
}
