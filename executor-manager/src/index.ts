// The executor manager as a library: `rfaas up` and the tests start it in their own process.
import { realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { monotonicMs } from '../../lib/control/clock.js'
import { createFolder } from '../../lib/control/folder.js'
import { createLogger } from '../../lib/control/log.js'
import { ManagerUrls } from '../../lib/control/manager-urls.js'
import { keptBefore, serverSecurity } from '../../lib/control/security.js'
import { createServer } from '../../lib/control/server.js'
import { Transport } from '../../lib/control/transport.js'
import { hostId } from '../../lib/host.js'
import { claim } from './claim.js'
import { ManagerClock } from './clock.js'
import { Confinement, explain } from './confinement.js'
import { Enclosure } from './enclosure.js'
import { resolveConfig, type ExecutorManagerOptions } from './config.js'
import { Journal } from './journal.js'
import { LeaseTable } from './leases.js'
import { createMetrics } from './metrics.js'
import { PackageStore } from './packages.js'
import { Pool } from './pool.js'
import { Preparations } from './preparations.js'
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
// What leases used since the last one is lost if this process is killed.
const checkpointMs = 5000

/** Resolves when it listens and has tried to register once; it goes on trying in the background. */
export async function startExecutorManager(
  options: ExecutorManagerOptions = {},
): Promise<RunningExecutorManager> {
  const undo: (() => void | Promise<void>)[] = []
  const unwind = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const { url, name } = await start(options, undo)
    let closing: Promise<void> | undefined
    return { url, name, close: () => (closing ??= unwind()) }
  } catch (error) {
    await unwind()
    throw error
  }
}

