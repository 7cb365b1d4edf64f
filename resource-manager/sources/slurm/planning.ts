// Which harvest jobs to start and which to give back, from what Slurm says. Pure: the source carries it
// out, and whatever it decides Slurm has the last word.
import { runtimeBytes } from '../../../lib/control/memory.js'
import type { SlurmConfig } from './options.js'

/** A node of the harvest jobs' partition. */
export interface BatchNode {
  name: string
  address: string
  /** Slurm would start a job on it now. */
  usable: boolean
  /** It answers Slurm. */
  responds: boolean
  /** Its operator wants it empty. */
  draining: boolean
  cores: number
  allocatedCores: number
  memoryMiB: number
  allocatedMemoryMiB: number
}

/** A job of ours that waits or runs. */
export interface HarvestJob {
  id: number
  /** Of the batch system, and of the resource manager. */
  batchNode: string
  node: string
  cores: number
  state: 'pending' | 'running' | 'ending'
}

export interface NewJob {
  batchNode: BatchNode
  node: string
  cores: number
  memoryMiB: number
  /** It has all of the batch system's node. */
  whole: boolean
}

export interface Plan {
  start: NewJob[]
  giveBack: HarvestJob[]
}

export type Limits = Pick<SlurmConfig, 'cap' | 'reserve' | 'memoryReserveMiB' | 'shared'>

const managerMiB = 192
// Less is not worth an executor manager.
const leastLentMiB = 256

/** Of a job's memory, what is not lent: for the executor manager, and for what leases take beside their own.
 * All that runs in the job has to fit in it, or Slurm's control group ends whatever is the largest. */
export function ownMemoryMiB(cores: number): number {
  return managerMiB + cores * (runtimeBytes / 2 ** 20)
}

/** `free`: whether a node of that name can be made now; `ready`: whether a batch node may get a job now. */
export function plan(
  nodes: readonly BatchNode[],
  jobs: readonly HarvestJob[],
  limits: Limits,
  may: { free(node: string): boolean; ready(batchNode: string): boolean },
): Plan {
  const draining = new Set(nodes.flatMap(({ name, draining }) => (draining ? [name] : [])))
  const unwanted = jobs.filter(({ batchNode, state }) => {
    return state !== 'ending' && draining.has(batchNode)
  })
  const jobsOn = new Map<string, HarvestJob[]>()
  for (const job of jobs) jobsOn.set(job.batchNode, [...(jobsOn.get(job.batchNode) ?? []), job])
  // What waits to start has nothing yet; what ends gives back what it has in a moment.
  const soon = sum(jobs, ({ state, cores }) => (state === 'ending' ? cores : 0))
  const idle = sum(nodes, (node) => idleCores(node, jobsOn.get(node.name) ?? [])) + soon
  const harvested = sum(jobs, ({ cores }) => cores) - soon
  const kept = jobs.filter((job) => !unwanted.includes(job))
  const keptCores = harvested - sum(unwanted, ({ cores }) => cores)
  const surplus = Math.max(keptCores - limits.cap, limits.reserve - idle)
  if (surplus > 0) return { start: [], giveBack: [...unwanted, ...newest(kept, surplus)] }

  const start: NewJob[] = []
  let budget = Math.min(limits.cap - harvested, idle - soon - limits.reserve)
  const byIdle = [...nodes].sort((a, b) => unallocated(b) - unallocated(a))
  for (const batchNode of byIdle) {
    const present = jobsOn.get(batchNode.name) ?? []
    const cores = Math.min(idleCores(batchNode, present), budget)
    const idleMiB = batchNode.memoryMiB - batchNode.allocatedMemoryMiB - limits.memoryReserveMiB
    // Cores that are left idle are worth nothing without memory.
    const memoryMiB = Math.floor((idleMiB * cores) / unallocated(batchNode))
    if (cores < 1 || memoryMiB < ownMemoryMiB(cores) + leastLentMiB) continue
    // One at a time: the next look shows what became of it.
    if (present.some(({ state }) => state !== 'running')) continue
    const others = batchNode.allocatedCores - sum(present, (job) => job.cores)
    if (others > 0 && !limits.shared) continue
    if (!may.ready(batchNode.name)) continue
    const names = new Set(present.map(({ node }) => node))
    const node = nodeName(batchNode.name, (name) => !names.has(name) && may.free(name))
    if (node === undefined) continue
    start.push({ batchNode, node, cores, memoryMiB, whole: cores === batchNode.cores })
    budget -= cores
  }
  return { start, giveBack: unwanted }
}

const mostJobsPerNode = 64

/** A node of the resource manager is a harvest job: `n7`, and further ones on the same host `n7_2`,
 * `n7_3`. No host has an underscore in its name, so no other node is called so. */
function nodeName(batchNode: string, free: (name: string) => boolean): string | undefined {
  for (let index = 1; index <= mostJobsPerNode; index++) {
    const name = index === 1 ? batchNode : `${batchNode}_${index}`
    if (free(name)) return name
  }
  return undefined
}

/** What Slurm says of jobs is a moment older than what it says of nodes: of one of ours that ended in
 * between, the next look says that its cores are idle. */
function idleCores(node: BatchNode, present: readonly HarvestJob[]): number {
  if (!node.usable) return 0
  const waiting = sum(present, ({ state, cores }) => (state === 'pending' ? cores : 0))
  const ours = sum(present, ({ cores }) => cores)
  return Math.max(0, Math.min(unallocated(node) - waiting, node.cores - ours))
}

function unallocated({ cores, allocatedCores }: BatchNode): number {
  return Math.max(0, cores - allocatedCores)
}

/** Enough of the newest, which have done least. */
function newest(jobs: readonly HarvestJob[], cores: number): HarvestJob[] {
  const chosen: HarvestJob[] = []
  let left = cores
  for (const job of [...jobs].sort((a, b) => b.id - a.id)) {
    if (left <= 0) break
    if (job.state === 'ending') continue
    chosen.push(job)
    left -= job.cores
  }
  return chosen
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0)
}
