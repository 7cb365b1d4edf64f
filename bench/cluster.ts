// The managers in processes of their own, which rest while a driver measures.
import { join } from 'node:path'

import { root } from './machine.js'
import { startManager } from './manager-process.js'
import { descendants } from './processes.js'

export interface Cluster {
  /** Of the resource manager. */
  readonly url: string
  /** Of the executor manager. */
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
  const resourceManager = await startManager('resource-manager', managers, [])
  try {
    const { url } = resourceManager
    const node = await startManager('executor-manager', managers, [
      ...['--resource-manager', url, '--modules-dir', join(root, 'node_modules')],
      // Single numbers would be counts.
      ...['--cores', cores.map((core) => `${core}-${core}`).join(), '--pool', String(pool)],
    ])
    return {
      url,
      pid: node.pid,
      workers: () => descendants(node.pid),
      close: async () => {
        // The node first: it confirms the ends of its leases.
        await node.close()
        await resourceManager.close()
      },
    }
  } catch (error) {
    await resourceManager.close()
    throw error
  }
}
