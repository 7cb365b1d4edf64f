// Who wants leases, and what for: tasks that arrive at random, or from a file.
import { badTrace } from '../traces/trace.js'
import { Random } from './random.js'

export interface Task {
  atMs: number
  cores: number
  memoryBytes: number
  /** Most nodes that its leases may be spread over. */
  nodes: number
  /** For how long all its cores have calls to run. */
  workMs: number
}

export interface RandomTasks {
  seed: number
  perSecond: number
  /** Each as likely as the others. */
  cores: readonly number[]
  memoryBytesPerCore: number
  nodes: number
  /** Exponentially distributed around it. */
  meanWorkMs: number
}

/** A Poisson process: as many tasks on the average at any time, none knows of another. */
export function* randomTasks(of: RandomTasks, fromMs: number, untilMs: number): Generator<Task> {
  const random = new Random(of.seed)
  let atMs = fromMs
  for (;;) {
    atMs += random.exponential(1000 / of.perSecond)
    if (atMs >= untilMs) return
    const cores = random.one(of.cores)
    yield {
      atMs: Math.floor(atMs),
      cores,
      memoryBytes: cores * of.memoryBytesPerCore,
      nodes: of.nodes,
      workMs: Math.ceil(random.exponential(of.meanWorkMs)),
    }
  }
}

/** Lines of `seconds since the begin of the trace, cores, work in seconds, memory in MiB, nodes`; the last
 * two may be missing. A first line of names is skipped. */
export function readTasks(text: string, source: string, fromMs: number): Task[] {
  const tasks: Task[] = []
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '' || (index === 0 && /[a-z]/i.test(line))) return
    const [at = NaN, cores = NaN, work = NaN, memory = cores * 1024, nodes = 1] = line
      .split(',')
      .map((cell) => (cell.trim() === '' ? NaN : Number(cell)))
    const whole = [cores, nodes].every((count) => Number.isInteger(count) && count >= 1)
    if (!whole || !(at >= 0) || !(work > 0) || !(memory >= 1)) {
      throw badTrace(source, index + 1, 'is not seconds,cores,work seconds[,MiB[,nodes]]')
    }
    tasks.push({
      ...{ atMs: Math.floor(fromMs + at * 1000), cores, nodes },
      ...{ memoryBytes: Math.floor(memory * 2 ** 20), workMs: Math.ceil(work * 1000) },
    })
  })
  return tasks.sort((a, b) => a.atMs - b.atMs)
}
