// Options of the executor manager: what is allowed, the defaults, and where its files are.
import { isIPv4, isIPv6 } from 'node:net'
import { homedir, hostname, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { ProviderInfo } from '../../lib/control/schemas.js'
import type { Logger, LogLevel } from '../../lib/control/log.js'
import { readKey } from '../../lib/control/keys.js'
import { parseUrl, parseUrls } from '../../lib/control/manager-urls.js'
import { checkEncrypted, checkExposure, type SecurityOptions } from '../../lib/control/security.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import { native } from '../../lib/native.js'
import { parseBytes, parseDuration } from '../../lib/units.js'
import { confinementModes, type ConfinementMode, type ConfinementOptions } from './confinement.js'
import { availableMemory, chooseCores } from './node.js'
import { parseUidRange } from './uids.js'

export interface ExecutorManagerOptions extends SecurityOptions {
  /** Address to listen on; anything but loopback needs TLS. Default 127.0.0.1. */
  host?: string
  /** 0 takes a free one. Default 7071. */
  port?: number
  /** Name of this node, unique in the cluster. Default: the host's name. */
  name?: string
  /** URL of the resource manager, or several of those that share a store, separated by commas. Default
   * http://127.0.0.1:7070. */
  resourceManager?: string
  /** URL under which clients reach this manager. Default: where it listens. */
  advertise?: string
  /** Where packages are kept. Default `$XDG_STATE_HOME/rfaas/executor-manager`. */
  dataDir?: string
  /** The node_modules that functions in JavaScript may import from. Default: none. */
  modulesDir?: string
  /** Parent of a folder with sockets that is removed at the end. Default `$XDG_RUNTIME_DIR`, or the
   * folder for temporary files. */
  runtimeDir?: string
  /** Cores to lend: how many, or which ('0-3,8'). Default: all that this process may use. */
  cores?: number | string | readonly number[]
  /** Memory to lend. Default: what this host, or the cgroup around this process, has. */
  memoryBytes?: number | string
  /** The switch that this node is on, by any name: for placement by locality. */
  switch?: string
  /** When somebody else is expected to want this node, ISO 8601: for placement by idle time. */
  idleUntil?: string
  /** Fabrics to offer. Default: all that work on this host. */
  providers?: readonly string[]
  /** Where verbs workers listen. Default 0.0.0.0:0. */
  verbsAddress?: string
  /** RDMA device. Default: the first that works. */
  device?: string
  /** Longest function package. Default 256 MiB. */
  maxPackageBytes?: number | string
  /** Packages that nothing uses are removed beyond this. Default 4 GiB. */
  maxStoreBytes?: number | string
  /** How long running calls may go on after their lease has ended. Default 1 s. */
  graceMs?: number | string
  /** When this manager is told to end, its leases are taken back with so much notice, and end as soon as
   * their running calls have. Default 0: they end at once, with `graceMs` for running calls. */
  noticeMs?: number | string
  /** The batch job that this manager runs in: what its leases are charged says so. Default: none. */
  job?: string
  /** Time in which a worker has to be ready. Default 15 s. */
  readyTimeoutMs?: number | string
  /** Workers that wait for a lease, started and confined, for each runtime: its first worker is ready in
   * a millisecond. One for shared libraries takes 1 MiB of memory, one for ES modules 10. Default 1. */
  pool?: number
  /** What keeps functions away from this host and from each other: `auto` is all that the host can
   * do, `strict` refuses to start without any of it, `off` is nothing. Default auto. */
  confinement?: ConfinementMode
  /** Users for leases, `FIRST-LAST`, that nobody else uses; for a manager that is root. Default
   * 1900000000-1900065535. */
  uidRange?: string
  /** Functions may use the network. Default false. */
  allowNetwork?: boolean
  /** API key of this node at the resource manager. Rather `keyFile`: what is in a file is neither in
   * a config file nor in a list of processes. */
  key?: string
  /** File with that key, mode 0600. */
  keyFile?: string
  /** Authorities (PEM) that signed the certificate of the resource manager. Default: the system's. */
  ca?: string
  logLevel?: LogLevel
  /** Instead of a logger of its own at `logLevel`. */
  logger?: Logger
}

export interface Config {
  host: string
  port: number
  name: string
  resourceManagers: readonly string[]
  key: string | undefined
  advertise: string | undefined
  dataDir: string
  modulesDir: string | undefined
  runtimeParent: string
  cores: readonly number[]
  memoryBytes: number
  switch: string | undefined
  idleUntilMs: number | undefined
  providers: ProviderInfo[]
  verbsAddress: string
  device: string
  maxPackageBytes: number
  maxStoreBytes: number
  graceMs: number
  noticeMs: number
  job: string | undefined
  readyTimeoutMs: number
  pool: number
  confinement: ConfinementOptions
}

export function resolveConfig(options: ExecutorManagerOptions): Config {
  const host = options.host ?? '127.0.0.1'
  if (typeof host !== 'string' || host === '') {
    throw invalidArgument('host', host, 'an address or name of this host')
  }
  checkExposure({ host, needsKeys: false }, options)
  if (isAnyAddress(host) && options.advertise === undefined) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `host is "${host}", which is no address that clients can reach: say with --advertise (advertise) under which URL they reach this node, or listen on one of its addresses`,
      { field: 'advertise', value: host, allowed: 'a URL such as https://10.0.0.5:7071' },
    )
  }
  const port = options.port ?? 7071
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw invalidArgument('port', port, 'an integer from 0 to 65535')
  }
  const name = options.name ?? hostname()
  checkIdentifier('name', name)
  if (options.switch !== undefined) checkIdentifier('switch', options.switch)
  if (options.job !== undefined) checkIdentifier('job', options.job)
  const resourceManagers = parseUrls(
    'resourceManager',
    options.resourceManager ?? 'http://127.0.0.1:7070',
  )
  for (const url of resourceManagers) {
    checkEncrypted('resourceManager', url, options.allowPlaintext)
  }
  const verbsAddress = options.verbsAddress ?? '0.0.0.0:0'
  if (!/^(\[[0-9a-fA-F:.]+\]|\d{1,3}(\.\d{1,3}){3}):\d{1,5}$/.test(verbsAddress)) {
    throw invalidArgument('verbsAddress', verbsAddress, 'IP:PORT such as 10.0.0.5:0')
  }
  const pool = options.pool ?? 1
  if (!Number.isInteger(pool) || pool < 0 || pool > 64) {
    throw invalidArgument('pool', pool, 'an integer from 0 to 64')
  }
  const hostMemory = availableMemory()
  const memoryBytes = parseBytes(options.memoryBytes ?? hostMemory, 'memoryBytes')
  if (memoryBytes < 2 ** 20 || memoryBytes > hostMemory) {
    throw invalidArgument('memoryBytes', memoryBytes, `from 1 MiB to ${hostMemory} bytes`)
  }
  return {
    host,
    port,
    name,
    resourceManagers,
    key: readKey(options),
    advertise:
      options.advertise === undefined ? undefined : parseUrl('advertise', options.advertise),
    dataDir: resolve(directory('dataDir', options.dataDir ?? defaultDataDir())),
    modulesDir:
      options.modulesDir === undefined
        ? undefined
        : resolve(directory('modulesDir', options.modulesDir)),
    runtimeParent: resolve(
      directory('runtimeDir', options.runtimeDir ?? process.env['XDG_RUNTIME_DIR'] ?? tmpdir()),
    ),
    cores: chooseCores(options.cores),
    memoryBytes,
    switch: options.switch,
    idleUntilMs: options.idleUntil === undefined ? undefined : parseInstant(options.idleUntil),
    providers: chooseProviders(options.providers),
    verbsAddress,
    device: options.device ?? '',
    maxPackageBytes: parseBytes(options.maxPackageBytes ?? '256MiB', 'maxPackageBytes'),
    maxStoreBytes: parseBytes(options.maxStoreBytes ?? '4GiB', 'maxStoreBytes'),
    graceMs: parseDuration(options.graceMs ?? 1000, 'graceMs'),
    noticeMs: noticeOf(options.noticeMs ?? 0),
    job: options.job,
    readyTimeoutMs: parseDuration(options.readyTimeoutMs ?? 15_000, 'readyTimeoutMs'),
    pool,
    confinement: {
      mode: confinementMode(options.confinement ?? 'auto'),
      uidRange: parseUidRange(options.uidRange),
      allowNetwork: options.allowNetwork === true,
    },
  }
}