/** `undo`: what ends it, in reverse order; whatever fails here, the next start must not be refused. */
async function start(
  options: ExecutorManagerOptions,
  undo: (() => void | Promise<void>)[],
): Promise<{ url: string; name: string }> {
  const config = resolveConfig(options)
  const { name, dataDir, resourceManagers } = config
  checkSocketFolderLength(config.runtimeParent)
  const logger =
    options.logger ?? createLogger({ name: 'executor-manager', level: options.logLevel ?? 'info' })
  const transport = new Transport({
    ca: options.ca,
    // A certificate that serves clients also proves this node to the resource manager.
    cert: options.tlsCert,
    key: options.tlsKey,
    allowPlaintext: options.allowPlaintext,
    failed: keptBefore(logger),
  })
  createFolder('dataDir', dataDir)
  undo.push(await claim(`in the folder ${realpathSync(dataDir)}`, 'dataDir'))
  undo.push(await claim(`node ${name} of ${resourceManagers.join()}`, 'name'))
  undo.push(() => logger.info('executor manager stopped'))
  const journal = await Journal.open(join(dataDir, 'leases.journal'), logger)
  undo.push(() => journal.close())
  const packages = await PackageStore.open({
    directory: join(dataDir, 'packages'),
    modulesDir: config.modulesDir,
    maxPackageBytes: config.maxPackageBytes,
    maxStoreBytes: config.maxStoreBytes,
  })
  const confinement = await Confinement.detect(config.confinement)
  undo.push(() => confinement.close())
  const missing = confinement.layers.filter(({ active }) => !active)
  logger.info({ layers: confinement.active }, 'functions are confined')
  if (missing.length > 0) {
    const reasons = Object.fromEntries(missing.map((layer) => [layer.name, explain(layer)]))
    logger.warn({ layers: reasons }, 'functions are not confined by')
  }
  const socketDir = createSocketFolder(config.runtimeParent)
  undo.push(() => rmSync(socketDir, { recursive: true, force: true }))

  const server = await createServer({
    title: 'rfaas executor manager',
    logger,
    requestTimeoutMs,
    ...serverSecurity(options, logger),
  })
  undo.push(() => server.close())
  const metrics = createMetrics(server.registry, {
    leases: () => leases,
    registration: () => registration,
    pool: () => pool,
    confinement,
  })
  const execution = {
    verbsAddress: config.verbsAddress,
    device: config.device,
    readyTimeoutMs: config.readyTimeoutMs,
  }
  const enclose = (): Enclosure =>
    new Enclosure(confinement, { runtimeDir: socketDir, modules: packages.modules })
  const pool = new Pool({ size: confinement.canWait ? config.pool : 0, enclose, logger })
  undo.push(() => pool.close())
  const clock = new ManagerClock()
  const leases: LeaseTable = new LeaseTable({
    node: name,
    cores: config.cores,
    clock,
    packages,
    execution,
    enclose: ({ lease, cores, memoryBytes }, request) => {
      const { runtime, provider } = request
      const prepared = preparations.take(lease, request)
      if (prepared !== undefined) {
        metrics.enclosures.inc({ runtime, from: prepared.from })
        return prepared
      }
      const waiting = provider === 'shm' ? pool.take(runtime) : undefined
      metrics.enclosures.inc({ runtime, from: waiting === undefined ? 'nothing' : 'pool' })
      const enclosure = waiting ?? enclose()
      try {
        enclosure.begin({ cores, memoryBytes })
        return { enclosure, executor: undefined }
      } catch (error) {
        void enclosure.close()
        throw error
      }
    },
    maxExecutorsPerLease,
    graceMs: config.graceMs,
    logger,
    began: (lease) => journal.began(lease),
    active: (lease) => registration.active(lease),
    closed: async (lease, used, cores) => {
      preparations.drop(lease)
      metrics.cpuSeconds.inc(used.cpuMs / 1000)
      metrics.heldCoreSeconds.inc((used.heldMs / 1000) * cores)
      await journal.ended(lease, used)
      registration.closed(lease, used)
    },
    workerLost: () => metrics.workersLost.inc(),
    crowded: () => registration.renew(),
  })
  const preparations: Preparations = new Preparations({
    pool,
    enclose,
    packages,
    execution,
    isUnknown: (lease) => leases.isUnknown(lease),
    logger,
  })
  undo.push(() => preparations.close())
  const checkpoints = setInterval(() => journal.checkpoint(leases.used), checkpointMs).unref()
  undo.push(() => clearInterval(checkpoints))
  const registration: Registration = new Registration({
    managers: new ManagerUrls(resourceManagers),
    key: config.key,
    transport,
    describe: () => ({
      name,
      url: advertised,
      cores: [...config.cores],
      memoryBytes: config.memoryBytes,
      providers: config.providers,
      hostId: hostId(),
      ...(config.switch !== undefined && { switch: config.switch }),
      ...(config.idleUntilMs !== undefined && { idleUntilMs: config.idleUntilMs }),
      // In microseconds, so that no two are the same, whichever process of this boot asks.
      sequence: Math.floor(monotonicMs() * 1000),
      ...(config.job !== undefined && { job: config.job }),
      // Those whose end is not confirmed count as being on the node: otherwise the resource manager
      // would close them by itself, without what they used.
      leases: [...journal.owed.keys()],
    }),
    calls: () => leases.calls,
    clock,
    welcomed: ({ publicKey, epoch, live }) => leases.welcomed(publicKey, epoch, live),
    end: (lease, reason) => void leases.end(lease, reason),
    revoke: (lease, noticeMs) => {
      preparations.drop(lease)
      leases.revoke(lease, noticeMs)
    },
    prepare: (event) => {
      if (confinement.canWait) preparations.prepare(event)
    },
    confirmed: (lease) => journal.confirmed(lease),
    logger,
  })
  // Of an earlier run of this manager, which was killed or could not reach the resource manager. The
  // workers ended with it, and nothing brings their state back: the leases are over, and the client
  // hears why.
  for (const [lease, used] of journal.owed) {
    leases.endedBefore(lease)
    registration.closed(lease, used)
  }
  addClientRoutes(server, {
    leases,
    packages,
    metrics,
    confirmed: (lease) => registration.confirmed(lease, closeDeliveryMs),
  })
  const url = await server.listen(config.host, config.port)
  const advertised = config.advertise ?? url
  undo.push(() => registration.close(closeDeliveryMs))
  undo.push(() => leases.endAll('the node shuts down'))
  undo.push(async () => {
    const { noticeMs } = config
    if (noticeMs === 0) return
    logger.info({ noticeMs }, 'executor manager ends: its leases are taken back')
    registration.leave(noticeMs)
    await leases.withdraw(noticeMs)
  })
  await registration.start()
  pool.fill()
  logger.info({ url, node: name, cores: config.cores }, 'executor manager started')
  return { url, name }
}
