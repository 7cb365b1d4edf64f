// `rfaas/local-cluster`: a whole cluster in this process, for a laptop, for tests, for `rfaas up`.
//
// It stands above the managers, which lib/ otherwise knows nothing of: together with lib/cli it is
// where the parts are put together, and it loads them when it is called.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { RunningExecutorManager } from '../executor-manager/src/index.js'
import { createLogger, type LogLevel } from './control/log.js'
import { invalidArgument } from './errors.js'
import { packageRoot } from './package-root.js'
import { parseBytes } from './units.js'

export interface LocalClusterOptions {
  /** Of the resource manager. Default 0: a free one. */
  port?: number
  /** Of the first node's executor manager; those of others are free ones. Default 0. */
  executorManagerPort?: number
  /** Nodes that this host is divided into: each lends its share of the cores and the memory. Default 1,
   * which is called `local`; more are `local-1`, `local-2` and so on. */
  nodes?: number
  /** Cores to lend: how many, or which ('0-3,8'). Default: all that this process may use. */
  cores?: number | string
  /** Memory to lend: bytes, or text such as '4GiB'. Default: what this process may use. */
  memory?: number | string
  /** Where leases, ledger and function packages are kept. Default: a new folder, removed by close(). */
  dataDir?: string
  /** The node_modules that functions may import from. Default: those of the rfaas package. */
  modulesDir?: string
  /** Workers that wait for a lease, on each node and for each runtime. Default 1. */
  pool?: number
  /** Default 'silent'. */
  logLevel?: LogLevel
  /** Gets the JSON lines of both managers. Default: standard error. */
  logStream?: { write(line: string): void }
}

export interface LocalCluster {
  /** Of the resource manager: what `Client.connect` wants. */
  url: string
  /** Of the first node. */
  executorManagerUrl: string
  /** Ends all leases and both managers. Idempotent. */
  close(): Promise<void>
}

export async function startLocalCluster(options: LocalClusterOptions = {}): Promise<LocalCluster> {
  const [{ startResourceManager }, { startExecutorManager }, { availableMemory, chooseCores }] =
    await Promise.all([
      import('../resource-manager/src/index.js'),
      import('../executor-manager/src/index.js'),
      import('../executor-manager/src/node.js'),
    ])
  const undo: (() => Promise<unknown>)[] = []
  const unwind = async (): Promise<void> => {
    for (const step of undo.reverse()) await step()
  }
  const logger = (name: string) =>
    createLogger({
      name,
      level: options.logLevel ?? 'silent',
      ...(options.logStream === undefined ? {} : { stream: options.logStream }),
    })
  try {
    let { dataDir } = options
    if (dataDir === undefined) {
      const temporary = await mkdtemp(join(tmpdir(), 'rfaas-'))
      undo.push(() => rm(temporary, { recursive: true, force: true }))
      dataDir = temporary
    }
    const resourceManager = await startResourceManager({
      port: options.port ?? 0,
      dataDir: join(dataDir, 'resource-manager'),
      logger: logger('resource-manager'),
    })
    undo.push(() => resourceManager.close())
    const shares = divide(options.nodes ?? 1, chooseCores(options.cores))
    const memoryBytes = parseBytes(options.memory ?? availableMemory(), 'memory')
    const executorManagers: RunningExecutorManager[] = []
    for (const [index, cores] of shares.entries()) {
      const name = shares.length === 1 ? 'local' : `local-${index + 1}`
      const executorManager = await startExecutorManager({
        port: index === 0 ? (options.executorManagerPort ?? 0) : 0,
        resourceManager: resourceManager.url,
        dataDir: join(dataDir, index === 0 ? 'executor-manager' : `executor-manager-${index + 1}`),
        modulesDir: options.modulesDir ?? join(packageRoot(), 'node_modules'),
        name,
        logger: logger('executor-manager'),
        cores,
        memoryBytes: Math.floor(memoryBytes / shares.length),
        ...(options.pool !== undefined && { pool: options.pool }),
      })
      // First of all: it confirms the ends of its leases to the resource manager.
      undo.push(() => executorManager.close())
      executorManagers.push(executorManager)
    }
    let closing: Promise<void> | undefined
    return {
      url: resourceManager.url,
      executorManagerUrl: executorManagers[0]!.url,
      close: () => (closing ??= unwind()),
    }
  } catch (error) {
    await unwind()
    throw error
  }
}

function divide(nodes: number, cores: readonly number[]): number[][] {
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > cores.length) {
    throw invalidArgument('nodes', nodes, `from 1 to ${cores.length}, a core for each`)
  }
  return Array.from({ length: nodes }, (_, node) => cores.filter((_core, i) => i % nodes === node))
}
