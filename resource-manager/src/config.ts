// Options of the resource manager: what is allowed, the defaults, and where its files are.
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseUrl, parseUrls } from '../../lib/control/manager-urls.js'
import { checkEncrypted, checkExposure, type SecurityOptions } from '../../lib/control/security.js'
import type { Logger, LogLevel } from '../../lib/control/log.js'
import { invalidArgument } from '../../lib/errors.js'
import { parseBytes, parseDuration } from '../../lib/units.js'
import { schedulerNames, schedulers, type SchedulerName } from '../schedulers/policies.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import {
  refuseSlurmOptions,
  resolveSlurmConfig,
  type SlurmConfig,
  type SlurmOptions,
} from '../sources/slurm/options.js'
import { sourceNames, type SourceName } from '../sources/source.js'

export interface ResourceManagerOptions extends SecurityOptions, SlurmOptions {
  /** Address to listen on; anything but loopback needs keys and TLS. Default 127.0.0.1. */
  host?: string
  /** 0 takes a free one. Default 7070. */
  port?: number
  /** Default `$XDG_STATE_HOME/rfaas/resource-manager`, that is below `~/.local/state`. */
  dataDir?: string
  /** Interval in which nodes report. Default 2 s. */
  heartbeatMs?: number | string
  /** Silence after which a node is lost. Default three heartbeats. */
  nodeTimeoutMs?: number | string
  /** Longest time for which a lease is granted or renewed at once. Default 7 days. */
  maxLeaseMs?: number | string
  /** Refuse changes while the data directory's file system has less left. Default 64 MiB. */
  minFreeBytes?: number | string
  /** How nodes are chosen: schedulers/policies.ts. Default first-fit. */
  scheduler?: SchedulerName
  /** `lmdb`: in the data directory, of one manager. `etcd`: of any number of managers, of which one decides
   * and the others pass requests on to it. Default `lmdb`. */
  store?: 'lmdb' | 'etcd'
  /** URLs of the members of etcd, separated by commas or as a list. Default http://127.0.0.1:2379. */
  etcd?: string | readonly string[]
  /** What its keys begin with: managers of one cluster have the same. Default `rfaas/`. */
  etcdPrefix?: string
  /** Authorities (PEM) of etcd's certificates. */
  etcdCa?: string
  /** Certificate with which this manager comes to etcd (PEM). */
  etcdCert?: string
  /** Its private key, mode 0600. */
  etcdKey?: string
  /** Silence after which another manager leads. Default 5 s. */
  leaderTimeoutMs?: number | string
  /** Where the other managers reach this one. Default: the URL of `host` and `port`. */
  advertise?: string
  /** Authorities (PEM) of the other managers' certificates. Default: those of the system. */
  peerCa?: string
  /** Authorities (PEM) of the nodes: a node then has to show a certificate of its name, too. */
  nodeCa?: string
  /** Where nodes come from: `static` are those that register by themselves, `slurm` also harvests what a
   * batch system leaves idle. Default static. */
  source?: SourceName
  logLevel?: LogLevel
  /** Instead of a logger of its own at `logLevel`. */
  logger?: Logger
}

export interface Config {
  host: string
  port: number
  dataDir: string
  heartbeatMs: number
  nodeTimeoutMs: number
  maxLeaseMs: number
  minFreeBytes: number
  scheduler: Scheduler
  /** Of the source of nodes, unless that is static. */
  slurm: SlurmConfig | undefined
  shared: SharedConfig | undefined
}

/** Of one of several managers. */
export interface SharedConfig {
  etcd: readonly string[]
  prefix: string
  leaderTimeoutMs: number
  /** Undefined: the URL that it listens on. */
  advertise: string | undefined
}

const weekMs = 7 * 24 * 3600 * 1000

