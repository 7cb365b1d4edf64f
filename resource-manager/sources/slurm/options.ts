// Options of the source `slurm`: what is allowed, and the defaults.
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseUrls } from '../../../lib/control/manager-urls.js'
import { RfaasError, invalidArgument } from '../../../lib/errors.js'
import { parseBytes, parseDuration } from '../../../lib/units.js'

export interface SlurmOptions {
  /** Partition of the harvest jobs, whose jobs every other partition preempts. Default `faas`. */
  slurmPartition?: string
  /** Account and QOS of the harvest jobs. Default: those of the user. */
  slurmAccount?: string
  slurmQos?: string
  /** Most cores in harvest jobs. Default: all that are idle. */
  slurmCap?: number
  /** Idle cores, over the whole partition, that are left to Slurm. Default 0. */
  slurmReserve?: number
  /** Idle memory of every node that is left to Slurm. Default 0. */
  slurmMemoryReserve?: number | string
  /** Also take what is idle on nodes that run other jobs. Slurm has to bind jobs to their cores
   * (TaskPlugin). Default false. */
  slurmShared?: boolean
  /** Interval in which Slurm is asked. Default 5 s. */
  slurmPollMs?: number | string
  /** How long a command of Slurm may take. Default 15 s. */
  slurmCommandTimeoutMs?: number | string
  /** How long something has to be idle before it is taken. Default 0. */
  slurmMinIdleMs?: number | string
  /** Notice that leases get when Slurm wants a node back; less than the partition's GraceTime.
   * Default 30 s. */
  slurmNoticeMs?: number | string
  /** Time limit of harvest jobs. Default: that of the partition. */
  slurmTimeLimitMs?: number | string
  /** Priority of what runs in harvest jobs, 0 to 19, which is the lowest; their input and output comes
   * last in any case. Default 19. */
  slurmNice?: number
  /** Where harvest jobs log, as in `sbatch --output`. Default /dev/null. */
  slurmLog?: string
  /** Folder on every node, for a folder of each executor manager. Default `~/.local/state/rfaas/harvest`. */
  slurmDataDir?: string
  /** Config file of the executor managers, on every node: keys, certificates, confinement. */
  slurmNodeConfig?: string
  /** URL under which nodes reach the resource manager. Default: where it listens. */
  slurmUrl?: string
}

export interface SlurmConfig {
  partition: string
  account: string | undefined
  qos: string | undefined
  cap: number
  reserve: number
  memoryReserveMiB: number
  shared: boolean
  pollMs: number
  commandTimeoutMs: number
  minIdleMs: number
  noticeMs: number
  timeLimitMs: number | undefined
  nice: number
  log: string
  dataDir: string
  nodeConfig: string | undefined
  url: string | undefined
}

export const slurmOptionNames = [
  'slurmPartition',
  'slurmAccount',
  'slurmQos',
  'slurmCap',
  'slurmReserve',
  'slurmMemoryReserve',
  'slurmShared',
  'slurmPollMs',
  'slurmCommandTimeoutMs',
  'slurmMinIdleMs',
  'slurmNoticeMs',
  'slurmTimeLimitMs',
  'slurmNice',
  'slurmLog',
  'slurmDataDir',
  'slurmNodeConfig',
  'slurmUrl',
] as const

const dayMs = 24 * 3_600_000

export function resolveSlurmConfig(options: SlurmOptions): SlurmConfig {
  const { slurmCap, slurmTimeLimitMs, slurmNodeConfig } = options
  return {
    partition: word('slurmPartition', options.slurmPartition ?? 'faas'),
    account: optionalWord('slurmAccount', options.slurmAccount),
    qos: optionalWord('slurmQos', options.slurmQos),
    cap: slurmCap === undefined ? Infinity : whole('slurmCap', slurmCap, 2 ** 31),
    reserve: whole('slurmReserve', options.slurmReserve ?? 0, 2 ** 31),
    memoryReserveMiB: Math.ceil(
      parseBytes(options.slurmMemoryReserve ?? 0, 'slurmMemoryReserve') / 2 ** 20,
    ),
    shared: options.slurmShared === true,
    pollMs: time('slurmPollMs', options.slurmPollMs ?? 5000, 100, dayMs),
    commandTimeoutMs: time(
      'slurmCommandTimeoutMs',
      options.slurmCommandTimeoutMs ?? 15_000,
      100,
      3_600_000,
    ),
    minIdleMs: time('slurmMinIdleMs', options.slurmMinIdleMs ?? 0, 0, dayMs),
    noticeMs: time('slurmNoticeMs', options.slurmNoticeMs ?? 30_000, 1000, 3_600_000),
    timeLimitMs:
      slurmTimeLimitMs === undefined
        ? undefined
        : time('slurmTimeLimitMs', slurmTimeLimitMs, 60_000, 365 * dayMs),
    nice: whole('slurmNice', options.slurmNice ?? 19, 19),
    log: path('slurmLog', options.slurmLog ?? '/dev/null'),
    dataDir: resolve(
      path('slurmDataDir', options.slurmDataDir ?? join(homedir(), '.local/state/rfaas/harvest')),
    ),
    nodeConfig:
      slurmNodeConfig === undefined ? undefined : path('slurmNodeConfig', slurmNodeConfig),
    url:
      options.slurmUrl === undefined ? undefined : parseUrls('slurmUrl', options.slurmUrl).join(),
  }
}

/** They mean nothing to the source `static`: whoever gives one has forgotten something. */
export function refuseSlurmOptions(options: SlurmOptions): void {
  const given = slurmOptionNames.find((name) => options[name] !== undefined)
  if (given === undefined) return
  throw new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `${given} is given, but the source of nodes is static: set source to slurm`,
    { field: given, value: options[given] },
  )
}

function word(field: string, value: string): string {
  if (typeof value === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value)) return value
  throw invalidArgument(field, value, 'letters, digits, ".", "_" and "-", at most 63 of them')
}

function optionalWord(field: string, value: string | undefined): string | undefined {
  return value === undefined ? undefined : word(field, value)
}

function whole(field: string, value: number, maximum: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= maximum) return value
  throw invalidArgument(field, value, `an integer from 0 to ${maximum}`)
}

function time(field: string, value: number | string, minimum: number, maximum: number): number {
  const milliseconds = parseDuration(value, field)
  if (milliseconds >= minimum && milliseconds <= maximum) return milliseconds
  throw invalidArgument(field, value, `from ${minimum} ms to ${maximum} ms`)
}

function path(field: string, value: string): string {
  if (typeof value === 'string' && value.startsWith('/')) return value
  throw invalidArgument(field, value, 'an absolute path, the same on every node')
}
