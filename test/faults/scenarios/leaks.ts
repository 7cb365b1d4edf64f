// What thousands of leases must not leave behind.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'

import { invoke, word } from '../calls.js'
import { nativePackage } from '../packages.js'
import { anonymousBytes, countDescriptors, descendants } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, type Stage } from '../stage.js'
import type { Cluster } from '../cluster.js'

const defaultCycles = 300
// The first ones fill caches and let compilers do their work.
const warmUp = 100
// What a heap that does not leak may still grow by, and what a lease may leave in memory: its id is
// remembered for a while, so that its token opens nothing.
const heapNoiseBytes = 24 * 2 ** 20
const bytesPerLease = 2048
// HTTP connections that are kept for the next request: as many as there once were requests at a time.
const pooledConnections = 4
// A small nursery: what dies young does not count as growth.
const managers = { env: { NODE_OPTIONS: '--max-semi-space-size=1' } }

/** What the two managers and the client hold between two leases. */
interface Holdings {
  processes: number
  sockets: number
  memfds: number
  descriptors: number
  socketFiles: number
  /** Anonymous memory; the least of some moments, so that a collection that is due does not count. */
  bytes: number
}

function holdings(cluster: Cluster): Record<string, Holdings> {
  const node = cluster.node()
  const owners = { client: process.pid, node: node.pid, manager: cluster.resourceManager.pid }
  const folders = readdirSync(cluster.folder).filter((name) => name.startsWith('rfaas-'))
  const files = folders.flatMap((name) => readdirSync(`${cluster.folder}/${name}`)).length
  return Object.fromEntries(
    Object.entries(owners).map(([name, pid]) => {
      const { all, sockets, memfds } = countDescriptors(pid)
      const processes = name === 'client' ? 0 : descendants(pid).length
      const socketFiles = name === 'node' ? files : 0
      const bytes = anonymousBytes(pid)
      return [name, { processes, sockets, memfds, descriptors: all, socketFiles, bytes }]
    }),
  )
}

/** The least of each figure in `samples`. */
function least(samples: Record<string, Holdings>[]): Record<string, Holdings> {
  const result = structuredClone(samples[0]!)
  for (const sample of samples) {
    for (const [name, figures] of Object.entries(sample)) {
      for (const key of Object.keys(figures) as (keyof Holdings)[]) {
        result[name]![key] = Math.min(result[name]![key], figures[key])
      }
    }
  }
  return result
}

async function cycles(stage: Stage, count: number): Promise<string> {
  const cluster = await stage.cluster({ resourceManager: managers, executorManager: managers })
  const client = await stage.client(cluster)
  const samples: Record<string, Holdings>[] = []
  const began = performance.now()
  for (let i = 0; i < count; i += 1) {
    const lease = await client.lease({ cores: 2, memory: '64MiB' })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const { code } = await invoke(functions, 'echo', word(i), { timeoutMs: 5000 })
    assert.equal(code, 'ok')
    await lease.release()
    samples.push(holdings(cluster))
    if (i % 1000 === 999) report(i + 1, samples, began)
  }
  const window = Math.min(100, Math.floor((count - warmUp) / 2))
  const before = least(samples.slice(warmUp, warmUp + window))
  const after = least(samples.slice(-window))
  const [usage] = await client.usage()
  assert.equal(usage?.leases, count, 'the ledger has not exactly one entry per lease')
  const grown: string[] = []
  for (const [name, { bytes, ...counts }] of Object.entries(after)) {
    const { bytes: bytesBefore, ...countsBefore } = before[name]!
    for (const key of Object.keys(counts) as (keyof typeof counts)[]) {
      const what = `${name} holds ${counts[key]} ${key} after ${count} cycles`
      const pooled = key === 'sockets' || key === 'descriptors' ? pooledConnections : 0
      assert(counts[key] <= countsBefore[key] + pooled, `${what}, ${countsBefore[key]} before`)
    }
    const perCycle = (bytes - bytesBefore) / (count - warmUp - window)
    const most = heapNoiseBytes + bytesPerLease * count
    assert(bytes - bytesBefore < most, `${name} grew by ${Math.round(perCycle)} bytes a cycle`)
    grown.push(`${name} ${(perCycle / 1024).toFixed(1)} KiB`)
  }
  const rate = (1000 * count) / (performance.now() - began)
  return `${count} cycles, ${rate.toFixed(0)} a second; nothing held; a cycle: ${grown.join(', ')}`
}

function report(done: number, samples: Record<string, Holdings>[], began: number): void {
  const now = least(samples.slice(-100))
  const memory = Object.entries(now).map(
    ([name, { bytes, descriptors }]) =>
      `${name} ${(bytes / 2 ** 20).toFixed(1)} MiB ${descriptors} files`,
  )
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  console.error(`    ${done} cycles in ${seconds} s: ${memory.join(', ')}`)
}

export const leaks: Scenario[] = [
  {
    name: 'leaks',
    fault: 'leases that come and go, with a deployment and a call each (`--cycles N`)',
    promise:
      'Nothing of them is left: no process, shared memory, socket or file, in either manager or the client, and their memory does not grow with them.',
    withinMs: 3_600_000,
    async run(stage) {
      const count = Number(process.env['RFAAS_FAULTS_CYCLES'] ?? defaultCycles)
      return { seen: await cycles(stage, count) }
    },
  },
]
