// What a lease's workers run in: its user, its control group, and for each worker what the launcher
// is told. It lives as long as the lease has processes here, and gives everything back at the end.
import { chownSync, copyFileSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { ExecutorRequest } from '../../lib/control/schemas.js'
import type { Cgroup } from './cgroups.js'
import type { Confinement } from './confinement.js'
import { readablePaths, type SandboxSettings } from './sandbox.js'
import type { UidClaim } from './uids.js'

const MiB = 2 ** 20

// What a worker itself needs beside its buffers and its functions' memory, which are the lease's.
// Of private memory that can be written a JavaScript engine takes a lot and touches little.
const runtimeDataBytes = { native: 64 * MiB, node: 256 * MiB } as const
const runtimeGroupBytes = 64 * MiB
const mostTmpBytes = 64 * MiB
const processesPerWorker = 128
const filesPerWorker = 1024
// Queues of the fabric and the headers of slots.
const fabricBytes = 64 * MiB
const lockedBytes = 64 * 1024

export interface EnclosureSpec {
  cores: readonly number[]
  memoryBytes: number
  /** Of this manager, for folders that only some hosts need. */
  runtimeDir: string
}

export interface WorkerPlace {
  request: ExecutorRequest
  /** As `place` returned it. */
  packagePath: string
  core: number
  /** Where it is to listen; empty for RDMA. */
  socket: string
}

export class Enclosure {
  readonly #confinement: Confinement
  readonly #spec: EnclosureSpec
  readonly #claim: UidClaim | undefined
  readonly #cgroup: Cgroup | undefined
  /** Instead of /tmp, where there is no mount namespace with one of its own. */
  readonly #folder: string | undefined

  constructor(confinement: Confinement, spec: EnclosureSpec) {
    this.#confinement = confinement
    this.#spec = spec
    this.#claim = confinement.uids?.claim()
    try {
      this.#cgroup = confinement.cgroups?.create({
        memoryBytes: spec.memoryBytes + spec.cores.length * runtimeGroupBytes,
        processes: spec.cores.length * processesPerWorker,
        cores: spec.cores,
      })
      if (confinement.has('landlock') && !confinement.has('mount')) {
        this.#folder = mkdtempSync(join(spec.runtimeDir, 'lease-'))
        if (this.#claim) chownSync(this.#folder, this.#claim.uid, this.#claim.uid)
      }
    } catch (error) {
      if (this.#claim) confinement.uids?.release(this.#claim)
      throw error
    }
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
    return this.#cgroup?.cpuMs
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

  settings({ request, packagePath, core, socket }: WorkerPlace): SandboxSettings {
    const { memoryBytes, cores } = this.#spec
    const { allowNetwork: network } = this.#confinement
    const rdma = request.provider === 'verbs'
    const modules = join(dirname(packagePath), 'node_modules')
    return {
      // RDMA devices belong to the host's network; then the other layers forbid the rest of it.
      layer: this.#confinement.active.filter((name) => !(name === 'network' && rdma)),
      ...(this.#claim && { uid: this.#claim.uid }),
      core,
      read: readablePaths([packagePath, modules], { network, rdma }),
      ...(this.#folder !== undefined && { write: [this.#folder] }),
      ...(rdma && { device: ['/dev/infiniband'] }),
      ...(this.#cgroup && { cgroup: this.#cgroup.joinFiles }),
      ...(socket !== '' && { socket, ...ownerOf(request) }),
      network: network ? 1 : 0,
      rdma: rdma ? 1 : 0,
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
    await this.#cgroup?.remove()
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
    if (this.#claim) this.#confinement.uids?.release(this.#claim)
  }
}

/** Only root can give a socket away; another manager's is for its own user, which needs no gift. */
function ownerOf({ clientUid }: ExecutorRequest): { socket_owner?: number } {
  return process.geteuid?.() === 0 && clientUid !== undefined ? { socket_owner: clientUid } : {}
}
