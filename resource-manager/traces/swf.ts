// The Standard Workload Format of the Parallel Workloads Archive: a line of 18 numbers for each job, -1
// for what is not known, and comments with the machine's size. It does not say on which nodes a job ran.
import { traceOfJobs, type Job } from './jobs.js'
import { badTrace, unusableTrace, type MachineOptions, type Trace } from './trace.js'

// Fields, counted from 0.
const [submit, wait, run, allocated, usedMemory, requested, requestedMemory] = [1, 2, 3, 4, 6, 7, 9]

export function readSwf(text: string, source: string, machine: MachineOptions): Trace {
  const header = new Map<string, string>()
  const lines: { fields: number[]; line: number }[] = []
  text.split('\n').forEach((raw, index) => {
    const trimmed = raw.trim()
    if (trimmed === '') return
    if (trimmed.startsWith(';')) {
      const [, key, value] = /^;\s*(\w+):\s*(.*)$/.exec(trimmed) ?? []
      if (key !== undefined && value !== undefined) header.set(key, value)
      return
    }
    const fields = trimmed.split(/\s+/).map(Number)
    if (fields.length < 11 || fields.some(Number.isNaN)) {
      throw badTrace(source, index + 1, 'is not a job in Standard Workload Format (18 numbers)')
    }
    lines.push({ fields, line: index + 1 })
  })
  const { nodes, coresPerNode } = machineOf(header, machine, source)
  const beginMs = (numberIn(header, 'UnixStartTime') ?? 0) * 1000
  const jobs: Job[] = []
  let withoutTimes = 0
  for (const { fields } of lines) {
    const of = (field: number): number => fields[field]!
    const processors = of(allocated) > 0 ? of(allocated) : of(requested)
    if (of(submit) < 0 || of(wait) < 0 || of(run) <= 0 || processors <= 0) {
      withoutTimes += 1
      continue
    }
    const submitMs = beginMs + of(submit) * 1000
    const startMs = submitMs + of(wait) * 1000
    const kibPerCore = Math.max(of(requestedMemory), of(usedMemory), 0)
    const coresOnNode = Math.min(processors, coresPerNode)
    jobs.push({
      ...{ submitMs, startMs, endMs: startMs + of(run) * 1000 },
      nodes: Math.ceil(processors / coresPerNode),
      // Jobs have their nodes for themselves.
      coresPerNode,
      memoryBytesPerNode: Math.min(kibPerCore * 1024 * coresOnNode, machine.nodeMemoryBytes),
    })
  }
  if (jobs.length === 0) throw unusableTrace(source, 'has no job that ran')
  const remarks = ['jobs have whole nodes, those with the lowest numbers that are free']
  if (withoutTimes > 0) remarks.push(`${withoutTimes} jobs never ran, or have no times: left out`)
  return traceOfJobs({
    source,
    jobs,
    remarks,
    nodes: Array.from({ length: nodes }, (_, i) => ({
      name: `n${i + 1}`,
      cores: coresPerNode,
      memoryBytes: machine.nodeMemoryBytes,
    })),
  })
}

function machineOf(
  header: ReadonlyMap<string, string>,
  given: MachineOptions,
  source: string,
): { nodes: number; coresPerNode: number } {
  const processors = numberIn(header, 'MaxProcs')
  let nodes = given.nodes ?? numberIn(header, 'MaxNodes')
  let { coresPerNode } = given
  if (nodes !== undefined && processors !== undefined) {
    coresPerNode ??= Math.max(1, Math.floor(processors / nodes))
  } else if (coresPerNode !== undefined && processors !== undefined) {
    nodes ??= Math.ceil(processors / coresPerNode)
  }
  if (nodes !== undefined && coresPerNode !== undefined && nodes >= 1)
    return { nodes, coresPerNode }
  throw unusableTrace(
    source,
    'does not say how many nodes and processors there are (MaxNodes, MaxProcs): use --nodes and --cores-per-node',
  )
}

function numberIn(header: ReadonlyMap<string, string>, key: string): number | undefined {
  const value = Number.parseInt(header.get(key) ?? '', 10)
  return Number.isNaN(value) ? undefined : value
}
