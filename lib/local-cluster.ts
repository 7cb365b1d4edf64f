// `rfaas/local-cluster`: a whole cluster of one node in this process, for a laptop, for tests, for
// `rfaas up`.
//
// It stands above the managers, which lib/ otherwise knows nothing of: together with lib/cli it is
// where the parts are put together, and it loads them when it is called.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { createLogger, type LogLevel } from './control/log.js'
import { packageRoot } from './package-root.js'

export interface LocalClusterOptions {
  /** Of the resource manager. Default 0: a free one. */
  port?: number
  /** Of the executor manager. Default 0. */
  executorManagerPort?: number
  /** Cores to lend: how many, or which ('0-3,8'). Default: all that this process may use. */
  cores?: number | string
  /** Memory to lend: bytes, or text such as '4GiB'. Default: what this process may use. */
  memory?: number | string
  /** Where leases, ledger and function packages are kept. Default: a new folder, removed by close(). */
  dataDir?: string
  /** The node_modules that functions may import from. Default: those of the rfaas package. */
  modulesDir?: string
  /** Default 'silent'. */
  logLevel?: LogLevel
  /** Gets the JSON lines of both managers. Default: standard error. */
  logStream?: { write(line: string): void }
}

export interface LocalCluster {
  /** Of the resource manager: what `Client.connect` wants. */
  url: string
  executorManagerUrl: string
  /** Ends all leases and both managers. Idempotent. */
  close(): Promise<void>
}

export async function startLocalCluster(options: LocalClusterOptions = {}): Promise<LocalCluster> {
  const [{ startResourceManager }, { startExecutorManager }] = await Promise.all([
    import('../resource-manager/src/index.js'),
    import('../executor-manager/src/index.js'),
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
    const executorManager = await startExecutorManager({
      port: options.executorManagerPort ?? 0,
      resourceManager: resourceManager.url,
      dataDir: join(dataDir, 'executor-manager'),
      modulesDir: options.modulesDir ?? join(packageRoot(), 'node_modules'),
      name: 'local',
      logger: logger('executor-manager'),
      ...(options.cores === undefined ? {} : { cores: options.cores }),
      ...(options.memory === undefined ? {} : { memoryBytes: options.memory }),
    })
    // First of all: it confirms the ends of its leases to the resource manager.
    undo.push(() => executorManager.close())
    let closing: Promise<void> | undefined
    return {
      url: resourceManager.url,
      executorManagerUrl: executorManager.url,
      close: () => (closing ??= unwind()),
    }
  } catch (error) {
    await unwind()
    throw error
  }
}
