// A resource manager that harvests a real Slurm, in a process of its own, and what it says of it.
import { join } from 'node:path'

import { request } from '../../lib/control/http.js'
import { HarvestInfo } from '../../lib/control/report-schemas.js'
import { Daemon, type DaemonOptions } from '../faults/daemon.js'
import type { BatchCluster } from './batch-cluster.js'

/** `flags`: of the resource manager, instead of what is given here. Slurm's environment is added to
 * `options`. */
export function startHarvesting(
  slurm: BatchCluster,
  folder: string,
  flags: Readonly<Record<string, string>> = {},
  { env, wrap }: DaemonOptions = {},
): Promise<Daemon> {
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
  return Daemon.start(['resource-manager', ...args], {
    env: { ...slurm.env, ...env },
    ...(wrap !== undefined && { wrap }),
  })
}

export function harvestInfo(url: string): Promise<HarvestInfo> {
  return request(`${url}/v1/harvest`, { schema: HarvestInfo })
}

/** NaN: there is none of that name. */
export async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `))
  return Number(line?.slice(name.length + 1))
}

/** What its operator is warned of. */
export async function healthWarnings(url: string): Promise<string[]> {
  const answer = await fetch(`${url}/healthz`)
  if (answer.status !== 200) throw new Error(`/healthz answers ${answer.status}`)
  return ((await answer.json()) as { warnings: string[] }).warnings
}
