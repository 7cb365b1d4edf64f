// Where a result comes from: figures without this are worth nothing later.
import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, type } from 'node:os'

import { providers } from '../lib/fabric/index.js'
import { packageRoot } from '../lib/package-root.js'
import { canPin, type Cores } from './cores.js'
import { clockCostNs } from './timing.js'

export const root = packageRoot()

export interface Machine {
  date: string
  cpu: string
  cores: number
  kernel: string
  node: string
  commit: string
  provider: string
  device: string
  clientCore: number
  workerCore: number
  /** The worker and the floor keep themselves on their cores, the client needs taskset(1). */
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
    kernel: `${type()} ${release()}`,
    node: process.version,
    commit: commit(),
    provider,
    device: device.name,
    clientCore: cores.client,
    workerCore: cores.worker,
    pinned: canPin(),
    clockNs: clockCostNs(),
    load1: loadavg()[0]!,
  }
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
