// Nodes: who registered, who still sends heartbeats, what is free on each, and the event stream to each.
import type {
  EndEvent,
  NodeInfo,
  NodeRegistration,
  PrepareEvent,
  RevokingEvent,
} from '../../lib/control/schemas.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import { Pool } from '../schedulers/pool.js'
import type { Candidate, Room } from '../schedulers/scheduler.js'
import { putIn, takeOut } from '../schedulers/sorted.js'
import type { LeaseRecord, NodeRecord } from '../stores/store.js'
import { Deadlines } from './deadlines.js'

class Node implements Candidate {
  record: NodeRecord
  readonly order: number
  up = false
  /** It has said that it will end: until it registers anew. */
  leaving = false
  /** Its source wants nothing to be granted on it: until it says otherwise, or another job registers. */
  withheld = false
  lastHeardMs = 0
  stream: EventStream | undefined
  /** Parts that hold cores here, by id. */
  readonly held = new Map<string, LeaseRecord>()
  /** Ascending. */
  freeCores: number[] = []
  capacity: Room = { cores: 0, memoryBytes: 0 }
  /** What was said of it since it registered; undefined: nothing. */
  expected: { idleUntilMs: number | undefined } | undefined
  #lent = new Set<number>()
  #heldBytes = 0

  constructor(record: NodeRecord, order: number) {
    this.record = record
    this.order = order
    this.update(record)
  }

  get name(): string {
    return this.record.name
  }

  /** Something can be granted on it. */
  get lends(): boolean {
    return this.up && !this.leaving && !this.withheld && this.record.draining !== true
  }

