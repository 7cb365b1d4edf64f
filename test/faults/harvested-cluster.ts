// A resource manager whose nodes are harvest jobs of a real Slurm. All its machines are this one: each
// has the first cores of it.
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { HarvestInfo } from '../../lib/control/report-schemas.js'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { Store } from '../../resource-manager/stores/store.js'
import { BatchCluster, type BatchJob } from '../slurm/batch-cluster.js'
import { harvestInfo, metric, startHarvesting } from '../slurm/harvesting.js'
import type { Audited } from './audit.js'
import { endAll, type Daemon } from './daemon.js'
import { commandLine, until } from './proc.js'

export interface HarvestOptions {
  /** Cores of each node: n1, n2 ... Default: one of two. */
  nodes?: readonly number[]
  /** Lines of slurm.conf. */
  lines?: string
  /** Flags of the resource manager, and its environment. */
  flags?: Readonly<Record<string, string>>
  env?: Readonly<Record<string, string>>
}

/** Between Slurm's notice and its SIGKILL. */
export const graceMs = 30_000

export class HarvestedCluster implements Audited {
  readonly folder: string
  readonly slurm: BatchCluster
  readonly resourceManager: Daemon

  private constructor(folder: string, slurm: BatchCluster, resourceManager: Daemon) {
    this.folder = folder
    this.slurm = slurm
    this.resourceManager = resourceManager
  }

  static async start(folder: string, options: HarvestOptions): Promise<HarvestedCluster> {
    const { nodes = [2], lines = '', flags, env = {} } = options
    const slurm = await BatchCluster.start(
      nodes.map((cores, index) => ({ name: `n${index + 1}`, cores, memoryMiB: 2000 })),
      { graceSeconds: graceMs / 1000, lines, folder: join(folder, 'slurm') },
    )
    const nodeConfig = join(folder, 'node.json')
    // Scenarios strike at the workers that they find.
    writeFileSync(nodeConfig, JSON.stringify({ runtimeDir: folder, pool: 0 }))
    mkdirSync(join(folder, 'nodes'))
    const own = { '--slurm-node-config': nodeConfig, '--slurm-notice-ms': '3s' }
    const manager = await startHarvesting(slurm, folder, { ...own, ...flags }, { env })
    return new HarvestedCluster(folder, slurm, manager)
  }

  get url(): string {
    return this.resourceManager.url
  }

  get daemons(): Daemon[] {
    return [this.resourceManager]
  }

  info(): Promise<HarvestInfo> {
    return harvestInfo(this.url)
  }

  metric(name: string): Promise<number> {
    return metric(this.url, name)
  }

  /** The only one that runs. */
  async runningJob(): Promise<BatchJob> {
    const [job, ...others] = await this.slurm.harvestJobs('RUNNING')
    assert(job !== undefined && others.length === 0, 'not one harvest job runs')
    return job
  }

  /** Of a job that has begun. */
  executorManagerOf({ job_id }: BatchJob): number {
    const [pid] = this.#executorManagers().filter((each) =>
      commandLine(each).includes(`--job ${job_id} `),
    )
    assert(pid !== undefined, `job ${job_id} has no executor manager`)
    return pid
  }

  executorManagersByMachine(): number[][] {
    const machines = new Map<string, number[]>()
    for (const pid of this.#executorManagers()) {
      // n1_2 is a further one on n1.
      const name = /--name (n\d+)/.exec(commandLine(pid))?.[1] ?? ''
      machines.set(name, [...(machines.get(name) ?? []), pid])
    }
    return [...machines.values()]
  }

  /** As its operator does. */
  async end(): Promise<void> {
    await endAll(this.daemons)
    await this.slurm.run('scancel', [
      ...['--name', 'rfaas-harvest', '--batch', '--signal', 'TERM', '--state', 'RUNNING'],
    ])
    await until('the executor managers have ended', () => this.#executorManagers().length === 0)
  }

  openStore(): Store {
    return openLmdbStore(join(this.folder, 'manager'), 0)
  }

  stop(): Promise<void> {
    return this.slurm.stop()
  }

  #executorManagers(): number[] {
    return this.slurm.processes('executor-manager/src/main.js')
  }
}
