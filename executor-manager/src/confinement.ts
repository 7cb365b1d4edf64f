// What keeps a tenant's functions away from the host and from one another: layers, each of which a
// host may lack. They are found out once, at start, by really confining a program that does nothing.
// From then on every worker gets all of them, or it does not start.
import { inspect } from '../../lib/control/check.js'
import { RfaasError } from '../../lib/errors.js'
import { Cgroups } from './cgroups.js'
import { readLines } from './lines.js'
import { sandboxProgram } from './paths.js'
import {
  layerNames,
  readablePaths,
  spawnConfined,
  UnconfinedEvent,
  type LayerName,
} from './sandbox.js'
import { Uids, type UidRange } from './uids.js'

export interface Layer {
  name: LayerName
  active: boolean
  /** How it is done here, or why it is not. */
  detail: string
  /** What would make it active. */
  change?: string
}

export const confinementModes = ['strict', 'auto', 'off'] as const
/** strict: every layer, or the manager does not start; auto: what this host can do; off: none. */
export type ConfinementMode = (typeof confinementModes)[number]

export interface ConfinementOptions {
  mode: ConfinementMode
  /** Users for leases; only a manager that is root can use them. */
  uidRange: UidRange
  /** Functions may use the network. */
  allowNetwork?: boolean
}

const probeMs = 10_000
const maxEventBytes = 16 * 1024

const descriptions: Readonly<Record<LayerName, string>> = {
  user: 'a user namespace',
  mount: 'a root of its own, with nothing to write to but a private /tmp',
  pid: 'sees and signals only its own processes',
  ipc: 'System V IPC, host name and control groups of its own',
  network: 'no network',
  privileges: 'no capabilities, no_new_privs',
  seccomp: 'system calls against the kernel and other processes are refused',
  landlock: 'files, TCP and signals are refused a second time',
  rlimits: 'memory, processes and files are limited',
  cgroup: '',
}

const changes: Readonly<Record<LayerName, string>> = {
  user: 'run the manager as root with CAP_SETUID and a uidRange that exists here, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)',
  mount: 'needs Linux 5.12, and CAP_SYS_ADMIN or user namespaces',
  pid: 'needs CAP_SYS_ADMIN or user namespaces, and a /proc that no container has masked',
  ipc: 'needs CAP_SYS_ADMIN or user namespaces',
  network: 'needs CAP_SYS_ADMIN or user namespaces',
  privileges: 'needs a kernel with no_new_privs',
  seccomp: 'needs Linux with CONFIG_SECCOMP_FILTER, on x86_64 or arm64',
  landlock: 'needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock among the lsm= at boot',
  rlimits: 'raise the limits of the manager (ulimit -a)',
  cgroup:
    'run the manager as root, or in a control group that is delegated to it (systemd: Delegate=yes)',
}

// A layer that is of no use, or cannot be had, without another one.
const needs: Readonly<Partial<Record<LayerName, LayerName>>> = {
  pid: 'mount',
  seccomp: 'privileges',
  landlock: 'privileges',
}

type Missing = Map<LayerName, Pick<Layer, 'detail' | 'change'>>

export class Confinement {
  readonly layers: readonly Layer[]
  readonly allowNetwork: boolean
  /** Undefined where leases cannot have users of their own. */
  readonly uids: Uids | undefined
  /** Undefined where this manager may not make control groups. */
  readonly cgroups: Cgroups | undefined

  private constructor(
    layers: readonly Layer[],
    allowNetwork: boolean,
    uids?: Uids,
    cgroups?: Cgroups,
  ) {
    this.layers = layers
    this.allowNetwork = allowNetwork
    this.uids = uids
    this.cgroups = cgroups
  }

  /** Throws when layers are missing and the mode is `strict`. */
  static async detect(options: ConfinementOptions): Promise<Confinement> {
    const { mode, allowNetwork = false } = options
    if (mode === 'off') {
      const layers = layerNames.map((name) => ({ name, active: false, detail: 'turned off' }))
      return new Confinement(layers, allowNetwork)
    }
    const missing: Missing = new Map()
    const uids = process.geteuid?.() === 0 ? new Uids(options.uidRange) : undefined
    const cgroups = openCgroups(missing)
    if (allowNetwork) missing.set('network', { detail: 'functions may use the network' })
    await tryLayers(uids, missing)
    const layers = layerNames.map((name) => {
      const why = missing.get(name)
      if (why !== undefined) return { name, active: false, ...why }
      let detail = descriptions[name]
      if (name === 'cgroup') detail = cgroups?.description ?? ''
      if (name === 'user' && uids !== undefined) detail = 'a user of its own for each lease'
      return { name, active: true, detail }
    })
    if (mode === 'strict') {
      const lacking = layers.filter(
        ({ name, active }) => !active && !(name === 'network' && allowNetwork),
      )
      if (lacking.length > 0) {
        await cgroups?.close()
        throw tooWeak(lacking)
      }
    }
    return new Confinement(layers, allowNetwork, missing.has('user') ? undefined : uids, cgroups)
  }

