// What the launcher (native/sandbox) is told, and how it is started.
import { existsSync, lstatSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { Type, type Static } from 'typebox'
import { RfaasError } from '../../lib/errors.js'
import { packageRoot } from '../../lib/package-root.js'
import { Child } from './child.js'
import { sandboxProgram, type Program } from './paths.js'

/** In the order in which people read about them; the launcher knows them by these names. */
export const layerNames = [
  'user',
  'mount',
  'pid',
  'ipc',
  'network',
  'privileges',
  'seccomp',
  'landlock',
  'rlimits',
  'cgroup',
] as const
export type LayerName = (typeof layerNames)[number]

/** A place for a worker: what is known before there is a lease. native/sandbox/config.h says what they
 * mean. */
export interface PlaceSettings {
  layer: readonly LayerName[]
  uid?: number
  read?: readonly string[]
  write?: readonly string[]
  device?: readonly string[]
  cgroup?: readonly string[]
  socket?: string
  network?: 0 | 1
  rdma?: 0 | 1
}

/** What a place is for. */
export interface Assignment {
  core?: number
  package?: readonly string[]
  socket_owner?: number
  tmp_bytes?: number
  data_bytes?: number
  file_bytes?: number
  locked_bytes?: number
  processes?: number
  files?: number
}

/** What comes instead of the worker's events when it could not be confined, and was not started. */
export const UnconfinedEvent = Type.Object({
  event: Type.Literal('unconfined'),
  /** The layer that failed, or `start`. */
  layer: Type.String({ maxLength: 64 }),
  message: Type.String({ maxLength: 4096 }),
})
export type UnconfinedEvent = Static<typeof UnconfinedEvent>

/** Where the launcher puts the worker's socket, as the fabric's address of it. */
export const inheritedSocket = 'fd:4'

/** Where the launcher puts the file for the id of the worker's last request. */
export const startedFd = 5

/** The launcher lets a worker go that was started with this argument: until everything that was asked for
 * holds, it does not look what its work is. */
export const waitForGo = '--go-fd=6'

/** A program in its sandbox. */
export interface Confined {
  /** Its pipes are those of a worker: 0 to 2, and 3 for events. */
  child: Child
  /** Once. */
  assign(assignment: Assignment): void
  /** Instead: nothing will come, everything inside ends. */
  dismiss(): void
}

/** Starts the program, which may hear of its work only when it is let go (`waitForGo`). `held` stays open until
 * everything inside has ended. */
export function spawnConfined(
  program: Program,
  settings: PlaceSettings,
  env: Readonly<Record<string, string>>,
  held: number | undefined,
): Confined {
  const place = encodePart(settings)
  const launcher = { command: sandboxProgram(), args: ['--', program.command, ...program.args] }
  const pipes = ['write', 'read', 'read', 'read', 'write'] as const
  const child = new Child(launcher, env, [...pipes, held ?? 'null'])
  const inbox = child.pipes[4]!
  inbox.write(place)
  void child.exited.then(() => inbox.destroy())
  return {
    child,
    assign: (assignment) => inbox.end(encodePart(assignment)),
    dismiss: () => inbox.end(),
  }
}

/** Lines `key=value`, and an empty one; a list is one line for each. */
function encodePart(settings: PlaceSettings | Assignment): string {
  const entries = Object.entries(settings) as [string, string | number | readonly string[]][]
  return `${entries.map(([key, value]) => encodeLines(key, [value].flat())).join('')}\n`
}

export function encodeLines(key: string, values: readonly (string | number)[]): string {
  return values
    .map((value) => {
      // A line end inside a path would let it pass for another key.
      if (!/[\r\n]/.test(String(value))) return `${key}=${value}\n`
      throw new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `${key} contains a line end`, {
        field: key,
        value,
        allowed: 'one line',
      })
    })
    .join('')
}

// What programs and libraries need in order to run at all. /etc has secrets, too: file by file.
const systemPaths = [
  '/usr',
  '/bin',
  '/sbin',
  '/lib',
  '/lib32',
  '/lib64',
  '/libx32',
  '/etc/alternatives',
  '/etc/ld.so.cache',
  '/etc/localtime',
  '/etc/nsswitch.conf',
  '/etc/ssl/openssl.cnf',
]
const networkPaths = [
  '/etc/gai.conf',
  '/etc/host.conf',
  '/etc/hosts',
  '/etc/pki/tls/certs',
  '/etc/protocols',
  '/etc/resolv.conf',
  '/etc/services',
  '/etc/ssl/certs',
]
const rdmaPaths = ['/etc/libibverbs.d', '/etc/rdma', '/sys']

/** What a worker may read, of what is there: the system, this package, and `more`. */
export function readablePaths(
  more: readonly string[],
  { network, rdma }: { network: boolean; rdma: boolean },
): string[] {
  const found = new Set(ofEveryWorker())
  for (const path of [...(network ? networkPaths : []), ...(rdma ? rdmaPaths : []), ...more]) {
    addPath(path, found)
  }
  // What lies below another one is there with it.
  return [...found].filter((path) => ![...found].some((other) => path.startsWith(`${other}/`)))
}

let everyWorkers: Set<string> | undefined

/** Of the system and of ourselves. It stays what it is: looking each time is a tenth of a start. */
function ofEveryWorker(): ReadonlySet<string> {
  if (everyWorkers !== undefined) return everyWorkers
  everyWorkers = new Set()
  const root = packageRoot()
  const own = ['build/Release', 'dist', 'package.json'].map((name) => join(root, name))
  for (const path of [...systemPaths, process.execPath, ...own]) addPath(path, everyWorkers)
  return everyWorkers
}

/** The path, and where it leads if it is a link: the sandbox repeats links. */
function addPath(path: string, found: Set<string>): void {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status === undefined) return
  found.add(path)
  if (status.isSymbolicLink() && existsSync(path)) found.add(realpathSync(path))
}
