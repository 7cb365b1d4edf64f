// What operators watch on a node.
import { Counter, Gauge, type Registry } from 'prom-client'
import type { Confinement } from './confinement.js'
import type { LeaseTable } from './leases.js'
import { runtimes, type Pool } from './pool.js'
import type { Registration } from './registration.js'

export interface Metrics {
  enclosures: Counter<'runtime' | 'from'>
  workersLost: Counter
  packagesStored: Counter
  cpuSeconds: Counter
  heldCoreSeconds: Counter
}

export function createMetrics(
  registry: Registry,
  sources: {
    leases: () => LeaseTable
    registration: () => Registration
    pool: () => Pool
    confinement: Confinement
  },
): Metrics {
  const registers = [registry]
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value())
      },
    })
  }
  gauge('rfaas_node_leases', 'Leases on this node', () => sources.leases().counts.leases)
  gauge('rfaas_node_executors', 'Running executors', () => sources.leases().counts.executors)
  gauge('rfaas_node_workers', 'Workers that are ready', () => sources.leases().counts.workers)
  gauge('rfaas_node_registered', '1 while the resource manager knows this node', () =>
    sources.registration().connected ? 1 : 0,
  )
  gauge(
    'rfaas_node_unconfirmed_reports',
    'Reports that the resource manager has not confirmed',
    () => sources.registration().unconfirmed,
  )
  new Gauge({
    name: 'rfaas_node_pool_workers',
    help: 'Workers that wait for a lease',
    labelNames: ['runtime'],
    registers,
    collect() {
      for (const runtime of runtimes) this.set({ runtime }, sources.pool().count(runtime))
    },
  })
  const layers = new Gauge({
    name: 'rfaas_node_confinement_layer',
    help: '1 if the layer confines the workers of this node',
    labelNames: ['layer'],
    registers,
  })
  for (const { name, active } of sources.confinement.layers) {
    layers.set({ layer: name }, active ? 1 : 0)
  }
  return {
    enclosures: new Counter({
      name: 'rfaas_node_leases_begun_total',
      help: 'Leases whose first worker came from the pool, was prepared while the lease was granted, or came from nothing',
      labelNames: ['runtime', 'from'],
      registers,
    }),
    workersLost: new Counter({
      name: 'rfaas_node_workers_lost_total',
      help: 'Workers that ended without being asked to',
      registers,
    }),
    packagesStored: new Counter({
      name: 'rfaas_node_packages_stored_total',
      help: 'Function packages that were new to this node',
      registers,
    }),
    cpuSeconds: new Counter({
      name: 'rfaas_node_cpu_seconds_total',
      help: 'CPU time of leases that have ended',
      registers,
    }),
    heldCoreSeconds: new Counter({
      name: 'rfaas_node_held_core_seconds_total',
      help: 'Cores times the time for which leases that have ended held them',
      registers,
    }),
  }
}
