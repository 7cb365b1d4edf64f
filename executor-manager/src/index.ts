// The executor manager as a library: `rfaas up` and the tests start it in their own process.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { monotonicMs } from '../../lib/control/clock.js'
import { createFolder } from '../../lib/control/folder.js'
import { createLogger } from '../../lib/control/log.js'
import { createServer } from '../../lib/control/server.js'
import { hostId } from '../../lib/host.js'
import { resolveConfig, type ExecutorManagerOptions } from './config.js'
import { LeaseTable } from './leases.js'
import { createMetrics } from './metrics.js'
import { PackageStore } from './packages.js'
import { Registration } from './registration.js'
import { addClientRoutes } from './server.js'
import { checkSocketFolderLength, createSocketFolder } from './socket-folder.js'

export type { ExecutorManagerOptions } from './config.js'

export interface RunningExecutorManager {
  /** Base URL, with the port that was really bound. */
  url: string
  /** The node's name. */
  name: string
  /** Ends every lease on the node and leaves no process behind. Idempotent. */
  close(): Promise<void>
}

const maxExecutorsPerLease = 16
// An upload may take its time; it is a megabyte a second for the longest package.
const requestTimeoutMs = 5 * 60_000
const closeDeliveryMs = 2000

/** Resolves when it listens and has tried to register once; it goes on trying in the background. */
export async function startExecutorManager(
  options: ExecutorManagerOptions = {},
): Promise<RunningExecutorManager> {
  const config = resolveConfig(options)
  checkSocketFolderLength(config.runtimeParent)
  const logger =
    options.logger ?? createLogger({ name: 'executor-manager', level: options.logLevel ?? 'info' })
  createFolder('dataDir', config.dataDir)
  const packages = await PackageStore.open({
    directory: join(config.dataDir, 'packages'),
    modulesDir: config.modulesDir,
    maxPackageBytes: config.maxPackageBytes,
    maxStoreBytes: config.maxStoreBytes,
  })
  const socketDir = createSocketFolder(config.runtimeParent)
  const removeSocketDir = (): void => rmSync(socketDir, { recursive: true, force: true })

  try {
    const server = await createServer({
      title: 'rfaas executor manager',
      logger,
      requestTimeoutMs,
    })
    const metrics = createMetrics(server.registry, {
      leases: () => leases,
      registration: () => registration,
    })
    const execution = {
      socketDir,
      verbsAddress: config.verbsAddress,
      device: config.device,
      readyTimeoutMs: config.readyTimeoutMs,
    }
    const leases = new LeaseTable({
      node: config.name,
      cores: config.cores,
      packages,
      execution,
      maxExecutorsPerLease,
      graceMs: config.graceMs,
      logger,
      active: (lease) => registration.active(lease),
      closed: (lease, used, cores) => {
        metrics.cpuSeconds.inc(used.cpuMs / 1000)
        metrics.heldCoreSeconds.inc((used.heldMs / 1000) * cores)
        registration.closed(lease, used)
      },
      workerLost: () => metrics.workersLost.inc(),
    })
    const registration: Registration = new Registration({
      resourceManager: config.resourceManager,
      describe: () => ({
        name: config.name,
        url: advertised,
        cores: [...config.cores],
        memoryBytes: config.memoryBytes,
        providers: config.providers,
        hostId: hostId(),
        // In microseconds, so that no two are the same, whichever process of this boot asks.
        sequence: Math.floor(monotonicMs() * 1000),
        leases: [...new Set([...leases.ids, ...registration.unconfirmedLeases])],
      }),
      welcomed: (publicKey) => (leases.publicKey = publicKey),
      end: (lease, reason) => void leases.end(lease, reason),
      logger,
    })
    addClientRoutes(server, {
      leases,
      packages,
      metrics,
      confirmed: (lease) => registration.confirmed(lease, closeDeliveryMs),
    })
    const url = await server.listen(config.host, config.port)
    const advertised = config.advertise ?? url
    await registration.start()
    logger.info({ url, node: config.name, cores: config.cores }, 'executor manager started')

    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      await leases.endAll('the node shuts down')
      await registration.close(closeDeliveryMs)
      await server.close()
      removeSocketDir()
      logger.info('executor manager stopped')
    }
    return { url, name: config.name, close: () => (closing ??= close()) }
  } catch (error) {
    removeSocketDir()
    throw error
  }
}
