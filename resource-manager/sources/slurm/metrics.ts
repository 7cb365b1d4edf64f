// What Prometheus sees of the source `slurm`.
import { Counter, Gauge, type Registry } from 'prom-client'
import type { HarvestInfo } from '../../../lib/control/report-schemas.js'

export interface SlurmMetrics {
  polls: Counter<'outcome'>
  /** Harvest jobs that ended, by Slurm's word for how. */
  jobsEnded: Counter<'state'>
  refused: Counter
}

/** Gauges are read off the source when they are asked for: they cannot drift. */
export function createSlurmMetrics(registry: Registry, info: () => HarvestInfo): SlurmMetrics {
  const registers = [registry]
  new Gauge({
    name: 'rfaas_slurm_up',
    help: '1 while the answers of Slurm make sense, else 0',
    registers,
    collect() {
      this.set(info().state === 'ok' ? 1 : 0)
    },
  })
  new Gauge({
    name: 'rfaas_slurm_cores',
    help: 'Cores of the partition by what they do, as of the last answer of Slurm that made sense',
    labelNames: ['state'],
    registers,
    collect() {
      const { nodes } = info()
      const sum = (of: (node: (typeof nodes)[number]) => number): number =>
        nodes.reduce((total, node) => total + of(node), 0)
      this.set(
        { state: 'batch' },
        sum((node) => node.batchCores),
      )
      this.set(
        { state: 'harvested' },
        sum((node) => node.harvestedCores),
      )
      this.set(
        { state: 'idle' },
        sum((node) => node.idleCores),
      )
    },
  })
  new Gauge({
    name: 'rfaas_slurm_jobs',
    help: 'Harvest jobs by state',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset()
      for (const { state } of info().jobs) this.inc({ state })
    },
  })
  return {
    polls: new Counter({
      name: 'rfaas_slurm_polls_total',
      help: 'Looks at Slurm since the start, by outcome',
      labelNames: ['outcome'],
      registers,
    }),
    jobsEnded: new Counter({
      name: 'rfaas_slurm_jobs_ended_total',
      help: "Harvest jobs that ended since the start, by Slurm's state",
      labelNames: ['state'],
      registers,
    }),
    refused: new Counter({
      name: 'rfaas_slurm_orders_failed_total',
      help: 'Jobs that Slurm did not take or end when it was told to',
      registers,
    }),
  }
}
