// Tests on a real Slurm: what they start ends with them.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'vitest'

import type { HarvestInfo } from '../../lib/control/report-schemas.js'
import { Client } from '../../lib/index.js'
import type { Daemon, DaemonOptions } from '../faults/daemon.js'
import { BatchCluster, type BatchClusterOptions, type BatchNodeOptions } from './batch-cluster.js'
import { harvestInfo, metric, startHarvesting } from './harvesting.js'

const cleanups: (() => unknown)[] = []
const folders: string[] = []
const logs: (() => string)[] = []

/** For afterEach: undoes everything in reverse order. What failed shows what everybody has logged. */
export async function cleanUp({ task }: TestContext): Promise<void> {
  const texts = logs.splice(0).map((log) => log())
  if (task.result?.state === 'fail') console.error(texts.join('\n'))
  for (const undo of cleanups.splice(0).reverse()) await undo()
  // Whoever writes to one may have been started before it was made.
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true })
}

export function onCleanUp(undo: () => unknown): void {
  cleanups.push(undo)
}

export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-harvest-'))
  folders.push(path)
  return path
}

export const node = (name: string, cores = 2): BatchNodeOptions => ({
  name,
  cores,
  memoryMiB: 2000,
})

export async function startSlurm(
  nodes: readonly BatchNodeOptions[],
  options: BatchClusterOptions = {},
): Promise<BatchCluster> {
  const slurm = await BatchCluster.start(nodes, options)
  cleanups.push(() => slurm.stop())
  logs.push(() => slurm.logs)
  return slurm
}

export interface Harvest {
  slurm: BatchCluster
  manager: Daemon
  client: Client
  info(): Promise<HarvestInfo>
  metric(name: string): Promise<number>
}

/** `flags`: of the resource manager, instead of what is given here. */
export async function startHarvest(
  slurm: BatchCluster,
  flags: Record<string, string> = {},
  options: DaemonOptions = {},
): Promise<Harvest> {
  const manager = await startHarvesting(slurm, temporaryFolder(), flags, options)
  cleanups.push(() => manager.end('SIGTERM'))
  logs.push(() => `── resource manager\n${manager.log}`)
  const client = await Client.connect(manager.url)
  cleanups.push(() => client.close())
  return {
    slurm,
    manager,
    client,
    info: () => harvestInfo(manager.url),
    metric: (name) => metric(manager.url, name),
  }
}
