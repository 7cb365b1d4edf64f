// What `sacct` and `squeue` print, with a line of names and `|` between the columns:
//   sacct  --allusers --parsable2 --format JobID,Submit,Start,End,NodeList,AllocCPUS,ReqMem,State
//   squeue --format '%i|%V|%S|%e|%N|%C|%m|%T'
import { expandHostList } from './host-list.js'
import { traceOfJobs, type Job } from './jobs.js'
import { badTrace, unusableTrace, type MachineOptions, type Trace } from './trace.js'

/** What a column may be called. */
const columns = {
  id: ['JobID', 'JobIDRaw', 'JOBID'],
  submit: ['Submit', 'SUBMIT_TIME'],
  start: ['Start', 'START_TIME'],
  end: ['End', 'END_TIME'],
  nodes: ['NodeList', 'NODELIST'],
  cores: ['AllocCPUS', 'NCPUS', 'CPUS'],
  memory: ['ReqMem', 'MIN_MEMORY'],
} as const
type Column = keyof typeof columns

const mostNodes = 200_000

export function isSlurmTable(firstLine: string): boolean {
  const names = firstLine.split('|').map((name) => name.trim())
  return columns.start.some((name) => names.includes(name))
}

export function readSlurmJobs(text: string, source: string, machine: MachineOptions): Trace {
  const [head = '', ...lines] = text.split('\n')
  const places = placesOf(head, source)
  const indices = new Map<string, number>()
  const allocations: { nodes: number[]; cores: number; memory: string; times: number[] }[] = []
  let [running, unstarted] = [0, 0]
  lines.forEach((line, index) => {
    if (line.trim() === '') return
    const cells = line.split('|').map((cell) => cell.trim())
    const cell = (column: Column): string => cells[places.get(column) ?? -1] ?? ''
    // Steps have their job's nodes.
    if (cell('id').includes('.')) return
    const list = cell('nodes').startsWith('(') ? '' : cell('nodes')
    const startMs = timeOf(cell('start'))
    if (list === '' || list === 'None assigned' || startMs === undefined) {
      unstarted += 1
      return
    }
    const names = expandHostList(list, mostNodes)
    if (names === undefined)
      throw badTrace(source, index + 2, `has no list of nodes: ${list.slice(0, 60)}`)
    const cores = Number(cell('cores'))
    if (!Number.isInteger(cores) || cores < 1) {
      throw badTrace(source, index + 2, `has no number of cores: ${cell('cores').slice(0, 60)}`)
    }
    const endMs = timeOf(cell('end'))
    if (endMs === undefined) running += 1
    else if (endMs <= startMs) return
    const nodes = names.map((name) => {
      if (!indices.has(name)) indices.set(name, indices.size)
      return indices.get(name)!
    })
    const submitMs = Math.min(timeOf(cell('submit')) ?? startMs, startMs)
    const times = [submitMs, startMs, endMs ?? Infinity]
    allocations.push({ nodes, cores: cores / nodes.length, memory: cell('memory'), times })
  })
  if (allocations.length === 0) throw unusableTrace(source, 'has no job that ran')

  const largest = (of: (allocation: (typeof allocations)[number]) => number): number =>
    allocations.reduce((most, allocation) => Math.max(most, of(allocation)), 0)
  const untilMs = largest(({ times: [, startMs = 0, endMs = 0] }) =>
    endMs === Infinity ? startMs : endMs,
  )
  const coresPerNode = machine.coresPerNode ?? Math.ceil(largest(({ cores }) => cores))
  const jobs = allocations.map(({ nodes, cores, memory, times }): Job => {
    const [submitMs = 0, startMs = 0, endMs = 0] = times
    return {
      ...{ submitMs, startMs, endMs: Math.min(endMs, Math.max(untilMs, startMs + 1)), nodes },
      coresPerNode: cores,
      memoryBytesPerNode: Math.min(memoryOf(memory, cores), machine.nodeMemoryBytes),
    }
  })
  const remarks = [
    `only the ${indices.size} nodes that ran a job are known`,
    ...(machine.coresPerNode === undefined
      ? [`a node has ${coresPerNode} cores, as many as a job had on one (--cores-per-node)`]
      : []),
    ...(running > 0 ? [`${running} jobs had not ended`] : []),
    ...(unstarted > 0 ? [`${unstarted} jobs had not started: left out`] : []),
  ]
  const nodes = [...indices.keys()].map((name) => ({
    ...{ name, cores: coresPerNode, memoryBytes: machine.nodeMemoryBytes },
  }))
  return traceOfJobs({ source, nodes, jobs, remarks })
}

function placesOf(head: string, source: string): Map<Column, number> {
  const names: readonly string[] = head.split('|').map((name) => name.trim())
  const places = new Map<Column, number>()
  for (const [column, aliases] of Object.entries(columns)) {
    const place = names.findIndex((name) => (aliases as readonly string[]).includes(name))
    if (place >= 0) places.set(column as Column, place)
  }
  for (const column of ['start', 'end', 'nodes', 'cores'] as const) {
    if (places.has(column)) continue
    throw badTrace(
      source,
      1,
      `has no column ${columns[column].join(' or ')}: print it with --format`,
    )
  }
  return places
}

/** Seconds since 1970 (SLURM_TIME_FORMAT=%s), or a time in the zone of this process. */
function timeOf(text: string): number | undefined {
  if (/^\d{1,11}$/.test(text)) return Number(text) * 1000
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/.test(text)) return undefined
  const time = Date.parse(text)
  return Number.isNaN(time) ? undefined : time
}

const units: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** 4G, 4000M; older ones say with n or c whether it is for each node or core. Without, it is for each node. */
function memoryOf(text: string, cores: number): number {
  const [, amount, unit = 'M', per] = /^(\d+(?:\.\d+)?)([KMGT])?([nc])?$/.exec(text) ?? []
  if (amount === undefined) return 0
  return Math.round(Number(amount) * units[unit]! * (per === 'c' ? cores : 1))
}
