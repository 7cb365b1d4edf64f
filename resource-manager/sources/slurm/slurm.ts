// Slurm as a source of nodes: harvest jobs, which any other job preempts, run executor managers where
// something is idle. Slurm is asked at an interval; between two looks the executor managers themselves
// say what happens, because Slurm signals them directly. When Slurm gives no answer that makes sense,
// nothing is started and nothing is given back: what runs goes on.
import { userInfo } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HarvestInfo, HarvestJobInfo } from '../../../lib/control/report-schemas.js'
import type { NodeInfo } from '../../../lib/control/schemas.js'
import type { Logger } from '../../../lib/control/log.js'
import type { ManagedNodes, NodeSource, SeenJob } from '../source.js'
import { BatchSystem } from './batch-system.js'
import { jobScript } from './job-script.js'
import type { SlurmMetrics } from './metrics.js'
import {
  commentOf,
  instant,
  jobName,
  observe,
  type Observation,
  type OwnJob,
} from './observation.js'
import type { SlurmConfig } from './options.js'
import { plan, type NewJob, type Plan } from './planning.js'

// Beyond the notice, for the executor manager to end: it has to be gone before Slurm kills it.
const endSeconds = 5
// A job that does not start at once would start when something else is idle than it was made for.
const startWithinMs = 20_000
const registerWithinMs = 60_000
// A node whose jobs fail is left alone for longer and longer.
const backoffMs = { first: 10_000, most: 600_000 }
const faultsEveryMs = 60_000
// More is for the next look: Slurm has others to serve.
const mostStartsAtOnce = 256

export interface SlurmSourceOptions {
  config: SlurmConfig
  nodes: ManagedNodes
  /** URL under which nodes reach the resource manager. */
  resourceManager: string
  metrics: SlurmMetrics
  logger: Logger
}

/** Of a job: its state, when it was first seen in it, and the last sign of life of its node by then. */
interface Since {
  state: string
  atMs: number
  lastSeen: string | undefined
  told: boolean
}

export class SlurmSource implements NodeSource {
  readonly #options: SlurmSourceOptions
  readonly #batch: BatchSystem
  readonly #metrics: SlurmMetrics
  readonly #logger: Logger
  readonly #stop = new AbortController()
  readonly #looking: Promise<void>
  #seen: { observation: Observation; at: string } | undefined
  #failure: string | undefined
  /** What is wrong with how Slurm is set up, and when that was looked at. */
  #faults: readonly string[] = []
  #faultsAtMs = -Infinity
  readonly #idleSince = new Map<string, number>()
  readonly #since = new Map<number, Since>()
  /** Batch nodes on which a job of ours is over for Slurm, and its executor manager may live on. */
  readonly #lingering = new Set<string>()
  readonly #failures = new Map<string, { count: number; untilMs: number }>()

  constructor(options: SlurmSourceOptions) {
    this.#options = options
    this.#logger = options.logger
    const { commandTimeoutMs: timeoutMs } = options.config
    this.#batch = new BatchSystem({ timeoutMs, signal: this.#stop.signal })
    this.#metrics = options.metrics
    this.#looking = this.#look()
  }

  get info(): HarvestInfo {
    const { observation, at } = this.#seen ?? {}
    const state = this.#seen === undefined ? 'starting' : 'ok'
    return {
      source: 'slurm',
      state: this.#failure === undefined ? state : 'failing',
      ...(this.#failure !== undefined && { reason: this.#failure }),
      warnings: [...this.#faults],
      ...(at !== undefined && { seenAt: at }),
      nodes: observation?.shown ?? [],
      jobs: (observation?.jobs ?? []).flatMap((job) => (job.over ? [] : [jobInfo(job)])),
      planned: observation?.planned ?? [],
    }
  }

  get warnings(): readonly string[] {
    const warnings: string[] = []
    if (this.#failure !== undefined) {
      warnings.push('Slurm gives no answer that makes sense: leases go on, nothing is harvested')
    }
    if (this.#faults.length > 0) warnings.push('Slurm is not set up for harvesting')
    return warnings
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#looking
  }

  async #look(): Promise<void> {
    const { signal } = this.#stop
    const { pollMs } = this.#options.config
    while (!signal.aborted) {
      const began = performance.now()
      await this.#lookOnce().catch((error: unknown) => {
        this.#logger.error({ err: error }, 'a look at Slurm failed')
      })
      const restMs = Math.max(0, pollMs - (performance.now() - began))
      await sleep(restMs, undefined, { signal, ref: false }).catch(() => undefined)
    }
  }

