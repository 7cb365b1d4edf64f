// A resource manager that harvests a real Slurm, in processes of their own.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'vitest'

import { HarvestInfo } from '../../lib/control/schemas.js'
import { request } from '../../lib/control/http.js'
import { Client } from '../../lib/index.js'
import { Daemon } from '../faults/daemon.js'
import { BatchCluster, type BatchNodeOptions } from './batch-cluster.js'

const cleanups: (() => unknown)[] = []
const logs: (() => string)[] = []

/** For afterEach: undoes everything in reverse order. What failed shows what everybody has logged. */
export async function cleanUp({ task }: TestContext): Promise<void> {
  const texts = logs.splice(0).map((log) => log())
  if (task.result?.state === 'fail') console.error(texts.join('\n'))
  for (const undo of cleanups.splice(0).reverse()) await undo()
}

export function onCleanUp(undo: () => unknown): void {
  cleanups.push(undo)
}

export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-harvest-'))
  cleanups.push(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export const node = (name: string, cores = 2): BatchNodeOptions => ({
  name,
  cores,
  memoryMiB: 2000,
})

export async function startSlurm(
  nodes: readonly BatchNodeOptions[],
  options: { graceSeconds?: number; lines?: string } = {},
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
  env: Record<string, string> = {},
): Promise<Harvest> {
  const folder = temporaryFolder()
  const options: Record<string, string> = {
    '--port': '0',
    '--data-dir': join(folder, 'manager'),
    '--heartbeat-ms': '200ms',
    // A busy machine may keep a node from its heartbeats for a while.
    '--node-timeout-ms': '10s',
    '--source': 'slurm',
    '--slurm-poll-ms': '500ms',
    '--slurm-notice-ms': '20s',
    // Others keep this machine busy.
    '--slurm-nice': '0',
    '--slurm-log': join(slurm.folder, 'log/harvest-%j.out'),
    '--slurm-data-dir': join(folder, 'nodes'),
    ...flags,
  }
  const args = Object.entries(options).flatMap(([flag, value]) =>
    value === '' ? [flag] : [flag, value],
  )
  const manager = await Daemon.start(['resource-manager', ...args], {
    env: { ...slurm.env, ...env },
  })
  cleanups.push(() => manager.end('SIGTERM'))
  logs.push(() => `── resource manager\n${manager.log}`)
  const client = await Client.connect(manager.url)
  cleanups.push(() => client.close())
  return {
    slurm,
    manager,
    client,
    info: () => request(`${manager.url}/v1/harvest`, { schema: HarvestInfo }),
    async metric(name) {
      const text = await (await fetch(`${manager.url}/metrics`)).text()
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `))
      return Number(line?.slice(name.length + 1))
    },
  }
}
