// What a lease's workers run in: its user, its control group, and for each worker what the launcher
// is told. It may be made before there is a lease, with a worker that waits in it. It serves one lease,
// lives as long as that has processes here, and gives everything back at the end.
import { randomBytes } from 'node:crypto'
import { chownSync, copyFileSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Logger } from '../../lib/control/log.js'
import { runtimeBytes } from '../../lib/control/memory.js'
import type { ExecutorRequest, Runtime } from '../../lib/control/schemas.js'
import type { Cgroup } from './cgroups.js'
import type { Confinement } from './confinement.js'
import { workerProgram } from './paths.js'
import { readablePaths, waitForGo, type Assignment, type PlaceSettings } from './sandbox.js'
import type { UidClaim } from './uids.js'
import { WorkerProcess } from './worker-process.js'

const MiB = 2 ** 20

// What a worker itself needs beside its buffers and its functions' memory, which are the lease's.
// Of private memory that can be written a JavaScript engine takes a lot and touches little.
const runtimeDataBytes = { native: 64 * MiB, node: 256 * MiB } as const
const mostTmpBytes = 64 * MiB
const processesPerWorker = 128
const filesPerWorker = 1024
// Queues of the fabric and the headers of slots.
const fabricBytes = 64 * MiB
const lockedBytes = 64 * 1024

export interface EnclosureSpec {
  /** Of this manager, for workers' sockets, and for folders that only some hosts need. */
  runtimeDir: string
  /** Where packages find what they import; need not exist. */
  modules: string
}

/** What the lease has. */
export interface EnclosureShare {
  cores: readonly number[]
  memoryBytes: number
}

export interface WorkerPlace {
  request: ExecutorRequest
  /** As `place` returned it. */
  packagePath: string
  core: number
}

export class Enclosure {
  readonly #confinement: Confinement
  readonly #spec: EnclosureSpec
  readonly #claim: UidClaim | undefined
  readonly #cgroup: Cgroup | undefined
  /** Instead of /tmp, where there is no mount namespace with one of its own. */
  readonly #folder: string | undefined
  #share: EnclosureShare = { cores: [], memoryBytes: 0 }
  /** What ran before is not the lease's. */
  #cpuMsBefore = 0
  readonly #readable = new Map<'shm' | 'verbs', string[]>()
  /** Workers that wait for the lease's package, all of one runtime. */
  #waiting: { runtime: Runtime; workers: WorkerProcess[] } | undefined

  constructor(confinement: Confinement, spec: EnclosureSpec) {
    this.#confinement = confinement
    this.#spec = spec
    this.#claim = confinement.uids?.claim()
    try {
      this.#cgroup = confinement.cgroups?.create()
      if (confinement.has('landlock') && !confinement.has('mount')) {
        this.#folder = mkdtempSync(join(spec.runtimeDir, 'lease-'))
        if (this.#claim) chownSync(this.#folder, this.#claim.uid, this.#claim.uid)
      }
    } catch (error) {
      if (this.#claim) confinement.uids?.release(this.#claim)
      throw error
    }
  }

  /** Once: from now on it is the lease's that has this share of the node. */
  begin(share: EnclosureShare): void {
    const { cores, memoryBytes } = share
    this.#share = share
    this.#cpuMsBefore = this.#cgroup?.cpuMs ?? 0
    this.#cgroup?.limit({
      memoryBytes: memoryBytes + cores.length * runtimeBytes,
      processes: cores.length * processesPerWorker,
      cores,
    })
  }

  /** One more worker that waits for the lease's package, or for the lease. */
  prepare(runtime: Runtime, logger: Logger): WorkerProcess {
    const worker = this.#start(runtime, this.#settings(undefined, 'shm'), logger)
    this.#waiting ??= { runtime, workers: [] }
    this.#waiting.workers.push(worker)
    return worker
  }

  /** Those that wait now. */
  get waiting(): readonly WorkerProcess[] {
    return this.#waiting?.workers ?? []
  }

  /** A worker for the package at `packagePath` (as `place` returned it): one that waits, if it can do
   * it, or a new one. */
  start(request: ExecutorRequest, packagePath: string, logger: Logger): WorkerProcess {
    const { runtime, provider } = request
    if (this.#waiting?.runtime === runtime && provider === 'shm') {
      const { workers } = this.#waiting
      const place = workers.findIndex(({ gone }) => !gone)
      if (place !== -1) return workers.splice(place, 1)[0]!
    }
    return this.#start(runtime, this.#settings(packagePath, provider), logger)
  }

