// What placement knows of the nodes that lend, kept up to date change by change so that a grant looks at
// few of them: by free cores, by host and switch, by expected idle time, and what they have when empty.
import type { Candidate, Room } from './scheduler.js'
import { Shelves } from './shelves.js'
import { placeIn } from './sorted.js'

interface Entry {
  node: Candidate
  /** As they were when it was put: by these it is found again. */
  hostId: string
  switch: string | undefined
  idleUntilMs: number
  capacity: Room
}

export class Pool {
  readonly all = new Shelves()
  readonly #entries = new Map<string, Entry>()
  readonly #hosts = new Map<string, Shelves>()
  readonly #switches = new Map<string, Shelves>()
  /** By idleUntilMs, then in order of registration. */
  readonly #byIdleTime: Entry[] = []
  readonly #capacities = new Capacities()

  get size(): number {
    return this.#entries.size
  }

  get(name: string): Candidate | undefined {
    return this.#entries.get(name)?.node
  }

  /** A node that lends now, or on which something changed. */
  put(node: Candidate): void {
    const entry = {
      ...{ node, hostId: node.hostId, switch: node.switch, capacity: node.capacity },
      idleUntilMs: node.idleUntilMs ?? Infinity,
    }
    const before = this.#entries.get(node.name)
    if (before === undefined || !isSamePlace(before, entry)) {
      this.delete(node.name)
      this.#entries.set(node.name, entry)
      this.#byIdleTime.splice(this.#idlePlace(entry.idleUntilMs, node.order), 0, entry)
      this.#capacities.add(entry.capacity)
    }
    this.all.put(node)
    groupOf(this.#hosts, entry.hostId).put(node)
    if (entry.switch !== undefined) groupOf(this.#switches, entry.switch).put(node)
  }

  delete(name: string): void {
    const entry = this.#entries.get(name)
    if (entry === undefined) return
    this.#entries.delete(name)
    this.all.delete(name)
    leave(this.#hosts, entry.hostId, name)
    if (entry.switch !== undefined) leave(this.#switches, entry.switch, name)
    this.#byIdleTime.splice(this.#idlePlace(entry.idleUntilMs, entry.node.order), 1)
    this.#capacities.remove(entry.capacity)
  }

  onHost(hostId: string): Shelves | undefined {
    return this.#hosts.get(hostId)
  }

  /** The switches that the nodes of a host are on; mostly one. */
  switchesOf(hostId: string): string[] {
    const nodes = this.#hosts.get(hostId)?.fullest(0) ?? []
    return [...new Set(Array.from(nodes, (node) => node.switch))].filter(
      (name) => name !== undefined,
    )
  }

  onSwitch(name: string): Shelves | undefined {
    return this.#switches.get(name)
  }

  switches(): Iterable<Shelves> {
    return this.#switches.values()
  }

  /** Of the nodes that are expected to be idle until then: first the one that is wanted the soonest
   * after it. Then the others: first the one that stays idle for longest. */
  *byIdleTime(untilMs: number): Generator<Candidate> {
    const begin = this.#idlePlace(untilMs, -1)
    for (let i = begin; i < this.#byIdleTime.length; i += 1) yield this.#byIdleTime[i]!.node
    for (let i = begin - 1; i >= 0; i -= 1) yield this.#byIdleTime[i]!.node
  }

  /** Whether the nodes could serve this if nothing were leased, alone or at most so many together. */
  couldServe(demand: Room & { nodes: number }): boolean {
    return this.#capacities.couldServe(demand)
  }

  /** Whether each node meets the condition, which looks at nothing but its capacity. */
  everyCapacity(condition: (capacity: Room) => boolean): boolean {
    return this.#capacities.every(condition)
  }

  #idlePlace(idleUntilMs: number, order: number): number {
    return placeIn(
      this.#byIdleTime,
      (entry) =>
        entry.idleUntilMs < idleUntilMs ||
        (entry.idleUntilMs === idleUntilMs && entry.node.order < order),
    )
  }
}

/** How many nodes there are of each size: a cluster has few sizes. */
class Capacities {
  readonly #counts = new Map<string, { capacity: Room; nodes: number }>()

  add(capacity: Room): void {
    const size = this.#counts.get(keyOf(capacity))
    if (size === undefined) this.#counts.set(keyOf(capacity), { capacity, nodes: 1 })
    else size.nodes += 1
  }

  remove(capacity: Room): void {
    const size = this.#counts.get(keyOf(capacity))!
    size.nodes -= 1
    if (size.nodes === 0) this.#counts.delete(keyOf(capacity))
  }

  every(condition: (capacity: Room) => boolean): boolean {
    for (const { capacity } of this.#counts.values()) if (!condition(capacity)) return false
    return true
  }

  couldServe({ cores, memoryBytes, nodes }: Room & { nodes: number }): boolean {
    const sizes = [...this.#counts.values()]
    if (sizes.some(({ capacity }) => covers(capacity, { cores, memoryBytes }))) return true
    if (nodes < 2) return false
    const rooms = sizes
      .map((size) => ({ cores: coresFor(memoryBytes / cores, size.capacity), nodes: size.nodes }))
      .sort((a, b) => b.cores - a.cores)
    let [coresLeft, nodesLeft] = [cores, nodes]
    for (const room of rooms) {
      const used = Math.min(room.nodes, nodesLeft)
      coresLeft -= used * room.cores
      nodesLeft -= used
    }
    return coresLeft <= 0
  }
}

export function covers(capacity: Room, { cores, memoryBytes }: Room): boolean {
  return capacity.cores >= cores && capacity.memoryBytes >= memoryBytes
}

/** Of so much room, the cores for each of which there is enough memory. */
export function coresFor(bytesPerCore: number, { cores, memoryBytes }: Room): number {
  // Whole bytes, so that a part never takes more than its node has.
  return Math.min(cores, Math.floor(memoryBytes / Math.floor(bytesPerCore)))
}

function keyOf({ cores, memoryBytes }: Room): string {
  return `${cores} ${memoryBytes}`
}

function isSamePlace(a: Entry, b: Entry): boolean {
  return (
    a.node === b.node &&
    a.hostId === b.hostId &&
    a.switch === b.switch &&
    a.idleUntilMs === b.idleUntilMs &&
    a.capacity.cores === b.capacity.cores &&
    a.capacity.memoryBytes === b.capacity.memoryBytes
  )
}

function groupOf(groups: Map<string, Shelves>, name: string): Shelves {
  let group = groups.get(name)
  if (group === undefined) groups.set(name, (group = new Shelves()))
  return group
}

function leave(groups: Map<string, Shelves>, group: string, node: string): void {
  const shelves = groups.get(group)!
  shelves.delete(node)
  if (shelves.size === 0) groups.delete(group)
}
