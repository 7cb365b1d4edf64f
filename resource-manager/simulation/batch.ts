// The batch system of a simulation: nodes become idle and busy as in the trace, and what is idle is
// harvested as the source `slurm` does it: at intervals, with a reserve, given back with notice.
import type { Manager } from '../src/manager.js'
import type { Change, Trace } from '../traces/trace.js'
import { HarvestedNode } from './harvested-node.js'
import type { Tally } from './tally.js'
import type { VirtualTime } from './virtual-time.js'
import type { Work } from './work.js'

export interface BatchOptions {
  /** How often it is asked what is idle. */
  pollMs: number
  /** Idle cores that are left to it. */
  reserve: number
  noticeMs: number
  nodesPerSwitch: number
}

/** `busy`: with jobs. `idle`: with nobody. `leaving`: still harvested, as its leases have notice. */
type State = 'busy' | 'idle' | 'harvested' | 'leaving'

interface Machine {
  node: HarvestedNode
  cores: number
  state: State
  /** The node of the trace whose jobs it has, until two machines change places. */
  role: Role
  /** Since when a job waits for it. */
  wantedSinceMs: number | undefined
}

interface Role {
  machine: Machine
  idle: boolean
  nextStartMs: number | undefined
}

export class Batch {
  readonly #options: BatchOptions
  readonly #manager: Manager
  readonly #time: VirtualTime
  readonly #tally: Tally
  readonly #trace: Trace
  readonly #roles: Role[]
  readonly #machines = new Map<string, Machine>()
  /** Idle, not harvested; the one that has been for longest first. */
  readonly #idle = new Set<Machine>()
  #idleCores = 0
  /** The newest last. */
  readonly #harvested = new Set<Machine>()
  readonly #changes: Iterator<Change>
  #next: IteratorResult<Change>

  constructor(
    trace: Trace,
    options: BatchOptions,
    {
      manager,
      time,
      tally,
      work,
    }: { manager: Manager; time: VirtualTime; tally: Tally; work: Work },
  ) {
    this.#options = options
    this.#manager = manager
    this.#time = time
    this.#tally = tally
    this.#trace = trace
    this.#roles = trace.nodes.map(({ name, cores, memoryBytes }, index) => {
      const description = {
        ...{ name, cores: Array.from({ length: cores }, (_, core) => core), memoryBytes },
        switch: `s${Math.floor(index / options.nodesPerSwitch)}`,
      }
      const node = new HarvestedNode(description, manager, work)
      const machine = { node, cores, state: 'busy', wantedSinceMs: undefined } as Machine
      const role: Role = { machine, idle: false, nextStartMs: undefined }
      machine.role = role
      this.#machines.set(name, machine)
      return role
    })
    this.#changes = trace.changes()[Symbol.iterator]()
    this.#next = this.#changes.next()
    this.#replay()
    this.#time.after(0, () => this.#poll())
  }

  node(name: string): HarvestedNode {
    return this.#machines.get(name)!.node
  }

  /** All that changes now, and again when the next thing changes. */
  #replay(): void {
    const nowMs = this.#time.now()
    while (this.#next.done !== true && this.#next.value.atMs <= nowMs) {
      this.#take(this.#next.value)
      this.#next = this.#changes.next()
    }
    if (this.#next.done === true) return
    this.#time.at(this.#next.value.atMs, () => this.#replay())
  }

  #take({ node, idleCores, nextStartMs }: Change): void {
    const role = this.#roles[node]!
    // Nodes are harvested as a whole.
    const idle = idleCores === this.#trace.nodes[node]!.cores
    role.nextStartMs = nextStartMs
    if (idle === role.idle) {
      if (idle) this.#foretell(role.machine)
      return
    }
    role.idle = idle
    if (idle) this.#release(role.machine)
    else this.#occupy(role)
  }

  #release(machine: Machine): void {
    machine.wantedSinceMs = undefined
    if (machine.state !== 'busy') return
    machine.state = 'idle'
    this.#idle.add(machine)
    this.#idleCores += machine.cores
  }

  /** A job starts. It gets a machine that nobody has, if there is one of the same size, before one is
   * taken from leases: so a batch system chooses, too. */
  #occupy(role: Role): void {
    if (role.machine.state !== 'idle') this.#swap(role)
    const { machine } = role
    if (machine.state === 'idle') {
      this.#unlist(machine)
      machine.state = 'busy'
      return
    }
    machine.wantedSinceMs = this.#time.now()
    if (machine.state === 'harvested') this.#giveBack(machine)
  }

  #swap(role: Role): void {
    const { machine } = role
    for (const other of this.#idle) {
      if (other.cores !== machine.cores) continue
      const { role: otherRole } = other
      ;[role.machine, otherRole.machine] = [other, machine]
      ;[other.role, machine.role] = [role, otherRole]
      this.#foretell(machine)
      return
    }
  }

  #foretell({ state, node, role }: Machine): void {
    if (state === 'harvested') this.#manager.expect(node.description.name, role.nextStartMs)
  }

  #poll(): void {
    const { pollMs, reserve } = this.#options
    for (const machine of this.#idle) {
      if (this.#idleCores - machine.cores < reserve) break
      this.#unlist(machine)
      machine.state = 'harvested'
      this.#harvested.add(machine)
      machine.node.join(machine.role.nextStartMs)
    }
    if (this.#idleCores < reserve) {
      const newest = [...this.#harvested].at(-1)
      if (newest !== undefined) this.#giveBack(newest)
    }
    this.#time.after(pollMs, () => this.#poll())
  }

  #giveBack(machine: Machine): void {
    this.#harvested.delete(machine)
    machine.state = 'leaving'
    machine.node.leave(this.#options.noticeMs, () => {
      machine.state = 'busy'
      if (machine.wantedSinceMs !== undefined) {
        this.#tally.jobWaited(this.#time.now() - machine.wantedSinceMs)
        machine.wantedSinceMs = undefined
      }
      if (machine.role.idle) this.#release(machine)
    })
  }

  #unlist(machine: Machine): void {
    this.#idle.delete(machine)
    this.#idleCores -= machine.cores
  }
}
