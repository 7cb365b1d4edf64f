// The resource manager as a library: `rfaas up` and the tests start it in their own process.
import { createLogger } from '../../lib/control/log.js'
import { createServer } from '../../lib/control/server.js'
import { serverSecurity } from '../../lib/control/security.js'
import type { RfaasError } from '../../lib/errors.js'
import { routeAccess } from './access.js'
import { openAlone } from './alone.js'
import { resolveConfig, type ResourceManagerOptions } from './config.js'
import { addDashboardFiles, addDashboardRoute, Dashboard } from './dashboard.js'
import { Harvest } from './harvest.js'
import { createMetrics } from './metrics.js'
import type { Office } from './office.js'
import { addHarvestRoute, addLeaseRoutes, addNodeRoutes } from './server.js'
import { openShared, type Several } from './several.js'

export type { ResourceManagerOptions } from './config.js'

export { UsageReport } from '../../lib/control/report-schemas.js'

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
  const { shared } = config
  if (shared === undefined) {
    const { office, publicKeyPem } = await openAlone(config, logger)
    return serve(office, publicKeyPem, undefined)
  }
  const several = await openShared(shared, options, config, logger)
  return serve(several.leadership, several.publicKeyPem, several)

  // Whatever fails must give the store back, or the next start would be refused.
  async function serve(
    office: Office,
    publicKeyPem: string,
    shares: Several | undefined,
  ): Promise<RunningResourceManager> {
    let dashboard: Dashboard | undefined
    try {
      const harvest = new Harvest(config.slurm, logger)
      const server = await createServer({
        title: 'rfaas resource manager',
        logger,
        assertHealthy: () => office.assertHealthy(),
        warnings: () => harvest.warnings,
        peers: shares?.peers.principalOf,
        // Requests are passed on to who leads, sessions are not.
        hasSessions: () => shares === undefined || office.current !== undefined,
        ...security,
      })
      const { principalOf } = server.door
      addDashboardFiles(server)
      server.door.guard(server.app, routeAccess)
      shares?.passOn(server)
      const metrics = createMetrics(server.registry, office)
      dashboard = new Dashboard(office, metrics, () => harvest.info)
      addDashboardRoute(server, dashboard, principalOf)
      addLeaseRoutes(server, office, metrics, principalOf)
      const { heartbeatMs, host, port } = config
      addNodeRoutes(server, office, { publicKeyPem, heartbeatMs }, principalOf)
      addHarvestRoute(server, () => harvest.info)
      harvest.measureIn(server.registry)
      const url = await server.listen(host, port)
      logger.info({ url }, 'resource manager started')
      await office.start(shared?.advertise ?? url, harvest)
      void office.failed.then((err) =>
        logger.fatal({ err }, 'resource manager serves no more changes'),
      )
      let closing: Promise<void> | undefined
      const close = async (): Promise<void> => {
        office.refuseWaiting()
        shares?.giveUp()
        await server.close()
        dashboard?.stop()
        await office.close()
        logger.info('resource manager stopped')
      }
      return { url, failed: office.failed, close: () => (closing ??= close()) }
    } catch (error) {
      dashboard?.stop()
      await office.close()
      throw error
    }
  }
}
