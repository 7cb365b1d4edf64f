// Control groups: one for each lease, which bounds the memory and the processes of everything that
// runs for it, keeps it on the leased cores, and counts its CPU time to the nanosecond, whatever
// becomes of the processes. Version 2 where it has the controllers, else version 1, where a group is
// a folder in each controller's own tree.
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isRunning, thisProcess } from '../../lib/control/process-identity.js'
import { RfaasError } from '../../lib/errors.js'

const mount = '/sys/fs/cgroup'
const needed = ['memory', 'pids']
// Good to have: the launcher pins workers, and their CPU time is known from /proc, less exactly.
const wished = ['cpuset', 'cpu', 'cpuacct']
// For processes that have been killed to be gone.
const removalMs = 5000
// Emptying a group waits for all processors, again and again: 1 to 16 ms of one of them, which nobody
// who waits for cores has to wait for.
const emptyAfterMs = 1000

export interface GroupLimits {
  memoryBytes: number
  processes: number
  cores: readonly number[]
}

/** The manager's own folder, above those of its leases. */
interface Tree {
  version: 1 | 2
  /** Controller by controller; version 2 has one folder for all. */
  folders: ReadonlyMap<string, string>
}

export class Cgroups {
  readonly #tree: Tree
  /** Groups in which nothing runs any more. */
  readonly #retired: string[] = []
  readonly #closing = new AbortController()
  #emptying: Promise<void> | undefined

  private constructor(tree: Tree) {
    this.#tree = tree
  }

  /** Throws an error that says what is missing. */
  static open(): Cgroups {
    const { pid, startTicks } = thisProcess()
    const name = `rfaas-${pid}-${startTicks}-${randomBytes(4).toString('hex')}`
    return new Cgroups(existsSync(join(mount, 'cgroup.controllers')) ? unified(name) : split(name))
  }

  /** Such as "version 1: memory, pids, cpuset". */
  get description(): string {
    return `version ${this.#tree.version}: ${[...this.#tree.folders.keys()].join(', ')}`
  }

  /** Without limits, and with hardly any right to processors that somebody else wants. */
  create(): Cgroup {
    const name = `lease-${randomBytes(8).toString('hex')}`
    const retire = (folder: string): void => {
      this.#retired.push(folder)
      this.#emptying ??= this.#empty()
    }
    return new Cgroup(this.#tree.version, this.#tree.folders, name, retire)
  }

  /** When the groups of all leases are removed. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#emptying
    for (const folder of new Set(this.#tree.folders.values())) remove(folder)
  }

  /** Cached pages of files would keep the kernel's part of a group of version 1 in memory, for ever. */
  async #empty(): Promise<void> {
    const { signal } = this.#closing
    await sleep(emptyAfterMs, undefined, { signal, ref: false }).catch(() => undefined)
    for (let folder = this.#retired.shift(); folder !== undefined; folder = this.#retired.shift()) {
      await writeFile(join(folder, 'memory.force_empty'), '0').catch(() => undefined)
      remove(folder)
    }
    this.#emptying = undefined
  }
}

export class Cgroup {
  readonly #version: 1 | 2
  readonly #folders = new Map<string, string>()
  readonly #retire: (folder: string) => void

