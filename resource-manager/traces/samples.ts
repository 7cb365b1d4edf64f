// The format of recorded samples: a line for each, `<checksum> <JSON>`, only ever appended. A line says
// what changed since the one before; every run of a recorder begins with a line that says all. The
// checksum (CRC-32) covers the one before too, so that a line that is torn, lost or of another recorder
// is noticed; then nothing is known until the next line that says all.
import { crc32 } from 'node:zlib'
import { Type, type Static } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import { badTrace, unusableTrace, type Change, type Trace, type TraceNode } from './trace.js'

const count = Type.Integer({ minimum: 0, maximum: 65_535 })
const mebibytes = Type.Integer({ minimum: 0, maximum: 2 ** 40 })

/** Name, cores, idle cores, memory and idle memory in MiB. */
const SampledNode = Type.Tuple([
  Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' }),
  ...[count, count, mebibytes, mebibytes],
])
export type SampledNode = [
  name: string,
  cores: number,
  idleCores: number,
  memoryMiB: number,
  idleMemoryMiB: number,
]

const Sample = Type.Object(
  {
    /** Unix time in milliseconds. */
    at: Type.Integer({ minimum: 0, maximum: 8_640_000_000_000_000 }),
    /** It says all: with which interval the next ones are to be expected. */
    everyMs: Type.Optional(Type.Integer({ minimum: 1 })),
    nodes: Type.Array(SampledNode),
    /** Names of nodes that the batch system does not know any more. */
    gone: Type.Optional(Type.Array(Type.String())),
  },
  { additionalProperties: false },
)
export type Sample = Omit<Static<typeof Sample>, 'nodes'> & { nodes: SampledNode[] }

const digits = 8

/** `before`: the checksum of the line before, undefined when this one says all. */
export function encodeSample(
  sample: Sample,
  before: number | undefined,
): { line: string; checksum: number } {
  const json = JSON.stringify(sample)
  const checksum = crc32(json, before ?? 0)
  return { line: `${checksum.toString(16).padStart(digits, '0')} ${json}\n`, checksum }
}

export function isSamples(firstLine: string): boolean {
  return /^[0-9a-f]{8} \{/.test(firstLine)
}

// A sample says what is until the next one; when that is this many intervals late, nobody knows.
const mostIntervals = 3

export function readSamples(text: string, source: string): Trace {
  const lines = text.split('\n')
  // What follows the last newline was not written to its end.
  const torn = lines.pop() !== ''
  const remarks: string[] = []
  if (torn)
    remarks.push(
      `the last sample, in line ${lines.length + 1}, was not written to its end: left out`,
    )
  const samples: { sample: Sample; gapBefore: boolean }[] = []
  let before: number | undefined
  let everyMs = 0
  let damaged = 0
  let lost = false
  lines.forEach((line, index) => {
    const sample = decode(line, before)
    if (sample === undefined) {
      damaged += 1
      lost = true
      before = undefined
      return
    }
    const last = samples.at(-1)?.sample
    if (last !== undefined && sample.at <= last.at) {
      throw badTrace(source, index + 1, 'is of a time before that of the line above')
    }
    const late = last !== undefined && sample.at - last.at > mostIntervals * everyMs
    everyMs = sample.everyMs ?? everyMs
    before = Number.parseInt(line.slice(0, digits), 16)
    samples.push({ sample, gapBefore: last !== undefined && (late || lost) })
    lost = false
  })
  if (damaged > 0) remarks.push(`${damaged} damaged lines: left out, with those that build on them`)
  if (samples.length === 0) throw unusableTrace(source, 'has no whole sample')
  return traceOfSamples(source, samples, everyMs, remarks)
}

/** Undefined: it is damaged, or does not follow the line before. */
function decode(line: string, before: number | undefined): Sample | undefined {
  const json = line.slice(digits + 1)
  const checksum = Number.parseInt(line.slice(0, digits), 16)
  const complete = crc32(json) === checksum
  if (!complete && (before === undefined || crc32(json, before) !== checksum)) return undefined
  const value: unknown = JSON.parse(json)
  if (inspect(Sample, value) !== undefined) return undefined
  const sample = value as Sample
  return (sample.everyMs !== undefined) === complete ? sample : undefined
}

function traceOfSamples(
  source: string,
  samples: readonly { sample: Sample; gapBefore: boolean }[],
  everyMs: number,
  remarks: readonly string[],
): Trace {
  const indices = new Map<string, number>()
  const nodes: TraceNode[] = []
  for (const { sample } of samples) {
    for (const [name, cores, , memoryMiB] of sample.nodes) {
      const index = indices.get(name) ?? nodes.length
      const most = nodes[index]
      indices.set(name, index)
      nodes[index] = {
        name,
        cores: Math.max(cores, most?.cores ?? 0),
        memoryBytes: Math.max(memoryMiB * 2 ** 20, most?.memoryBytes ?? 0),
      }
    }
  }
  const first = samples[0]!.sample.at
  const untilMs = samples.at(-1)!.sample.at + everyMs
  const gaps = samples.flatMap(({ sample, gapBefore }, i) => {
    if (!gapBefore) return []
    return [
      { fromMs: Math.min(sample.at, samples[i - 1]!.sample.at + everyMs), untilMs: sample.at },
    ]
  })
  const known = gaps.length === 0 ? [] : [`${gaps.length} gaps without samples`]
  return {
    ...{ source, nodes, fromMs: first, untilMs, gaps },
    remarks: [...remarks, ...known],
    changes: () => changes(samples, indices, gaps),
  }
}

function* changes(
  samples: readonly { sample: Sample; gapBefore: boolean }[],
  indices: ReadonlyMap<string, number>,
  gaps: readonly { fromMs: number }[],
): Generator<Change> {
  let idle = new Set<number>()
  let gap = 0
  const nothing = (atMs: number, node: number): Change => {
    return { atMs, node, idleCores: 0, idleMemoryBytes: 0, nextStartMs: undefined }
  }
  for (const { sample, gapBefore } of samples) {
    const { at: atMs, gone = [], everyMs } = sample
    const seen = new Set<number>()
    if (gapBefore) {
      for (const node of idle) yield nothing(gaps[gap]!.fromMs, node)
      idle.clear()
      gap += 1
    }
    for (const [name, , idleCores, , idleMemoryMiB] of sample.nodes) {
      const node = indices.get(name)!
      seen.add(node)
      idle.add(node)
      const idleMemoryBytes = idleMemoryMiB * 2 ** 20
      yield { atMs, node, idleCores, idleMemoryBytes, nextStartMs: undefined }
    }
    // A line that says all also says which nodes there are not.
    const away = everyMs === undefined ? gone.map((name) => indices.get(name)!) : [...idle]
    for (const node of away) {
      if (node === undefined || seen.has(node)) continue
      idle.delete(node)
      yield nothing(atMs, node)
    }
    if (everyMs !== undefined) idle = seen
  }
}
