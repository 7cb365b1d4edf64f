// What thousands of leases must not leave behind.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import type { Client } from '../../../lib/index.js'
import { invoke, word } from '../calls.js'
import type { Cluster } from '../cluster.js'
import { answerFile, folderVariable, live, type Live } from '../memory-probe.js'
import { nativePackage } from '../packages.js'
import { anonymousBytes, countDescriptors, descendants, until } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, type Stage } from '../stage.js'

const defaultCycles = 300
// Looks at what is held, evenly over all cycles; each is the least of as many moments.
const looks = 10
const momentsPerLook = 10
// What may lie between two looks at heaps that hold the same: compiled code, what the resource manager
// remembers of its last 1,000 leases.
const noiseBytes = 2 * 2 ** 20
// And what a heap takes from the system and keeps for itself.
const keptBytes = 16 * 2 ** 20
// A node remembers the ids of leases that ended there until it registers again (65,536 of them), so that
// their tokens open nothing.
const bytesPerLease = 256
// HTTP connections that are kept for the next request: as many as there once were requests at a time.
const pooledConnections = 4

/** What a manager or the client holds between two leases. */
interface Held {
  processes: number
  sockets: number
  memfds: number
  descriptors: number
  socketFiles: number
}

interface Look {
  cycles: number
  held: Record<string, Held>
  memory: Record<string, Live & { anonymousBytes: number }>
}

const ownersOf = (cluster: Cluster): Record<string, number> => ({
  client: process.pid,
  node: cluster.node().pid,
  manager: cluster.resourceManager.pid,
})

function heldNow(cluster: Cluster): Record<string, Held> {
  const folders = readdirSync(cluster.folder).filter((name) => name.startsWith('rfaas-'))
  const files = folders.flatMap((name) => readdirSync(`${cluster.folder}/${name}`)).length
  const entries = Object.entries(ownersOf(cluster)).map(([name, pid]): [string, Held] => {
    const { all: descriptors, sockets, memfds } = countDescriptors(pid)
    const processes = name === 'client' ? 0 : descendants(pid).length
    const socketFiles = name === 'node' ? files : 0
    return [name, { processes, sockets, memfds, descriptors, socketFiles }]
  })
  return Object.fromEntries(entries)
}

/** The least of each figure. */
function least(moments: readonly Record<string, Held>[]): Record<string, Held> {
  const result = structuredClone(moments[0]!)
  for (const moment of moments) {
    for (const [name, figures] of Object.entries(moment)) {
      for (const key of Object.keys(figures) as (keyof Held)[]) {
        result[name]![key] = Math.min(result[name]![key], figures[key])
      }
    }
  }
  return result
}

/** After a collection in each process. */
async function memoryNow(cluster: Cluster): Promise<Look['memory']> {
  const entries = Object.entries(ownersOf(cluster)).map(async ([name, pid]) => {
    const alive = pid === process.pid ? await live() : await ask(cluster.folder, pid)
    return [name, { ...alive, anonymousBytes: anonymousBytes(pid) }] as const
  })
  return Object.fromEntries(await Promise.all(entries))
}

async function ask(folder: string, pid: number): Promise<Live> {
  const file = answerFile(folder, pid)
  process.kill(pid, 'SIGUSR2')
  await until('a manager has told of its memory', () => existsSync(file))
  const alive = JSON.parse(readFileSync(file, 'utf8')) as Live
  rmSync(file)
  return alive
}

async function cycle(client: Client): Promise<void> {
  const lease = await client.lease({ cores: 2, memory: '64MiB' })
  const functions = await lease.deploy(nativePackage(), deployOptions)
  const { code } = await invoke(functions, 'echo', word(1))
  assert.equal(code, 'ok')
  await lease.release()
}

