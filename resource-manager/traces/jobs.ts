// A trace from a list of jobs: a node's cores are idle when no job has them.
import type { Change, Trace, TraceNode } from './trace.js'

export interface Job {
  submitMs: number
  startMs: number
  endMs: number
  /** Indices of its nodes, or how many whole nodes it has where the record does not say which. */
  nodes: number | readonly number[]
  /** On each of them. */
  coresPerNode: number
  memoryBytesPerNode: number
}

export interface JobTrace {
  source: string
  nodes: readonly TraceNode[]
  jobs: readonly Job[]
  remarks: readonly string[]
}

/** From the first start to the last end. Of the rest of a job that began earlier nothing is known, so
 * the first days of a record show more idle cores than there were. */
export function traceOfJobs({ source, nodes, jobs, remarks }: JobTrace): Trace {
  const order = (key: (job: Job) => number): Job[] => [...jobs].sort((a, b) => key(a) - key(b))
  const byStart = order(({ startMs }) => startMs)
  const byEnd = order(({ endMs }) => endMs)
  const bySubmit = order(({ submitMs }) => submitMs)
  const { placed, unplaced } = place(nodes.length, byStart, byEnd)
  const notes = [...remarks]
  if (unplaced > 0) {
    notes.push(
      `${unplaced} jobs needed more nodes than were free at their start: they have what there was`,
    )
  }
  return {
    source,
    nodes,
    fromMs: byStart[0]?.startMs ?? 0,
    untilMs: byEnd.at(-1)?.endMs ?? 0,
    gaps: [],
    remarks: notes,
    changes: () => sweep(nodes, { byStart, byEnd, bySubmit }, placed),
  }
}

/** The nodes of each job. Where the record does not say, those with the lowest numbers that are free. */
function place(
  nodes: number,
  byStart: readonly Job[],
  byEnd: readonly Job[],
): { placed: Map<Job, readonly number[]>; unplaced: number } {
  const placed = new Map<Job, readonly number[]>()
  const free = new LowestFirst(nodes)
  let unplaced = 0
  let ended = 0
  for (const job of byStart) {
    for (; ended < byEnd.length && byEnd[ended]!.endMs <= job.startMs; ended += 1) {
      const over = byEnd[ended]!
      if (typeof over.nodes === 'number') for (const node of placed.get(over) ?? []) free.add(node)
    }
    if (typeof job.nodes !== 'number') {
      placed.set(job, job.nodes)
      continue
    }
    const taken: number[] = []
    while (taken.length < job.nodes) {
      const node = free.take()
      if (node === undefined) break
      taken.push(node)
    }
    if (taken.length < job.nodes) unplaced += 1
    placed.set(job, taken)
  }
  return { placed, unplaced }
}

interface Orders {
  byStart: readonly Job[]
  byEnd: readonly Job[]
  bySubmit: readonly Job[]
}

function* sweep(
  nodes: readonly TraceNode[],
  { byStart, byEnd, bySubmit }: Orders,
  placed: ReadonlyMap<Job, readonly number[]>,
): Generator<Change> {
  const idleCores = Int32Array.from(nodes, ({ cores }) => cores)
  const idleBytes = Float64Array.from(nodes, ({ memoryBytes }) => memoryBytes)
  /** The jobs of each node that have not started, the next one last. */
  const coming: Job[][] = nodes.map(() => [])
  for (const job of byStart.toReversed())
    for (const node of placed.get(job)!) coming[node]!.push(job)
  const touched = new Set<number>()
  const use = (job: Job, sign: 1 | -1): void => {
    for (const node of placed.get(job)!) {
      idleCores[node]! -= sign * job.coresPerNode
      idleBytes[node]! -= sign * job.memoryBytesPerNode
      touched.add(node)
    }
  }
  let [started, ended, submitted] = [0, 0, 0]
  let nowMs = byStart[0]?.startMs ?? 0
  for (let node = 0; node < nodes.length; node += 1) touched.add(node)
  for (;;) {
    // All that happens at once is one change: a node that goes from job to job is never idle.
    for (; byEnd[ended] !== undefined && byEnd[ended]!.endMs <= nowMs; ended += 1) {
      use(byEnd[ended]!, -1)
    }
    for (; byStart[started] !== undefined && byStart[started]!.startMs <= nowMs; started += 1) {
      const job = byStart[started]!
      use(job, 1)
      for (const node of placed.get(job)!) coming[node]!.pop()
    }
    for (
      ;
      bySubmit[submitted] !== undefined && bySubmit[submitted]!.submitMs <= nowMs;
      submitted += 1
    ) {
      const job = bySubmit[submitted]!
      for (const node of placed.get(job)!) if (coming[node]!.at(-1) === job) touched.add(node)
    }
    for (const node of touched) {
      const next = coming[node]!.at(-1)
      yield {
        atMs: nowMs,
        node,
        // A record may give more than there is.
        idleCores: Math.max(0, idleCores[node]!),
        idleMemoryBytes: Math.max(0, idleBytes[node]!),
        nextStartMs: next !== undefined && next.submitMs <= nowMs ? next.startMs : undefined,
      }
    }
    touched.clear()
    if (ended === byEnd.length) return
    nowMs = Math.min(
      byEnd[ended]!.endMs,
      byStart[started]?.startMs ?? Infinity,
      bySubmit[submitted]?.submitMs ?? Infinity,
    )
  }
}

/** Numbers in a binary heap. */
class LowestFirst {
  readonly #heap: number[]

  constructor(count: number) {
    this.#heap = Array.from({ length: count }, (_, i) => i)
  }

  add(value: number): void {
    const heap = this.#heap
    let place = heap.length
    heap.push(value)
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (heap[parent]! <= value) break
      heap[place] = heap[parent]!
      place = parent
    }
    heap[place] = value
  }

  take(): number | undefined {
    const heap = this.#heap
    const lowest = heap[0]
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return lowest
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child += 1
      if (heap[child]! >= last) break
      heap[place] = heap[child]!
      place = child
    }
    heap[place] = last
    return lowest
  }
}