  get freeMemoryBytes(): number {
    // A node may come back with less memory than its leases were granted.
    return Math.max(0, this.record.memoryBytes - this.#heldBytes)
  }

  get hostId(): string {
    return this.record.hostId
  }

  get switch(): string | undefined {
    return this.record.switch
  }

  get idleUntilMs(): number | undefined {
    return this.expected === undefined ? this.record.idleUntilMs : this.expected.idleUntilMs
  }

  update(record: NodeRecord): void {
    this.record = record
    this.capacity = { cores: record.cores.length, memoryBytes: record.memoryBytes }
    this.#lent = new Set(record.cores)
    const taken = new Set([...this.held.values()].flatMap(({ cores }) => cores))
    this.freeCores = record.cores.filter((core) => !taken.has(core))
  }

  put(lease: LeaseRecord): void {
    const known = this.held.has(lease.id)
    if (lease.state !== 'closed') {
      this.held.set(lease.id, lease)
      if (known) return
      this.#heldBytes += lease.memoryBytes
      takeOut(this.freeCores, lease.cores)
    } else if (known) {
      this.held.delete(lease.id)
      this.#heldBytes -= lease.memoryBytes
      // Those that the node still lends.
      const back = lease.cores.filter((core) => this.#lent.has(core))
      putIn(this.freeCores, back)
    }
  }
}

export class NodeTable {
  /** Those on which something can be granted now. */
  readonly pool = new Pool()
  readonly #nodes = new Map<string, Node>()
  /** When those that are up have been silent for too long. */
  readonly #silence = new Deadlines()
  readonly #timeoutMs: number

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  /** A node of an earlier run of the manager is not up until it registers again. */
  restore(record: NodeRecord): void {
    this.#nodes.set(record.name, new Node(record, this.#nodes.size))
  }

  /** Refuses a registration that cannot be meant; changes nothing. */
  examine(registration: NodeRegistration): void {
    const { protocol } = new URL(registration.url)
    if (protocol !== 'http:' && protocol !== 'https:') {
      throw invalidArgument('url', registration.url, 'an http or https URL')
    }
    const known = this.#nodes.get(registration.name)
    if (known === undefined) return
    const { hostId, sequence } = registration
    if (known.record.hostId === hostId) {
      if (sequence > known.record.sequence) return
      // What it says of the node's leases may not be true any more.
      throw new RfaasError(
        'ERR_RFAAS_INVALID_ARGUMENT',
        `sequence is ${sequence}, node ${registration.name} has registered with ${known.record.sequence} already: register with a higher one`,
        { field: 'sequence', value: sequence, status: 409 },
      )
    }
    if (!known.up) return
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `name is "${registration.name}", which the node at ${known.record.url} on another host has: give every node its own name`,
      { field: 'name', value: registration.name, status: 409 },
    )
  }

  /** What is stored of a node changed. With another registration than before, it is up. */
  update(record: NodeRecord): void {
    let node = this.#nodes.get(record.name)
    const { hostId, sequence, job } = node?.record ?? {}
    const registered = hostId !== record.hostId || sequence !== record.sequence
    if (node === undefined) {
      this.#nodes.set(record.name, (node = new Node(record, this.#nodes.size)))
    }
    node.update(record)
    if (registered) {
      node.expected = undefined
      node.up = true
      node.leaving = false
      if (job !== record.job) node.withheld = false
      this.#hear(node, record.lastSeenMs)
    } else if (record.removed === true) {
      node.up = false
      this.#silence.delete(node.name)
    }
    this.#offer(node)
  }

  /** When somebody else is expected to want the node; undefined: nobody is. Until it registers anew. */
  expect(name: string, idleUntilMs: number | undefined): void {
    const node = this.#nodes.get(name)
    if (node === undefined) return
    node.expected = { idleUntilMs }
    this.#offer(node)
  }

  /** Whether that is new. */
  withhold(name: string, withheld: boolean): boolean {
    const node = this.#nodes.get(name)
    if (node === undefined || node.withheld === withheld) return false
    node.withheld = withheld
    this.#offer(node)
    return true
  }

  /** Also one that was removed: closed leases name it. */
  get(name: string): NodeRecord | undefined {
    return this.#nodes.get(name)?.record
  }

  /** Undefined for one that was removed. */
  registered(name: string): NodeRecord | undefined {
    const record = this.get(name)
    return record?.removed === true ? undefined : record
  }

  isUp(name: string): boolean {
    return this.#nodes.get(name)?.up === true
  }

  /** Every request of a node counts as a sign of life; false when it has to register (again). */
  heard(name: string, nowMs: number): boolean {
    const node = this.#nodes.get(name)
    if (node === undefined || !node.up) return false
    this.#hear(node, nowMs)
    return true
  }

  /** The node is about to end, or has ended: nothing is granted on it until it registers anew. */
  leave(name: string, up: boolean): void {
    const node = this.#nodes.get(name)
    if (node === undefined) return
    node.leaving = true
    node.up &&= up
    if (!node.up) this.#silence.delete(name)
    this.#offer(node)
  }

  /** Nobody could be heard for a while: nodes that were up have all of their time again. */
  excuse(nowMs: number): void {
    for (const { name, up } of this.#nodes.values()) if (up) this.#expectAfter(name, nowMs)
  }

  /** Names of the nodes that fell silent since the last call. */
  markLost(nowMs: number): string[] {
    const lost = this.#silence.due(nowMs)
    for (const name of lost) {
      const node = this.#nodes.get(name)!
      this.#silence.delete(name)
      node.up = false
      this.#offer(node)
    }
    return lost
  }

  /** A node reads one stream; a new one replaces the old, whose connection may be half dead. */
  attach(name: string, stream: EventStream): void {
    const node = this.#nodes.get(name)
    if (node === undefined) return
    node.stream?.end()
    node.stream = stream
    stream.onClose(() => {
      if (node.stream === stream) node.stream = undefined
    })
  }

  /** Best effort: what a node has to do is repeated in the answers to its heartbeats. */
  tell(name: string, event: 'end', data: EndEvent): void
  tell(name: string, event: 'revoking', data: RevokingEvent): void
  tell(name: string, event: 'prepare', data: PrepareEvent): void
  tell(name: string, event: string, data: unknown): void {
    this.#nodes.get(name)?.stream?.send(event, data)
  }

  // ── what is held and free ───────────────────────────────────────────────────────────────────

  /** A part of a lease changed on its node. */
  put(lease: LeaseRecord): void {
    const node = this.#nodes.get(lease.node)
    if (node === undefined) return
    node.put(lease)
    this.#offer(node)
  }

  /** Parts that hold cores of a node, over ones included. */
  holding(name: string): Iterable<LeaseRecord> {
    return this.#nodes.get(name)?.held.values() ?? []
  }

  /** Where something can be granted now, of all nodes or `only` one: those with most free cores, `most`
   * of them, and how many more there are. */
  lending(only: string | undefined, most: number): { shown: Candidate[]; more: number } {
    if (only !== undefined) {
      const node = this.pool.get(only)
      return { shown: node === undefined ? [] : [node], more: 0 }
    }
    const shown: Candidate[] = []
    for (const node of this.pool.all.emptiest(0)) {
      if (shown.length === most) break
      shown.push(node)
    }
    return { shown, more: this.pool.size - shown.length }
  }

  /** `draining`: of those that are up. */
  countByState(): { up: number; draining: number; lost: number } {
    const known = this.#registered()
    const up = known.filter((node) => node.up)
    const draining = up.filter((node) => !node.lends)
    return {
      up: up.length - draining.length,
      draining: draining.length,
      lost: known.length - up.length,
    }
  }

  list(): NodeInfo[] {
    return this.#registered().map((node) => {
      const { record, up, freeCores, freeMemoryBytes, lastHeardMs, idleUntilMs } = node
      return {
        name: record.name,
        url: record.url,
        state: up ? 'up' : 'lost',
        draining: record.draining === true || node.leaving || node.withheld,
        cores: record.cores.length,
        freeCores: freeCores.length,
        memoryBytes: record.memoryBytes,
        freeMemoryBytes,
        providers: record.providers,
        hostId: record.hostId,
        ...(record.job !== undefined && { job: record.job }),
        ...(node.switch !== undefined && { switch: node.switch }),
        ...(idleUntilMs !== undefined && { idleUntil: new Date(idleUntilMs).toISOString() }),
        lastSeen: new Date(Math.max(lastHeardMs, record.lastSeenMs)).toISOString(),
      }
    })
  }

  #registered(): Node[] {
    return [...this.#nodes.values()].filter(({ record }) => record.removed !== true)
  }

  #hear(node: Node, nowMs: number): void {
    node.lastHeardMs = nowMs
    this.#expectAfter(node.name, nowMs)
  }

  #expectAfter(name: string, nowMs: number): void {
    this.#silence.set(name, nowMs + this.#timeoutMs + 1)
  }

  /** What placement sees of it is up to date. */
  #offer(node: Node): void {
    if (node.lends) this.pool.put(node)
    else this.pool.delete(node.name)
  }
}