async function cycles(stage: Stage, count: number): Promise<string> {
  const probe = pathToFileURL(join(import.meta.dirname, '../memory-probe.js'))
  const env = { NODE_OPTIONS: `--import=${probe.href}`, [folderVariable]: stage.folder }
  const cluster = await stage.cluster({ resourceManager: { env }, executorManager: { env } })
  const client = await stage.client(cluster)
  const began = performance.now()
  const seen: Look[] = []
  let done = 0
  for (let look = 1; look <= looks; look += 1) {
    const end = Math.round((count * look) / looks)
    const moments: Record<string, Held>[] = []
    for (; done < end; done += 1) {
      await cycle(client)
      if (done >= end - momentsPerLook) moments.push(heldNow(cluster))
    }
    seen.push({ cycles: done, held: least(moments), memory: await memoryNow(cluster) })
    if (count > defaultCycles) report(seen.at(-1)!, began)
  }
  const rate = (1000 * count) / (performance.now() - began)
  const [usage] = await client.usage()
  assert.equal(usage?.leases, count, 'the ledger has not exactly one entry per lease')
  // Caches fill and code is compiled in the beginning.
  const [first, middle, last] = [seen[1]!, seen[looks / 2]!, seen.at(-1)!]
  checkHeld(first, last)
  const grown = checkMemory(middle, last)
  const fileBytes = statSync(join(cluster.folder, 'rm', 'state.mdb')).size / count
  return `${count} cycles, ${rate.toFixed(0)} a second; nothing held; ${grown}; a lease takes ${fileBytes.toFixed(0)} bytes of the store`
}

function checkHeld(first: Look, last: Look): void {
  for (const [name, held] of Object.entries(last.held)) {
    for (const key of Object.keys(held) as (keyof Held)[]) {
      const before = first.held[name]![key]
      const pooled = key === 'sockets' || key === 'descriptors' ? pooledConnections : 0
      const what = `${name} holds ${held[key]} ${key} after ${last.cycles} cycles`
      assert(held[key] <= before + pooled, `${what}, ${before} after ${first.cycles}`)
    }
  }
}

/** How much more is alive, and taken from the system, per cycle between the two. */
function checkMemory(first: Look, last: Look): string {
  const between = last.cycles - first.cycles
  const told = Object.entries(last.memory).map(([name, memory]) => {
    const before = first.memory[name]!
    const grown = (key: keyof typeof memory, noise: number): string => {
      const more = memory[key] - before[key]
      const what = `${name}: ${key} grew from ${before[key]} to ${memory[key]} in ${between} cycles`
      assert(more < noise + bytesPerLease * between, what)
      return (more / between).toFixed(0)
    }
    grown('externalBytes', noiseBytes)
    const heap = grown('heapBytes', noiseBytes)
    return `${name} ${heap} (${grown('anonymousBytes', keptBytes)})`
  })
  return `bytes alive (anonymous) more per cycle: ${told.join(', ')}`
}

function report({ cycles, held, memory }: Look, began: number): void {
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(2)
  const told = Object.entries(memory).map(([name, figures]) => {
    const { heapBytes, externalBytes, anonymousBytes } = figures
    const { processes, sockets, memfds, descriptors } = held[name]!
    const sizes = [heapBytes, externalBytes, anonymousBytes].map(mebibytes).join('/')
    const counts = [processes, descriptors, sockets, memfds].join('/')
    return `${name} ${sizes} MiB heap/external/anonymous, ${counts} processes/files/sockets/memfds`
  })
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  console.error(`    ${cycles} cycles in ${seconds} s: ${told.join('; ')}`)
}

export const leaks: Scenario[] = [
  {
    name: 'leaks',
    fault: 'leases that come and go, with a deployment and a call each (`--cycles N`)',
    promise:
      'Nothing of them is left: no process, shared memory, socket or file, in either manager or the client, and what is alive in their memory does not grow with them.',
    withinMs: 3_600_000,
    async run(stage) {
      const count = Number(process.env['RFAAS_FAULTS_CYCLES'] ?? defaultCycles)
      return { seen: await cycles(stage, count) }
    },
  },
]
