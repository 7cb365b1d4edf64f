// What Prometheus sees of the resource manager.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Manager } from './manager.js'

export interface ManagerMetrics {
  grants: Counter
  refusals: Counter<'code'>
  /** From the request to the durable grant, waiting included. */
  grantDuration: Histogram
}

/** Gauges are read off the manager when they are asked for: they cannot drift. */
export function createMetrics(registry: Registry, manager: Manager): ManagerMetrics {
  const registers = [registry]
  new Gauge({
    name: 'rfaas_leases',
    help: 'Leases by state, each part counted; closed are only those that can still be looked up',
    labelNames: ['state'],
    registers,
    collect() {
      for (const [state, count] of manager.countLeases()) this.set({ state }, count)
    },
  })
  new Gauge({
    name: 'rfaas_nodes',
    help: 'Registered nodes by state',
    labelNames: ['state'],
    registers,
    collect() {
      for (const [state, count] of Object.entries(manager.countNodes())) this.set({ state }, count)
    },
  })
  new Gauge({
    name: 'rfaas_cores',
    help: 'Cores of the nodes that are up, by whether a lease holds them',
    labelNames: ['state'],
    registers,
    collect() {
      let free = 0
      let leased = 0
      for (const node of manager.nodes()) {
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
      this.set(manager.countWaiting())
    },
  })
  return {
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