  async #lookOnce(): Promise<void> {
    let observation: Observation
    let askedAtMs: number
    try {
      const { partition } = this.#options.config
      const { resourceManager } = this.#options
      if (performance.now() - this.#faultsAtMs > faultsEveryMs) await this.#findFaults()
      askedAtMs = performance.now()
      // In this order: cores of a job that starts in between are taken twice, and not idle once more.
      const jobs = await this.#batch.jobs()
      const nodes = await this.#batch.nodes()
      const mine = { user: userInfo().username, partition, resourceManager }
      observation = observe({ nodes, jobs }, mine)
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#failed(messageOf(error))
      return
    }
    this.#metrics.polls.inc({ outcome: 'ok' })
    if (this.#failure !== undefined) this.#logger.info('Slurm answers again')
    this.#failure = undefined
    this.#seen = { observation, at: new Date().toISOString() }
    const seen = observation.jobs.flatMap((job) => seenJob(job) ?? [])
    await this.#options.nodes
      .account(seen, performance.now() - askedAtMs)
      .catch((error: unknown) => {
        this.#logger.error(
          { err: error },
          'the jobs could not be stored: the next look tries again',
        )
      })
    const active = this.#follow(observation)
    this.#watchIdle(observation)
    await this.#carryOut(this.#plan(observation, active))
  }

