// A batch system that never was: jobs of many sizes keep a cluster about as busy as large ones are. For
// whoever has no trace; results are about this workload, not about anybody's cluster.
import { Random } from '../simulation/random.js'
import { traceOfJobs, type Job } from './jobs.js'
import type { Trace } from './trace.js'

export interface SyntheticOptions {
  seed: number
  nodes: number
  coresPerNode: number
  nodeMemoryBytes: number
  days: number
}

const minuteMs = 60_000
/** Jobs that a scheduler looks at when something becomes free, so that small ones fill gaps. */
const lookAhead = 4

/** Sizes are log-uniform up to a quarter of the cluster, run times log-normal (median 40 min), and the
 * queue never runs dry: what is idle is idle since nothing that is looked at fits. */
export function syntheticTrace(options: SyntheticOptions): Trace {
  const { nodes, coresPerNode, nodeMemoryBytes, days } = options
  const random = new Random(options.seed)
  const untilMs = days * 24 * 60 * minuteMs
  const jobs: Job[] = []
  const queue = Array.from({ length: lookAhead }, draw)
  const running = new Ends()
  let free = nodes
  for (let nowMs = 0; nowMs < untilMs;) {
    for (let i = 0; i < queue.length;) {
      const { size, runMs } = queue[i]!
      if (size > free) {
        i += 1
        continue
      }
      free -= size
      running.add(nowMs + runMs, size)
      jobs.push({
        submitMs: Math.max(0, nowMs - Math.floor(random.exponential(30 * minuteMs))),
        ...{ startMs: nowMs, endMs: Math.min(nowMs + runMs, untilMs), nodes: size },
        ...{ coresPerNode, memoryBytesPerNode: Math.floor(nodeMemoryBytes * random.next() * 0.4) },
      })
      queue.splice(i, 1)
      queue.push(draw())
    }
    const end = running.next()
    nowMs = end.atMs
    free += end.nodes
  }
  return traceOfJobs({
    source: `synthetic, ${nodes} nodes, ${days} days, seed ${options.seed}`,
    jobs,
    nodes: Array.from({ length: nodes }, (_, i) => ({
      ...{ name: `n${i + 1}`, cores: coresPerNode, memoryBytes: nodeMemoryBytes },
    })),
    remarks: ['a made-up workload, not that of a cluster'],
  })

  function draw(): { size: number; runMs: number } {
    const size = Math.floor(Math.exp(random.next() * Math.log(Math.max(1, nodes / 4))))
    const runMs = Math.min(40 * minuteMs * Math.exp(1.2 * normal(random)), 24 * 60 * minuteMs)
    return { size, runMs: Math.max(1000, Math.floor(runMs)) }
  }
}

/** Box and Muller's way. */
function normal(random: Random): number {
  return Math.sqrt(random.exponential(2)) * Math.cos(2 * Math.PI * random.next())
}

/** Ends of jobs in order; few run at once. */
class Ends {
  readonly #ends: { atMs: number; nodes: number }[] = []

  add(atMs: number, nodes: number): void {
    const place = this.#ends.findIndex((end) => end.atMs < atMs)
    this.#ends.splice(place < 0 ? this.#ends.length : place, 0, { atMs, nodes })
  }

  next(): { atMs: number; nodes: number } {
    return this.#ends.pop()!
  }
}