export function resolveConfig(options: ResourceManagerOptions): Config {
  const host = options.host ?? '127.0.0.1'
  if (typeof host !== 'string' || host === '') {
    throw invalidArgument('host', host, 'an address or name of this host')
  }
  checkExposure({ host, needsKeys: true }, options)
  const { nodeCa, keysFile, tlsCert } = options
  if (nodeCa !== undefined && (keysFile === undefined || tlsCert === undefined)) {
    throw invalidArgument('nodeCa', nodeCa, 'together with keysFile, tlsCert and tlsKey')
  }
  const port = options.port ?? 7070
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw invalidArgument('port', port, 'an integer from 0 to 65535')
  }
  const dataDir = options.dataDir ?? defaultDataDir()
  if (typeof dataDir !== 'string' || dataDir === '') {
    throw invalidArgument('dataDir', dataDir, 'the path of a directory')
  }
  const heartbeatMs = duration('heartbeatMs', options.heartbeatMs ?? 2000, 10, 3_600_000)
  return {
    host,
    port,
    dataDir: resolve(dataDir),
    heartbeatMs,
    nodeTimeoutMs: duration(
      'nodeTimeoutMs',
      options.nodeTimeoutMs ?? 3 * heartbeatMs,
      heartbeatMs + 1,
      24 * 3_600_000,
    ),
    maxLeaseMs: duration('maxLeaseMs', options.maxLeaseMs ?? weekMs, 1000, weekMs),
    minFreeBytes: parseBytes(options.minFreeBytes ?? '64MiB', 'minFreeBytes'),
    scheduler: schedulers[schedulerName(options.scheduler ?? 'first-fit')],
    slurm: slurmConfig(options),
    shared: sharedConfig(host, options),
  }
}

const sharedOnly = [
  'etcd',
  'etcdPrefix',
  'etcdCa',
  'etcdCert',
  'etcdKey',
  'advertise',
  'leaderTimeoutMs',
  'peerCa',
] as const

function sharedConfig(host: string, options: ResourceManagerOptions): SharedConfig | undefined {
  const { store = 'lmdb', etcd = 'http://127.0.0.1:2379', etcdPrefix = 'rfaas/' } = options
  if (store !== 'lmdb' && store !== 'etcd') throw invalidArgument('store', store, 'lmdb or etcd')
  if (store === 'lmdb') {
    const idle = sharedOnly.find((name) => options[name] !== undefined)
    if (idle === undefined) return undefined
    throw invalidArgument(idle, options[idle], 'together with store etcd')
  }
  const members = parseUrls('etcd', typeof etcd === 'string' ? etcd : etcd.join())
  // It holds the key that signs leases.
  for (const url of members) checkEncrypted('etcd', url, options.allowPlaintext)
  if (typeof etcdPrefix !== 'string' || !/^[\w./-]{1,100}$/.test(etcdPrefix)) {
    throw invalidArgument('etcdPrefix', etcdPrefix, 'up to 100 letters, digits and any of . _ - /')
  }
  const everywhere = ['0.0.0.0', '::'].includes(host)
  if (everywhere && options.advertise === undefined) {
    throw invalidArgument('advertise', undefined, `a URL, as the others cannot reach "${host}"`)
  }
  // The successor has to know the jobs of the one before, and they have to find it.
  if (options.source === 'slurm' && options.slurmUrl === undefined) {
    throw invalidArgument('slurmUrl', undefined, 'the URLs of all managers, the same for each')
  }
  return {
    etcd: members,
    prefix: etcdPrefix,
    leaderTimeoutMs: duration('leaderTimeoutMs', options.leaderTimeoutMs ?? 5000, 2000, 60_000),
    advertise:
      options.advertise === undefined ? undefined : parseUrl('advertise', options.advertise),
  }
}

/** Also for what comes from a config file. */
function schedulerName(name: string): SchedulerName {
  if (schedulerNames.includes(name as SchedulerName)) return name as SchedulerName
  throw invalidArgument('scheduler', name, `one of ${schedulerNames.join(', ')}`)
}

function slurmConfig(options: ResourceManagerOptions): SlurmConfig | undefined {
  const source = options.source ?? 'static'
  if (!sourceNames.includes(source)) {
    throw invalidArgument('source', source, `one of ${sourceNames.join(', ')}`)
  }
  if (source === 'slurm') return resolveSlurmConfig(options)
  refuseSlurmOptions(options)
  return undefined
}

function duration(field: string, value: number | string, minimum: number, maximum: number): number {
  const milliseconds = parseDuration(value, field)
  if (milliseconds >= minimum && milliseconds <= maximum) return milliseconds
  throw invalidArgument(field, value, `from ${minimum} ms to ${maximum} ms`)
}

function defaultDataDir(): string {
  const state = process.env['XDG_STATE_HOME']
  // Relative paths in XDG variables are to be ignored.
  const base = state?.startsWith('/') === true ? state : join(homedir(), '.local', 'state')
  return join(base, 'rfaas', 'resource-manager')
}
