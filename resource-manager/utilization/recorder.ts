// Samples the batch system at an interval and appends what it sees to a file (traces/samples.ts).
import { open, type FileHandle } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BatchSystem, SlurmJob, SlurmNode } from '../sources/slurm/batch-system.js'
import { jobName, takesJobs } from '../sources/slurm/observation.js'
import { encodeSample, isSamples, type SampledNode } from '../traces/samples.js'
import { unusableTrace } from '../traces/trace.js'

export interface RecorderOptions {
  path: string
  batch: Pick<BatchSystem, 'nodes' | 'jobs'>
  everyMs: number
  /** Default: until `signal`. */
  samples?: number | undefined
  signal: AbortSignal
  /** What went well, and what did not, in a sentence. */
  onSample(text: string): void
  onRemark(text: string): void
}

/** Resolves when all are taken, or `signal` aborts. A batch system that does not answer costs a sample. */
export async function record(options: RecorderOptions): Promise<void> {
  const { path, everyMs, samples = Infinity, signal, batch, onSample, onRemark } = options
  const file = await openForAppending(path, onRemark)
  try {
    let known: Map<string, SampledNode> | undefined
    let checksum: number | undefined
    let nextMs = Date.now()
    for (let taken = 0; taken < samples && !signal.aborted;) {
      try {
        const [nodes, jobs] = await Promise.all([batch.nodes(), batch.jobs()])
        const seen = sampleOf(nodes, jobs)
        const at = Date.now()
        const encoded = encodeSample(
          known === undefined
            ? { at, everyMs, nodes: [...seen.values()] }
            : { at, ...difference(known, seen) },
          checksum,
        )
        await append(file, encoded.line)
        ;({ checksum } = encoded)
        known = seen
        taken += 1
        onSample(summary(seen))
      } catch (error) {
        if (signal.aborted) break
        onRemark(`no sample: ${error instanceof Error ? error.message : String(error)}`)
        // Whatever came of the line, the next one does not build on it.
        known = undefined
        checksum = undefined
      }
      if (taken >= samples) break
      // At the same distance from each other, whatever the batch system takes for an answer.
      nextMs = Math.max(nextMs + everyMs, Date.now())
      await sleep(nextMs - Date.now(), undefined, { signal }).catch(() => undefined)
    }
  } finally {
    await file.close()
  }
}

/** What nobody has; cores that harvest jobs hold are idle, too: the batch system can have them at any time. */
export function sampleOf(
  nodes: readonly SlurmNode[],
  jobs: readonly SlurmJob[],
): Map<string, SampledNode> {
  const harvested = new Map<string, { cores: number; memoryMiB: number }>()
  for (const job of jobs) {
    if (job.name !== jobName || job.job_state !== 'RUNNING') continue
    const { cores = 0, memoryMiB = 0 } = harvested.get(job.nodes) ?? {}
    harvested.set(job.nodes, {
      cores: cores + (job.cpus ?? 0),
      memoryMiB: memoryMiB + (job.memory_per_node ?? 0),
    })
  }
  return new Map(
    nodes.map((node) => {
      const { name, cpus, alloc_cpus, real_memory, alloc_memory } = node
      const ours = harvested.get(name) ?? { cores: 0, memoryMiB: 0 }
      const within = (amount: number, most: number): number => Math.min(most, Math.max(0, amount))
      const idle = takesJobs(node)
        ? ([
            within(cpus - alloc_cpus + ours.cores, cpus),
            within(real_memory - alloc_memory + ours.memoryMiB, real_memory),
          ] as const)
        : ([0, 0] as const)
      return [name, [name, cpus, idle[0], real_memory, idle[1]]]
    }),
  )
}

function difference(
  before: ReadonlyMap<string, SampledNode>,
  after: ReadonlyMap<string, SampledNode>,
): { nodes: SampledNode[]; gone?: string[] } {
  const nodes = [...after.values()].filter((node) => node.join() !== before.get(node[0])?.join())
  const gone = [...before.keys()].filter((name) => !after.has(name))
  return { nodes, ...(gone.length > 0 && { gone }) }
}

/** What a recorder that was killed left unfinished is cut off. */
async function openForAppending(
  path: string,
  onRemark: (text: string) => void,
): Promise<FileHandle> {
  const file = await open(path, 'a+', 0o644)
  try {
    const text = (await file.readFile()).toString()
    const [firstLine = ''] = text.split('\n', 1)
    if (text !== '' && !isSamples(firstLine)) {
      throw unusableTrace(path, 'is not a file of samples: nothing is written to it')
    }
    const whole = text.lastIndexOf('\n') + 1
    if (whole < text.length) {
      onRemark(`the last sample in ${path} was not written to its end: removed`)
      await file.truncate(Buffer.byteLength(text.slice(0, whole)))
    }
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

/** All of the line or nothing: the next one may find room. */
async function append(file: FileHandle, line: string): Promise<void> {
  const { size } = await file.stat()
  try {
    await file.appendFile(line)
    await file.datasync()
  } catch (error) {
    await file.truncate(size)
    throw error
  }
}

function summary(seen: ReadonlyMap<string, SampledNode>): string {
  let [cores, idle] = [0, 0]
  for (const [, all, free] of seen.values()) {
    cores += all
    idle += free
  }
  return `${seen.size} nodes, ${idle} of ${cores} cores idle`
}