  /** Until every worker that was started with it has ended. */
  get held(): number | undefined {
    return this.#claim?.lock
  }

  /** For the environment of workers. */
  get temporaryFolder(): string {
    return this.#folder ?? '/tmp'
  }

  /** CPU time of all that ran here; undefined where only samples of processes tell. */
  get cpuMs(): number | undefined {
    const cpuMs = this.#cgroup?.cpuMs
    return cpuMs === undefined ? undefined : cpuMs - this.#cpuMsBefore
  }

  get peakBytes(): number | undefined {
    return this.#cgroup?.peakBytes
  }

  /** How often the kernel has ended a process because the lease's memory was used up. */
  get outOfMemory(): number {
    return this.#cgroup?.outOfMemory ?? 0
  }

  /** Where workers find the package. Another user than the store's sees it only through a mount. */
  place(packagePath: string): string {
    if (this.#claim === undefined || this.#folder === undefined) return packagePath
    const copy = join(this.#folder, basename(packagePath))
    const modules = join(dirname(packagePath), 'node_modules')
    const link = join(this.#folder, 'node_modules')
    copyFileSync(packagePath, copy)
    if (existsSync(modules) && !existsSync(link)) symlinkSync(modules, link)
    return copy
  }

  assignment({ request, packagePath, core }: WorkerPlace): Assignment {
    const { memoryBytes, cores } = this.#share
    const rdma = request.provider === 'verbs'
    const there = this.#readableOver(request.provider).some((path) =>
      packagePath.startsWith(`${path}/`),
    )
    return {
      core,
      package: there ? [] : [packagePath],
      ...(!rdma && ownerOf(request)),
      tmp_bytes: Math.max(MiB, Math.min(mostTmpBytes, Math.floor(memoryBytes / 4))),
      data_bytes: memoryBytes + fabricBytes + runtimeDataBytes[request.runtime],
      file_bytes: memoryBytes + fabricBytes,
      locked_bytes: rdma ? memoryBytes + fabricBytes : lockedBytes,
      processes: cores.length * processesPerWorker,
      files: filesPerWorker,
    }
  }

  /** When the last worker has ended. Ends whatever else is left of the lease. */
  async close(): Promise<void> {
    await Promise.all(this.waiting.map((worker) => worker.dismiss()))
    await this.#cgroup?.remove()
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
    if (this.#claim) this.#confinement.uids?.release(this.#claim)
  }

  #start(runtime: Runtime, place: PlaceSettings, logger: Logger): WorkerProcess {
    const { command, args } = workerProgram(runtime)
    const program = { command, args: [...args, waitForGo] }
    return new WorkerProcess({ program, enclosure: this, place, logger })
  }

  /** Without a path for a worker that is to wait: then its package is shown to it later. */
  #settings(packagePath: string | undefined, provider: 'shm' | 'verbs'): PlaceSettings {
    const shm = provider === 'shm'
    const { allowNetwork: network } = this.#confinement
    // Landlock alone knows no later.
    const early = packagePath !== undefined && !this.#confinement.has('mount')
    return {
      // RDMA devices belong to the host's network; then the other layers forbid the rest of it.
      layer: this.#confinement.active.filter((name) => shm || name !== 'network'),
      ...(this.#claim && { uid: this.#claim.uid }),
      read: [...this.#readableOver(provider), ...(early ? [packagePath] : [])],
      ...(this.#folder !== undefined && { write: [this.#folder] }),
      ...(!shm && { device: ['/dev/infiniband'] }),
      ...(this.#cgroup && { cgroup: this.#cgroup.joinFiles }),
      ...(shm && { socket: join(this.#spec.runtimeDir, `w-${randomBytes(8).toString('hex')}`) }),
      network: network ? 1 : 0,
      rdma: shm ? 0 : 1,
    }
  }

  /** What a worker may read beside its package. */
  #readableOver(provider: 'shm' | 'verbs'): string[] {
    const { allowNetwork: network } = this.#confinement
    let found = this.#readable.get(provider)
    found ??= readablePaths([this.#spec.modules], { network, rdma: provider === 'verbs' })
    this.#readable.set(provider, found)
    return found
  }
}

/** Only root can give a socket away; another manager's is for its own user, which needs no gift. */
function ownerOf({ clientUid }: ExecutorRequest): { socket_owner?: number } {
  return process.geteuid?.() === 0 && clientUid !== undefined ? { socket_owner: clientUid } : {}
}
