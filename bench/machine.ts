// Where a result comes from: figures without this are worth nothing later.
import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem, type } from 'node:os'

import { providers } from '../lib/fabric/index.js'
import { packageRoot } from '../lib/package-root.js'
import { formatBytes } from '../lib/units.js'
import { canPin, type Cores } from './cores.js'
import { formatNs } from './table.js'
import { clockCostNs } from './timing.js'

export const root = packageRoot()

export interface Machine {
  date: string
  cpu: string
  cores: number
  memoryBytes: number
  kernel: string
  node: string
  commit: string
  provider: string
  device: string
  clientCore: number
  workerCores: readonly number[]
  /** The worker and the floor keep themselves on their cores, everything else needs taskset(1). */
  pinned: boolean
  /** Part of every sample that JavaScript takes. The floor's own clock is part of its samples. */
  clockNs: number
  load1: number
}

export function describeMachine(provider: string, cores: Cores): Machine {
  const found = providers().find(({ name }) => name === provider)
  const device = found?.devices[0]
  if (found === undefined || !found.available || device === undefined) {
    throw new Error(`provider ${provider} cannot be used here: ${found?.reason ?? 'no device'}`)
  }
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: `${type()} ${release()}`,
    node: process.version,
    commit: commit(),
    provider,
    device: device.name,
    clientCore: cores.client,
    workerCores: cores.workers,
    pinned: canPin(),
    clockNs: clockCostNs(),
    load1: loadavg()[0]!,
  }
}

/** What has to be the same before figures of two runs may be compared, in words. */
export function comparable(machine: Machine): Record<string, string> {
  const { cpu, cores, kernel, provider, device, clientCore, workerCores, pinned } = machine
  return {
    cpu: `${cores} × ${cpu}`,
    kernel,
    provider: `${provider} on ${device}`,
    cores: `${clientCore} and ${workerCores.join(', ')}${pinned ? '' : ', not pinned'}`,
  }
}

/** For the top of a table and of the report. */
export function describe(machine: Machine): string[] {
  const { cpu, cores, memoryBytes, kernel, node, provider, device, clockNs, load1 } = machine
  return [
    `${cores} × ${cpu}, ${formatBytes(memoryBytes)}, ${kernel}, Node ${node}, commit ${machine.commit}, ${machine.date}`,
    `${provider} on ${device}; client on core ${machine.clientCore}, the other side on ${machine.workerCores.join(', ')}` +
      (machine.pinned ? '' : '; taskset(1) is missing: only workers and floors are kept there'),
    `reading the clock takes ${formatNs(clockNs)} of each sample; load at the start ${load1.toFixed(2)}`,
  ]
}

/** With a + when the working tree differs from it. */
function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', root, ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim()
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+'
    return git('rev-parse', '--short=12', 'HEAD') + changed
  } catch {
    return 'unknown'
  }
}