  get active(): LayerName[] {
    return this.layers.filter(({ active }) => active).map(({ name }) => name)
  }

  has(name: LayerName): boolean {
    return this.layers.some((layer) => layer.name === name && layer.active)
  }

  /** Whether a worker can start before its package is known: Landlock alone cannot allow more later. */
  get canWait(): boolean {
    return this.has('mount') || !this.has('landlock')
  }

  async close(): Promise<void> {
    await this.cgroups?.close()
  }
}

/** Why a layer is missing, and what to do about it. */
export function explain({ detail, change }: Layer): string {
  return change === undefined ? detail : `${detail}: ${change}`
}

function openCgroups(missing: Missing): Cgroups | undefined {
  try {
    return Cgroups.open()
  } catch (error) {
    missing.set('cgroup', { detail: (error as Error).message, change: changes.cgroup })
    return undefined
  }
}

/** Takes away the layer that fails until the rest works; adds to `missing` what was taken away. */
async function tryLayers(uids: Uids | undefined, missing: Missing): Promise<void> {
  const drop = (name: LayerName, message: string): void => {
    missing.set(name, { detail: message, change: changes[name] })
    for (const dependent of layerNames) {
      if (needs[dependent] === name && !missing.has(dependent)) {
        missing.set(dependent, { detail: `needs the layer ${name}` })
      }
    }
  }
  for (;;) {
    const layer = layerNames.filter((name) => name !== 'cgroup' && !missing.has(name))
    const failure = await tryOnce(layer, layer.includes('user') ? uids : undefined)
    if (failure === undefined) return
    const { message } = failure
    const failed = layer.find((name) => name === failure.layer)
    // A program that cannot be started is not to be seen, or not to be reached by another user.
    const suspect = failed ?? (['user', 'mount'] as const).find((name) => layer.includes(name))
    if (suspect === undefined) {
      throw new RfaasError('ERR_RFAAS_EXECUTOR', `workers cannot be started here: ${message}`)
    }
    drop(suspect, message)
  }
}

/** What went wrong, or undefined. */
async function tryOnce(
  layer: readonly LayerName[],
  uids: Uids | undefined,
): Promise<UnconfinedEvent | undefined> {
  const claim = uids?.claim()
  try {
    const settings = {
      layer,
      ...(claim && { uid: claim.uid }),
      read: readablePaths([], { network: false, rdma: false }),
    }
    const program = { command: sandboxProgram(), args: ['--nothing'] }
    const { child, assign } = spawnConfined(program, settings, {}, claim?.lock)
    assign({ tmp_bytes: 2 ** 20, processes: 16, files: 64 })
    const events = child.pipes[3]!
    const timer = setTimeout(() => {
      child.kill()
      events.destroy() // somebody else may hold its other end
    }, probeMs)
    let said: UnconfinedEvent | undefined
    const heard = new Promise((resolve) => events.once('close', resolve))
    readLines(events, maxEventBytes, {
      line: (text) => (said ??= parse(text)),
      tooLong: () => 'end',
    })
    const [{ code, signal }] = await Promise.all([child.exited, heard])
    clearTimeout(timer)
    for (const pipe of child.pipes) pipe?.destroy()
    if (code === 0) return undefined
    const message = `ended with ${signal ?? code}`
    return said ?? { event: 'unconfined', layer: 'start', message }
  } finally {
    if (claim !== undefined) uids?.release(claim)
  }
}

function parse(text: string): UnconfinedEvent | undefined {
  try {
    const event: unknown = JSON.parse(text)
    return inspect(UnconfinedEvent, event) === undefined ? (event as UnconfinedEvent) : undefined
  } catch {
    return undefined
  }
}

function tooWeak(lacking: readonly Layer[]): RfaasError {
  const list = lacking.map((layer) => `${layer.name} (${explain(layer)})`).join('; ')
  return new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `confinement is strict, and this host lacks ${list}`,
    { field: 'confinement', value: 'strict', allowed: 'auto, which does without' },
  )
}
