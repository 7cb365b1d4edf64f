// The resource manager as a library: `rfaas up` and the tests start it in their own process.
import type { Registry } from 'prom-client'
import { SteadyClock } from '../../lib/control/clock.js'
import { createFolder } from '../../lib/control/folder.js'
import { createLogger, type Logger } from '../../lib/control/log.js'
import { openPrincipal } from '../../lib/control/principal.js'
import type { HarvestInfo } from '../../lib/control/schemas.js'
import { createServer } from '../../lib/control/server.js'
import { serverSecurity } from '../../lib/control/security.js'
import type { RfaasError } from '../../lib/errors.js'
import { checkLmdbStore } from '../stores/lmdb-check.js'
import { lmdbStorePath, openLmdbStore } from '../stores/lmdb.js'
import { SlurmSource } from '../sources/slurm/slurm.js'
import type { NodeSource } from '../sources/source.js'
import type { Snapshot, Store } from '../stores/store.js'
import { routeAccess } from './access.js'
import { resolveConfig, type Config, type ResourceManagerOptions } from './config.js'
import { loadSigningKeys } from './keys.js'
import { Manager } from './manager.js'
import { createMetrics } from './metrics.js'
import { addHarvestRoute, addLeaseRoutes, addNodeRoutes } from './server.js'

export type { ResourceManagerOptions } from './config.js'

export { UsageReport } from '../../lib/control/schemas.js'

export interface RunningResourceManager {
  /** Base URL, with the port that was really bound. */
  url: string
  /** Resolves with the reason when its store could not be written: it refuses every change from then
   * on, until it is started again in a new process. */
  failed: Promise<RfaasError>
  /** Idempotent; leases and their executors go on. */
  close(): Promise<void>
}

export async function startResourceManager(
  options: ResourceManagerOptions = {},
): Promise<RunningResourceManager> {
  const config = resolveConfig(options)
  const logger =
    options.logger ?? createLogger({ name: 'resource-manager', level: options.logLevel ?? 'info' })
  const security = serverSecurity(options, logger)
  createFolder('dataDir', config.dataDir)
  await checkLmdbStore(lmdbStorePath(config.dataDir))
  const store = openLmdbStore(config.dataDir, config.minFreeBytes)
  // Whatever fails from here on must give the store back, or the next start would be refused.
  try {
    return await serve(store)
  } catch (error) {
    await store.close()
    throw error
  }

  async function serve(opened: Store): Promise<RunningResourceManager> {
    const snapshot = await opened.load()
    const clock = startClock(snapshot)
    await opened.commit({ clock: clock.anchor })
    const { privateKey, publicKeyPem } = loadSigningKeys(config.dataDir)
    const { heartbeatMs, nodeTimeoutMs, maxLeaseMs, scheduler } = config
    const manager = new Manager({
      store: opened,
      snapshot,
      clock,
      privateKey,
      scheduler,
      logger,
      heartbeatMs,
      nodeTimeoutMs,
      maxLeaseMs,
    })
    let source: NodeSource | undefined
    try {
      const server = await createServer({
        title: 'rfaas resource manager',
        logger,
        assertHealthy: () => opened.assertWritable(),
        warnings: () => source?.warnings ?? [],
        ...security,
      })
      const { principalOf } = server.door
      server.door.guard(server.app, routeAccess)
      addLeaseRoutes(server, manager, createMetrics(server.registry, manager), principalOf)
      addNodeRoutes(server, manager, { publicKeyPem, heartbeatMs }, principalOf)
      addHarvestRoute(server, () => source?.info ?? staticSource)
      const url = await server.listen(config.host, config.port)
      source = startSource(config, { manager, url, registry: server.registry, logger })
      logger.info({ url, dataDir: config.dataDir }, 'resource manager started')
      void opened.failed.then((err) =>
        logger.fatal({ err }, 'resource manager serves no more changes'),
      )
      let closing: Promise<void> | undefined
      const close = async (): Promise<void> => {
        manager.refuseWaiting()
        await source?.close()
        await server.close()
        manager.stop()
        await opened.close()
        logger.info('resource manager stopped')
      }
      return { url, failed: opened.failed, close: () => (closing ??= close()) }
    } catch (error) {
      manager.stop()
      throw error
    }
  }
}

const staticSource: HarvestInfo = {
  source: 'static',
  state: 'ok',
  warnings: [],
  nodes: [],
  jobs: [],
  planned: [],
}

function startSource(
  { slurm }: Config,
  { manager, url, ...rest }: { manager: Manager; url: string; registry: Registry; logger: Logger },
): NodeSource | undefined {
  if (slurm === undefined) return undefined
  return new SlurmSource({
    config: slurm,
    resourceManager: slurm.url ?? url,
    nodes: {
      list: () => manager.nodes(),
      remove: (name) => manager.maintenance.remove(openPrincipal, name),
    },
    ...rest,
  })
}

/** As long as a lease holds cores, time goes on as it did: the wall clock may have been set since. */
function startClock({ clock, leases }: Snapshot): SteadyClock {
  const held = leases.some(({ state }) => state !== 'closed')
  return new SteadyClock(held ? clock : undefined)
}
