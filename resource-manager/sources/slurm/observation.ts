// What Slurm said, in our words. Pure.
import type { HarvestNode, PlannedStart } from '../../../lib/control/report-schemas.js'
import type { SlurmJob, SlurmNode } from './batch-system.js'
import type { BatchNode, HarvestJob } from './planning.js'

export const jobName = 'rfaas-harvest'

/** Of a job of ours, whatever its state. */
export interface OwnJob extends HarvestJob {
  slurm: SlurmJob
  over: boolean
  /** When its time is up, or another job is planned to start on its node. */
  idleUntilMs: number
}

export interface Observation {
  nodes: BatchNode[]
  /** Those that ended, too, as long as Slurm remembers them. */
  jobs: OwnJob[]
  shown: HarvestNode[]
  planned: PlannedStart[]
}

/** A node with any other flag is not to be used, or not yet. PLANNED: Slurm keeps it for a job that
 * starts later, until which it is idle. */
const harmlessFlags = new Set(['PLANNED'])
const usableStates = new Set(['idle', 'mixed', 'allocated'])
const waiting = new Set(['PENDING', 'CONFIGURING', 'REQUEUED', 'REQUEUE_HOLD', 'SPECIAL_EXIT'])
const running = new Set(['RUNNING', 'SUSPENDED', 'RESIZING', 'SIGNALING'])
const ending = new Set(['COMPLETING', 'STAGE_OUT', 'STOPPED'])

export interface Mine {
  user: string
  partition: string
  resourceManager: string
}

/** In the comment of a harvest job, which another user could write just as well: see `observe`. */
export function commentOf(resourceManager: string, node: string): string {
  return `rfaas ${resourceManager} ${node}`
}

export function observe(
  answer: { nodes: readonly SlurmNode[]; jobs: readonly SlurmJob[] },
  { user, partition, resourceManager }: Mine,
): Observation {
  const prefix = commentOf(resourceManager, '')
  const plannedOn = new Set(
    answer.nodes.flatMap(({ name, state_flags }) =>
      state_flags.includes('PLANNED') ? [name] : [],
    ),
  )
  // Slurm does not say which job it keeps a node for: the first may be it.
  const nextStart = answer.jobs.reduce(
    (earliest, { job_state, start_time }) =>
      job_state === 'PENDING' && start_time > 0 ? Math.min(earliest, start_time) : earliest,
    Infinity,
  )
  const jobs = answer.jobs.flatMap((job): OwnJob[] => {
    if (job.name !== jobName || job.user_name !== user) return []
    const { comment, job_id: id, job_state, cpus } = job
    const cores = cpus ?? 0
    const node = comment?.startsWith(prefix) === true ? comment.slice(prefix.length) : ''
    const batchNode = job.required_nodes
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(node) || batchNode === '') return []
    let state: HarvestJob['state'] = 'ending'
    if (waiting.has(job_state)) state = 'pending'
    // Slurm has given notice.
    else if (running.has(job_state) && job.preempt_time === 0) state = 'running'
    const over = state === 'ending' && !running.has(job_state) && !ending.has(job_state)
    const plannedMs = plannedOn.has(batchNode) ? nextStart : Infinity
    const idleUntilMs = Math.min(plannedMs, job.end_time) * 1000
    return [{ id, batchNode, node, cores, state, slurm: job, over, idleUntilMs }]
  })
  const ours = answer.nodes.filter(({ partitions }) => partitions.includes(partition))
  const nodes = ours.map((node): BatchNode => {
    const { name, address, state, state_flags } = node
    return {
      name,
      address,
      usable: takesJobs(node),
      responds: state.toLowerCase() !== 'down' && !state_flags.includes('NOT_RESPONDING'),
      draining: state_flags.includes('DRAIN'),
      cores: node.cpus,
      allocatedCores: node.alloc_cpus,
      memoryMiB: node.real_memory,
      allocatedMemoryMiB: node.alloc_memory,
    }
  })
  const mine = new Set(jobs.map(({ id }) => id))
  return {
    nodes,
    jobs,
    shown: ours.map((node, index) => shownNode(node, nodes[index]!, jobs)),
    planned: answer.jobs.flatMap((job): PlannedStart[] => {
      if (job.job_state !== 'PENDING' || job.start_time === 0 || mine.has(job.job_id)) return []
      return [
        {
          job: `${job.job_id}`,
          partition: job.partition,
          nodes: job.node_count,
          cores: job.cpus ?? 0,
          at: instant(job.start_time),
        },
      ]
    }),
  }
}

/** Slurm would start a job on it, if something of it were idle. */
export function takesJobs({ state, state_flags }: SlurmNode): boolean {
  return (
    usableStates.has(state.toLowerCase()) && state_flags.every((flag) => harmlessFlags.has(flag))
  )
}

/** Slurm's times are seconds. */
export function instant(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}

function shownNode(node: SlurmNode, { usable }: BatchNode, jobs: readonly OwnJob[]): HarvestNode {
  const here = jobs.filter(
    ({ batchNode, state, over }) => batchNode === node.name && state !== 'pending' && !over,
  )
  const harvested = here.reduce((total, { cores }) => total + cores, 0)
  return {
    name: node.name,
    state: [node.state, ...node.state_flags].join('+').toLowerCase(),
    features: node.active_features.split(',').filter((feature) => feature !== ''),
    partitions: node.partitions,
    cores: node.cpus,
    batchCores: Math.max(0, node.alloc_cpus - harvested),
    harvestedCores: harvested,
    idleCores: usable ? Math.max(0, node.cpus - node.alloc_cpus) : 0,
    memoryBytes: node.real_memory * 2 ** 20,
    allocatedMemoryBytes: node.alloc_memory * 2 ** 20,
  }
}