  #failed(reason: string): void {
    this.#metrics.polls.inc({ outcome: 'failed' })
    if (this.#failure !== reason) {
      this.#logger.error({ reason }, 'Slurm gives no answer that makes sense: leases go on')
    }
    this.#failure = reason
  }

  /** Set up otherwise it would kill executor managers without notice. */
  async #findFaults(): Promise<void> {
    const { partition, noticeMs } = this.#options.config
    const [config, ours] = await Promise.all([
      this.#batch.show('config'),
      this.#batch.show('partition', partition),
    ])
    const faults: string[] = []
    if (!(config.get('SlurmctldParameters') ?? '').includes('preempt_send_user_signal')) {
      faults.push('SlurmctldParameters has no preempt_send_user_signal: leases get no notice')
    }
    if (ours.get('PreemptMode') !== 'CANCEL') {
      faults.push(`PreemptMode of partition ${partition} is ${ours.get('PreemptMode')}, not CANCEL`)
    }
    const graceSeconds = Number(ours.get('GraceTime'))
    if (!(graceSeconds * 1000 >= noticeMs + endSeconds * 1000)) {
      faults.push(
        `GraceTime of partition ${partition} is ${graceSeconds} s: Slurm kills before the notice of ${noticeMs} ms and ${endSeconds} s to end are over`,
      )
    }
    for (const fault of faults) {
      if (this.#faults.includes(fault)) continue
      this.#logger.warn({ fault }, 'Slurm is not set up for harvesting')
    }
    this.#faults = faults
    this.#faultsAtMs = performance.now()
  }

  /** What became of our jobs; those that wait or run. */
  #follow({ jobs, nodes: batchNodes }: Observation): OwnJob[] {
    const nowMs = performance.now()
    const silent = new Set(batchNodes.flatMap(({ name, responds }) => (responds ? [] : [name])))
    this.#lingering.clear()
    const known = new Set(jobs.map(({ id }) => id))
    for (const id of this.#since.keys()) if (!known.has(id)) this.#since.delete(id)
    const nodes = new Map(this.#options.nodes.list().map((node) => [node.name, node]))
    for (const job of jobs) {
      const { id, node, batchNode, slurm } = job
      const named = nodes.get(node)
      const registered = named?.job === `${id}` ? named : undefined
      const before = this.#since.get(id)
      let since = before
      if (since?.state !== slurm.job_state) {
        const { lastSeen } = registered ?? {}
        since = { state: slurm.job_state, atMs: nowMs, lastSeen, told: false }
        this.#since.set(id, since)
        // One that was over when we began is history.
        if (before !== undefined && job.over) this.#ended(job)
      }
      if (registered !== undefined) {
        // Slurm may give up a machine that it does not hear at any moment.
        const mayLend = job.state !== 'ending' && !silent.has(batchNode)
        this.#options.nodes.withhold(node, !mayLend)
        if (job.state === 'running') this.#options.nodes.expect(node, job.idleUntilMs)
        else if (job.state === 'ending') this.#recover(job, registered, since, since !== before)
        continue
      }
      const late = job.state === 'running' && nowMs - since.atMs > registerWithinMs
      if (late && !since.told) {
        since.told = true
        const log = this.#options.config.log
        this.#logger.warn({ job: id, node, batchNode, log }, 'the job runs, but no node of it came')
      }
    }
    return jobs.filter(({ over }) => !over)
  }

  /** What Slurm wants back, from the node that may not know: without a slurmd nobody signals it. */
  #recover(job: OwnJob, { state, lastSeen }: NodeInfo, since: Since, isNew: boolean): void {
    const { node, over, batchNode, id } = job
    const { nodes, config } = this.#options
    const failed = (error: unknown): void => {
      this.#logger.error({ err: error, node }, 'a node whose job has to go could not be taken back')
    }
    if (state === 'lost') {
      // Slurm has the last word about its processes; the node itself cannot confirm anything more. Not at
      // the first look: a manager that has just begun has not heard of its nodes yet.
      if (over && !isNew) nodes.remove(node).catch(failed)
      return
    }
    if (over) this.#lingering.add(batchNode)
    // A sign of life after the end: slurmd is away, and will end what is left when it is back.
    const livesOn = over && lastSeen !== since.lastSeen
    if (livesOn && !since.told) {
      since.told = true
      this.#logger.warn({ job: id, node, batchNode }, 'Slurm has given up a job that lives on')
    }
    if (livesOn || !over) nodes.takeBack(node, config.noticeMs).catch(failed)
  }

  #ended({ id, node, batchNode, slurm }: OwnJob): void {
    const { job_state: state, state_reason: reason } = slurm
    this.#metrics.jobsEnded.inc({ state: state.toLowerCase() })
    const fields = { job: id, node, batchNode, state }
    if (state !== 'FAILED' && state !== 'BOOT_FAIL' && state !== 'OUT_OF_MEMORY') {
      this.#failures.delete(batchNode)
      this.#logger.info(fields, 'harvest job ended')
      return
    }
    const count = (this.#failures.get(batchNode)?.count ?? 0) + 1
    const pauseMs = Math.min(backoffMs.most, backoffMs.first * 2 ** (count - 1))
    this.#failures.set(batchNode, { count, untilMs: performance.now() + pauseMs })
    const { log } = this.#options.config
    this.#logger.warn({ ...fields, reason, pauseMs, log }, 'harvest job failed')
  }

  #watchIdle({ nodes }: Observation): void {
    const nowMs = performance.now()
    for (const { name, usable, cores, allocatedCores } of nodes) {
      if (!usable || allocatedCores >= cores) this.#idleSince.delete(name)
      else if (!this.#idleSince.has(name)) this.#idleSince.set(name, nowMs)
    }
  }

  #plan({ nodes }: Observation, active: readonly OwnJob[]): Plan {
    const { config } = this.#options
    const nowMs = performance.now()
    const up = new Set(
      this.#options.nodes.list().flatMap(({ name, state }) => (state === 'up' ? [name] : [])),
    )
    return plan(nodes, active, config, {
      free: (node) => !up.has(node),
      ready: (batchNode) =>
        !this.#lingering.has(batchNode) &&
        nowMs >= (this.#failures.get(batchNode)?.untilMs ?? 0) &&
        nowMs - (this.#idleSince.get(batchNode) ?? nowMs) >= config.minIdleMs,
    })
  }

  /** As far as it gets until the next look is due, which decides anew: each order may take long. */
  async #carryOut({ start, giveBack }: Plan): Promise<void> {
    const untilMs = performance.now() + this.#options.config.pollMs
    const due = (): boolean => performance.now() >= untilMs
    for (const { id, node, cores, state } of giveBack) {
      if (due()) return
      await this.#order(async () => {
        await (state === 'pending' ? this.#batch.withdraw(id) : this.#batch.end(id))
        this.#logger.info({ job: id, node, cores }, 'harvest job is given back')
      })
    }
    const nowMs = performance.now()
    for (const job of this.#seen?.observation.jobs ?? []) {
      const since = this.#since.get(job.id)
      if (job.state !== 'pending' || nowMs - (since?.atMs ?? nowMs) < startWithinMs) continue
      if (due()) return
      await this.#order(() => this.#batch.withdraw(job.id))
    }
    for (const job of start.slice(0, mostStartsAtOnce)) {
      if (due()) return
      await this.#order(() => this.#start(job))
    }
  }

  async #start(job: NewJob): Promise<void> {
    const { config, resourceManager } = this.#options
    const { batchNode, node, cores, memoryMiB } = job
    const id = await this.#batch.submit({
      partition: config.partition,
      account: config.account,
      qos: config.qos,
      name: jobName,
      comment: commentOf(resourceManager, node),
      node: batchNode.name,
      cores,
      memoryMiB,
      timeLimitMs: config.timeLimitMs,
      signalSeconds: Math.ceil(config.noticeMs / 1000) + endSeconds,
      log: config.log,
      script: jobScript(job, resourceManager, config),
    })
    this.#since.set(id, { state: '', atMs: performance.now(), lastSeen: undefined, told: false })
    this.#logger.info({ job: id, node, cores, memoryMiB }, 'harvest job submitted')
  }

  /** What Slurm does not do now is decided anew at the next look. */
  async #order(what: () => Promise<void>): Promise<void> {
    if (this.#stop.signal.aborted) return
    try {
      await what()
    } catch (error) {
      if (this.#stop.signal.aborted) return
      this.#metrics.refused.inc()
      this.#logger.warn({ reason: messageOf(error) }, 'Slurm did not do what it was asked for')
    }
  }
}

/** Of a job that has or had cores. */
function seenJob({ id, node, cores, over, state, slurm }: OwnJob): SeenJob | undefined {
  const { job_state, partition, nodes, start_time, end_time } = slurm
  if (state === 'pending' || nodes === '' || start_time === 0 || cores === 0) return undefined
  return {
    id: `${id}`,
    node,
    // Only jobs that wait may have a list of them.
    partition: partition.slice(0, 255),
    cores,
    state: job_state.toLowerCase(),
    beginMs: start_time * 1000,
    ...(over && { endMs: Math.max(start_time, end_time) * 1000 }),
  }
}

function jobInfo({ id, node, cores, slurm }: OwnJob): HarvestJobInfo {
  const { job_state, start_time, preempt_time, memory_per_node } = slurm
  const started = start_time > 0 && job_state !== 'PENDING'
  return {
    id: `${id}`,
    state: job_state.toLowerCase(),
    node,
    cores,
    memoryBytes: (memory_per_node ?? 0) * 2 ** 20,
    ...(started && { startedAt: instant(start_time) }),
    ...(preempt_time > 0 && { preemptedAt: instant(preempt_time) }),
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
