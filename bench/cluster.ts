// The managers in a process of their own, which rests while a driver measures.
import { type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { forkOn } from './cores.js'
import { descendants } from './processes.js'

export interface Cluster {
  /** Of the resource manager. */
  readonly url: string
  readonly pid: number
  /** The workers that run now, and what launched them. */
  workers(): number[]
  close(): Promise<void>
}

export interface ClusterOptions {
  /** Workers that wait, for each runtime. Default 0. */
  pool?: number
  /** Where the managers run. Default: on the cores that they lend. */
  managers?: readonly number[]
}

/** A cluster of one node that lends these cores. Whatever fails between start and end ends it too. */
export async function withCluster<T>(
  cores: readonly number[],
  use: (cluster: Cluster) => Promise<T>,
  options: ClusterOptions = {},
): Promise<T> {
  const cluster = await startCluster(cores, options)
  try {
    return await use(cluster)
  } finally {
    await cluster.close()
  }
}

async function startCluster(
  cores: readonly number[],
  { pool = 0, managers = cores }: ClusterOptions,
): Promise<Cluster> {
  const program = join(import.meta.dirname, 'cluster-process.js')
  const child = forkOn(managers, program, [cores.join(','), String(pool)])
  const url = await urlOf(child)
  const pid = child.pid!
  return {
    url,
    pid,
    workers: () => descendants(pid),
    close: async () => {
      if (child.exitCode !== null) return
      const exited = once(child, 'exit')
      child.disconnect()
      await exited
    },
  }
}

async function urlOf(child: ChildProcess): Promise<string> {
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`the cluster's process ended with ${String(code)}`)
  })
  const [url] = (await Promise.race([once(child, 'message'), ended])) as [string]
  ended.catch(() => undefined)
  return url
}
