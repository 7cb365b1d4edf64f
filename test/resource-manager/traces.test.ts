import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { expandHostList } from '../../resource-manager/traces/host-list.js'
import { readTrace } from '../../resource-manager/traces/read.js'
import { encodeSample, type Sample } from '../../resource-manager/traces/samples.js'
import type { Trace } from '../../resource-manager/traces/trace.js'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

function fileOf(content: string | Buffer): string {
  const folder = mkdtempSync(join(tmpdir(), 'rfaas-trace-'))
  folders.push(folder)
  writeFileSync(join(folder, 'trace'), content)
  return join(folder, 'trace')
}

const machine = { nodeMemoryBytes: 8 * 2 ** 30 }
const read = (content: string | Buffer, of = {}): Trace =>
  readTrace(fileOf(content), { ...machine, ...of })

/** `seconds since the begin: name=idle cores`, of one node after the other. */
function course(trace: Trace): string[] {
  const lines = [...trace.changes()].map(({ atMs, node, idleCores, nextStartMs }) => {
    const next = nextStartMs === undefined ? '' : ` until ${(nextStartMs - trace.fromMs) / 1000}`
    return `${(atMs - trace.fromMs) / 1000}: ${trace.nodes[node]!.name}=${idleCores}${next}`
  })
  return lines
}

// Four fields of a job matter: submit, wait, run time, processors.
const job = (id: number, submit: number, wait: number, run: number, processors: number): string =>
  `${id} ${submit} ${wait} ${run} ${processors} -1 -1 ${processors} ${run} -1 1 1 1 1 1 1 -1 -1`

const swf = [
  '; MaxNodes: 2',
  '; MaxProcs: 8',
  '; UnixStartTime: 1700000000',
  job(1, 0, 10, 100, 4),
  job(2, 20, 0, 30, 3),
  job(3, 40, 70, 50, 8),
].join('\n')

describe('Standard Workload Format', () => {
  test('jobs take the nodes with the lowest numbers; the next start is known once the job is', () => {
    const trace = read(swf)
    expect(trace.nodes.map(({ name, cores }) => `${name}/${cores}`)).toEqual(['n1/4', 'n2/4'])
    expect(new Date(trace.fromMs).toISOString()).toBe('2023-11-14T22:13:30.000Z')
    expect(course(trace)).toEqual([
      ...['0: n1=0', '0: n2=4', '10: n2=0', '30: n1=0 until 100', '30: n2=0 until 100'],
      // From one job to the next nothing is idle.
      ...['40: n2=4 until 100', '100: n1=0', '100: n2=0', '150: n1=4', '150: n2=4'],
    ])
  })

  test('may be compressed', () => {
    expect(course(read(gzipSync(swf)))).toEqual(course(read(swf)))
  })

  test('says what it assumes and leaves out', () => {
    const { remarks } = read(`${swf}\n${job(4, 60, -1, -1, 4)}`)
    expect(remarks).toContain('1 jobs never ran, or have no times: left out')
  })

  test('names the line that is none', () => {
    expect(() => read(`${swf}\n1 2 three`)).toThrow(
      'line 7: is not a job in Standard Workload Format',
    )
  })

  test('asks for the size of the machine where the header does not say', () => {
    expect(() => read(job(1, 0, 0, 10, 4))).toThrow('--nodes and --cores-per-node')
    expect(read(job(1, 0, 0, 10, 4), { nodes: 3, coresPerNode: 2 }).nodes).toHaveLength(3)
  })
})