  /** `retire` removes a group of memory in which nothing runs, some time. */
  constructor(
    version: 1 | 2,
    parents: ReadonlyMap<string, string>,
    name: string,
    retire: (folder: string) => void,
  ) {
    this.#version = version
    this.#retire = retire
    try {
      for (const [controller, parent] of parents) {
        const folder = join(parent, name)
        mkdirSync(folder, { recursive: true })
        this.#folders.set(controller, folder)
        this.#open(controller, folder)
      }
    } catch (error) {
      for (const folder of this.#all) remove(folder)
      throw new RfaasError(
        'ERR_RFAAS_EXECUTOR',
        `the control group of a lease cannot be made: ${(error as Error).message}`,
        { cause: error },
      )
    }
  }

  /** Before anything of a lease runs in it. */
  limit(limits: GroupLimits): void {
    try {
      for (const [controller, folder] of this.#folders) this.#limit(controller, folder, limits)
    } catch (error) {
      throw new RfaasError(
        'ERR_RFAAS_EXECUTOR',
        `the control group of a lease cannot be limited: ${(error as Error).message}`,
        { cause: error },
      )
    }
  }

  /** Files through which the launcher, which has one thread, joins. */
  get joinFiles(): string[] {
    const name = this.#version === 1 ? 'tasks' : 'cgroup.procs'
    return [...this.#all].map((folder) => join(folder, name))
  }

  /** Of everything that ever ran in the group; undefined if this host does not count it. */
  get cpuMs(): number | undefined {
    if (this.#version === 1) {
      const nanoseconds = number(this.#file('cpuacct', 'cpuacct.usage'))
      return nanoseconds === undefined ? undefined : nanoseconds / 1e6
    }
    const text = read(this.#file('memory', 'cpu.stat')) ?? ''
    const microseconds = /^usage_usec (\d+)$/m.exec(text)?.[1]
    return microseconds === undefined ? undefined : Number(microseconds) / 1e3
  }

  /** The most that was in use at once; undefined if this host does not say. */
  get peakBytes(): number | undefined {
    const name = this.#version === 1 ? 'memory.max_usage_in_bytes' : 'memory.peak'
    return number(this.#file('memory', name))
  }

  /** How often the kernel has ended a process because the group was out of memory. */
  get outOfMemory(): number {
    const name = this.#version === 1 ? 'memory.oom_control' : 'memory.events'
    return Number(/^oom_kill (\d+)$/m.exec(read(this.#file('memory', name)) ?? '')?.[1] ?? 0)
  }

  /** Ends what is still in it, and removes it. Resolves when nothing runs in it any more. */
  async remove(): Promise<void> {
    const deadline = performance.now() + removalMs
    const memory = this.#version === 1 ? this.#folders.get('memory') : undefined
    for (const folder of this.#all) {
      const gone = (): boolean => (folder === memory ? isEmpty(folder) : remove(folder))
      while (!gone() && performance.now() < deadline) {
        this.#kill(folder)
        await sleep(5)
      }
    }
    if (memory !== undefined) this.#retire(memory)
  }

  get #all(): Set<string> {
    return new Set(this.#folders.values())
  }

  #file(controller: string, name: string): string {
    return join(this.#folders.get(controller) ?? '/nonexistent', name)
  }

  #open(controller: string, folder: string): void {
    if (controller === 'cpu') this.#setShare(folder, 'least')
    if (controller !== 'cpuset' || this.#version === 2) return
    const parent = join(folder, '..')
    copyMemoryNodes(parent, folder)
    writeFileSync(join(folder, 'cpuset.cpus'), readFileSync(join(parent, 'cpuset.cpus')))
  }

  #setShare(folder: string, share: 'least' | 'normal'): void {
    const [name, least, normal] =
      this.#version === 1 ? ['cpu.shares', 2, 1024] : ['cpu.weight', 1, 100]
    writeFileSync(join(folder, name), String(share === 'least' ? least : normal))
  }

  #limit(controller: string, folder: string, limits: GroupLimits): void {
    const set = (name: string, value: string | number): void => {
      writeFileSync(join(folder, name), String(value))
    }
    if (controller === 'memory') {
      set(this.#version === 1 ? 'memory.limit_in_bytes' : 'memory.max', limits.memoryBytes)
      // Memory that was leased is memory, not disk. Not every kernel counts swap.
      if (this.#version === 1) {
        write(join(folder, 'memory.memsw.limit_in_bytes'), String(limits.memoryBytes))
      } else {
        write(join(folder, 'memory.swap.max'), '0')
      }
    } else if (controller === 'pids') {
      set('pids.max', limits.processes)
    } else if (controller === 'cpuset') {
      set('cpuset.cpus', limits.cores.join())
    } else if (controller === 'cpu') {
      this.#setShare(folder, 'normal')
    }
  }

  #kill(folder: string): void {
    if (write(join(folder, 'cgroup.kill'), '1')) return
    for (const pid of (read(join(folder, 'cgroup.procs')) ?? '').split('\n')) {
      if (pid === '') continue
      try {
        process.kill(Number(pid), 'SIGKILL')
      } catch {
        // it has ended meanwhile
      }
    }
  }
}

/** Version 2. A group with processes of its own cannot have controlled children, except the root. */
function unified(name: string): Tree {
  const own = /^0::(\/.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  const problems: string[] = []
  for (const parent of new Set([join(mount, own), mount])) {
    const folder = join(parent, name)
    try {
      const controllers = enable(parent)
      sweep(parent)
      mkdirSync(folder)
      enable(folder)
      return { version: 2, folders: new Map(controllers.map((each) => [each, folder])) }
    } catch (error) {
      remove(folder)
      problems.push((error as Error).message)
    }
  }
  throw new Error(problems.join('; '))
}

/** For the children of `folder`; returns which of those that we use they have. */
function enable(folder: string): string[] {
  const file = join(folder, 'cgroup.controllers')
  const there = readFileSync(file, 'utf8').trim().split(' ')
  const missing = needed.find((controller) => !there.includes(controller))
  if (missing !== undefined) throw new Error(`${file} does not offer ${missing}`)
  const wanted = [...needed, ...wished].filter((controller) => there.includes(controller))
  const enabled = read(join(folder, 'cgroup.subtree_control'))?.trim().split(' ') ?? []
  const text = wanted.filter((each) => !enabled.includes(each)).map((each) => `+${each}`)
  if (text.length > 0) writeFileSync(join(folder, 'cgroup.subtree_control'), text.join(' '))
  return wanted
}

/** Version 1. */
function split(name: string): Tree {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').split('\n')
  const folders = new Map<string, string>()
  try {
    for (const controller of [...needed, ...wished]) {
      const [, path] =
        lines
          .map((line) => /^\d+:([^:]*):(\/.*)$/.exec(line)?.slice(1) ?? [])
          .find(([names]) => names?.split(',').includes(controller)) ?? []
      // In a container the path may be the host's, while the mount shows only our part of the tree.
      const root = join(mount, controller)
      const parent = path !== undefined && existsSync(join(root, path)) ? join(root, path) : root
      try {
        sweep(parent)
        const folder = join(parent, name)
        mkdirSync(folder)
        folders.set(controller, folder)
        if (controller !== 'cpuset') continue
        copyMemoryNodes(parent, folder)
        writeFileSync(join(folder, 'cpuset.cpus'), readFileSync(join(parent, 'cpuset.cpus')))
      } catch (error) {
        if (needed.includes(controller)) throw error
        remove(folders.get(controller) ?? '')
        folders.delete(controller)
      }
    }
    return { version: 1, folders }
  } catch (error) {
    for (const folder of folders.values()) remove(folder)
    throw error
  }
}

/** A group of version 1 takes no process before it knows where its memory may be. */
function copyMemoryNodes(parent: string, folder: string): void {
  writeFileSync(join(folder, 'cpuset.mems'), readFileSync(join(parent, 'cpuset.mems')))
}

/** What managers left behind that were killed: they are empty, and nobody else's. */
function sweep(parent: string): void {
  const { bootId } = thisProcess()
  for (const name of readdirSync(parent)) {
    const [, pid, startTicks] = /^rfaas-(\d+)-(\d+)-[0-9a-f]{8}$/.exec(name) ?? []
    if (startTicks === undefined || isRunning({ pid: Number(pid), startTicks, bootId })) continue
    for (const lease of readdirSync(join(parent, name))) {
      if (lease.startsWith('lease-')) remove(join(parent, name, lease))
    }
    remove(join(parent, name))
  }
}

/** False while something is in it. */
function remove(folder: string): boolean {
  try {
    rmdirSync(folder)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
  }
}

function isEmpty(folder: string): boolean {
  return (read(join(folder, 'cgroup.procs')) ?? '') === ''
}

function write(path: string, text: string): boolean {
  if (!existsSync(path)) return false
  try {
    writeFileSync(path, text)
    return true
  } catch {
    return false
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function number(path: string): number | undefined {
  const text = read(path)
  return text === undefined ? undefined : Number(text)
}