function checkIdentifier(field: string, value: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value)) return
  throw invalidArgument(field, value, 'letters, digits, ".", "_" and "-", at most 63 of them')
}

function parseInstant(text: string): number {
  const time = Date.parse(text)
  if (time >= 0) return time
  throw invalidArgument('idleUntil', text, 'a time such as 2026-01-31T12:00Z')
}

function noticeOf(value: number | string): number {
  const milliseconds = parseDuration(value, 'noticeMs')
  if (milliseconds <= 24 * 3_600_000) return milliseconds
  throw invalidArgument('noticeMs', value, 'at most 24h')
}

function confinementMode(mode: string): ConfinementMode {
  const known = confinementModes.find((candidate) => candidate === mode)
  if (known !== undefined) return known
  throw invalidArgument('confinement', mode, `one of ${confinementModes.join(', ')}`)
}

function chooseProviders(wanted: readonly string[] | undefined): ProviderInfo[] {
  const known = native.providers().map(({ name, available, reason }) => ({
    name,
    available,
    reason: reason ?? '',
  }))
  if (wanted === undefined) return known
  return wanted.map((name) => {
    const provider = known.find((candidate) => candidate.name === name)
    const names = known.map((candidate) => candidate.name).join(', ')
    if (provider === undefined) throw invalidArgument('providers', name, `one of ${names}`)
    if (provider.available) return provider
    throw new RfaasError(
      'ERR_RFAAS_FABRIC_UNAVAILABLE',
      `provider ${name} cannot be used on this host: ${provider.reason}`,
      { field: 'providers', value: name },
    )
  })
}

/** All of this host's addresses, as one listens on them. */
function isAnyAddress(host: string): boolean {
  return (
    (isIPv4(host) && /^[0.]+$/.test(host)) || (isIPv6(host) && /^[0:]+(0\.0\.0\.0)?$/.test(host))
  )
}

function directory(field: string, value: unknown): string {
  if (typeof value === 'string' && value !== '') return value
  throw invalidArgument(field, value, 'the path of a directory')
}

function defaultDataDir(): string {
  const state = process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local/state')
  return join(state, 'rfaas/executor-manager')
}
