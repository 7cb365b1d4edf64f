// The source of nodes of the manager that decides: it begins with the manager and ends with it.
import type { Registry } from 'prom-client'
import type { Logger } from '../../lib/control/log.js'
import { openPrincipal } from '../../lib/control/principal.js'
import type { HarvestInfo } from '../../lib/control/report-schemas.js'
import { createSlurmMetrics, type SlurmMetrics } from '../sources/slurm/metrics.js'
import type { SlurmConfig } from '../sources/slurm/options.js'
import { SlurmSource } from '../sources/slurm/slurm.js'
import type { NodeSource } from '../sources/source.js'
import type { Manager } from './manager.js'
import type { Duty } from './office.js'

const staticSource: HarvestInfo = {
  source: 'static',
  state: 'ok',
  warnings: [],
  nodes: [],
  jobs: [],
  planned: [],
}

export class Harvest implements Duty {
  readonly #config: SlurmConfig | undefined
  readonly #logger: Logger
  #metrics: SlurmMetrics | undefined
  #source: NodeSource | undefined

  /** Without `config` nodes register by themselves, and there is nothing to do. */
  constructor(config: SlurmConfig | undefined, logger: Logger) {
    this.#config = config
    this.#logger = logger
  }

  /** What the source sees and does now. */
  get info(): HarvestInfo {
    return this.#source?.info ?? staticSource
  }

  get warnings(): readonly string[] {
    return this.#source?.warnings ?? []
  }

  measureIn(registry: Registry): void {
    if (this.#config !== undefined) this.#metrics = createSlurmMetrics(registry, () => this.info)
  }

  begin(manager: Manager, url: string): void {
    if (this.#config === undefined || this.#metrics === undefined) return
    this.#source = new SlurmSource({
      config: this.#config,
      resourceManager: this.#config.url ?? url,
      nodes: {
        list: () => manager.nodes(),
        expect: (name, idleUntilMs) => manager.expect(name, idleUntilMs),
        withhold: (name, withheld) => manager.maintenance.withhold(name, withheld),
        takeBack: (name, noticeMs) => manager.maintenance.takeBack(name, noticeMs),
        remove: (name) => manager.maintenance.remove(openPrincipal, name),
        account: (jobs, agoMs) => manager.jobs.saw(jobs, agoMs),
      },
      metrics: this.#metrics,
      logger: this.#logger,
    })
  }

  async end(): Promise<void> {
    await this.#source?.close()
    this.#source = undefined
  }
}