describe('tables of Slurm', () => {
  const sacct = [
    'JobID|Submit|Start|End|NodeList|AllocCPUS|ReqMem|State',
    '1|1700000000|1700000000|1700000100|a[1-2]|8|2G|COMPLETED',
    '1.batch|1700000000|1700000000|1700000100|a1|4||COMPLETED',
    '2|1700000010|1700000020|1700000060|b1|2|1Gc|CANCELLED by 0',
    '3|1700000030|Unknown|Unknown|None assigned|4|2G|PENDING',
    '4|1700000050|1700000080|Unknown|b1|2|1Gc|RUNNING',
  ].join('\n')

  test('of sacct: on which nodes jobs ran is known', () => {
    const trace = read(sacct)
    expect(trace.nodes.map(({ name, cores }) => `${name}/${cores}`)).toEqual([
      'a1/4',
      'a2/4',
      'b1/4',
    ])
    expect(course(trace)).toEqual([
      ...['0: a1=0', '0: a2=0', '0: b1=4', '10: b1=4 until 20', '20: b1=2'],
      ...[
        '50: b1=2 until 80',
        '60: b1=4 until 80',
        '80: b1=2',
        '100: a1=4',
        '100: a2=4',
        '100: b1=4',
      ],
    ])
    expect(trace.remarks).toContain('1 jobs had not ended')
    expect(
      [...trace.changes()].find(({ atMs }) => atMs === trace.fromMs + 20_000)?.idleMemoryBytes,
    ).toBe(6 * 2 ** 30)
  })

  test('of squeue: with its own names of the columns', () => {
    const squeue = [
      'JOBID|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|CPUS|MIN_MEMORY|STATE',
      '7|2026-01-31T12:00:00|2026-01-31T12:00:10|2026-01-31T13:00:00|a1|4|2G|RUNNING',
      '8|2026-01-31T12:00:00|2026-01-31T13:00:00|N/A|(Resources)|4|2G|PENDING',
    ].join('\n')
    expect(course(read(squeue))).toEqual(['0: a1=0', '3590: a1=4'])
  })

  test('a table without the columns that are needed says which', () => {
    expect(() => read('JobID|Start\n1|1700000000')).toThrow('has no column End or END_TIME')
  })

  test.each([
    ['n[1-3,07-08],login1', 'n1 n2 n3 n07 n08 login1'],
    ['r[0-1]n[0-1]', 'r0n0 r0n1 r1n0 r1n1'],
    ['n[3-1]', undefined],
    ['n[1-99999999]', undefined],
    ['n[1', undefined],
    ['n 1', undefined],
  ])('the list of hosts %s', (text, names) => {
    expect(expandHostList(text, 1000)?.join(' ')).toBe(names)
  })
})

describe('recorded samples', () => {
  const at = 1_700_000_000_000
  const lines = (samples: readonly Sample[]): string[] => {
    let checksum: number | undefined
    return samples.map((sample) => {
      const encoded = encodeSample(sample, sample.everyMs === undefined ? checksum : undefined)
      ;({ checksum } = encoded)
      return encoded.line
    })
  }
  const whole: Sample[] = [
    {
      at,
      everyMs: 60_000,
      nodes: [
        ['a', 4, 4, 8192, 8192],
        ['b', 4, 0, 8192, 0],
      ],
    },
    { at: at + 60_000, nodes: [['a', 4, 1, 8192, 1024]] },
    { at: at + 120_000, nodes: [['b', 4, 2, 8192, 0]], gone: ['a'] },
  ]

  test('say what changed, and which nodes are gone', () => {
    const trace = read(lines(whole).join(''))
    expect(course(trace)).toEqual(['0: a=4', '0: b=0', '60: a=1', '120: b=2', '120: a=0'])
    expect(trace.untilMs - trace.fromMs).toBe(180_000)
    expect(trace.remarks).toEqual([])
  })

  test('a last one that was not written to its end is left out and told', () => {
    const path = fileOf(lines(whole).slice(0, 2).join(''))
    appendFileSync(path, lines(whole)[2]!.slice(0, -5))
    const trace = readTrace(path, machine)
    expect(course(trace)).toEqual(['0: a=4', '0: b=0', '60: a=1'])
    expect(trace.remarks).toEqual([
      'the last sample, in line 3, was not written to its end: left out',
    ])
  })

  test('after one that is damaged or lost nothing is known until one says all', () => {
    const again: Sample = { at: at + 180_000, everyMs: 60_000, nodes: [['a', 4, 3, 8192, 1024]] }
    const written = lines([...whole, again])
    const damaged = [written[0]!, written[1]!.replace('"a",4,1', '"a",4,2'), ...written.slice(2)]
    const lost = [written[0]!, ...written.slice(2)]
    for (const text of [damaged, lost]) {
      const trace = read(text.join(''))
      expect(course(trace)).toEqual(['0: a=4', '0: b=0', '60: a=0', '60: b=0', '180: a=3'])
      expect(trace.gaps).toEqual([{ fromMs: at + 60_000, untilMs: at + 180_000 }])
    }
  })

  test('a recorder that was away leaves a gap', () => {
    const late: Sample = { at: at + 600_000, everyMs: 60_000, nodes: [['a', 4, 3, 8192, 1024]] }
    const trace = read(lines([whole[0]!, late]).join(''))
    expect(course(trace)).toEqual(['0: a=4', '0: b=0', '60: a=0', '60: b=0', '600: a=3'])
    expect(trace.remarks).toEqual(['1 gaps without samples'])
  })
})

test('what is no trace is refused, with what it might be', () => {
  expect(() => read('hello')).toThrow('is none of: samples')
})
