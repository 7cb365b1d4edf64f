// Nodes: who registered, who still sends heartbeats, and the event stream to each.
import type { EndEvent, NodeInfo, NodeRegistration } from '../../lib/control/schemas.js'
import type { EventStream } from '../../lib/control/server.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import type { Candidate } from '../schedulers/first-fit.js'
import type { LeaseRecord, NodeRecord } from '../stores/store.js'

interface Node {
  record: NodeRecord
  up: boolean
  /** Monotonic, so that a clock that is set does not lose nodes. */
  lastHeard: number
  stream: EventStream | undefined
}

export class NodeTable {
  readonly #nodes = new Map<string, Node>()
  readonly #timeoutMs: number

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  /** A node of an earlier run of the manager: lost until it registers again. */
  restore(record: NodeRecord): void {
    this.#nodes.set(record.name, { record, up: false, lastHeard: 0, stream: undefined })
  }

  /** Refuses a registration that cannot be meant; changes nothing. */
  examine(registration: NodeRegistration): void {
    const { protocol } = new URL(registration.url)
    if (protocol !== 'http:' && protocol !== 'https:') {
      throw invalidArgument('url', registration.url, 'an http or https URL')
    }
    const known = this.#nodes.get(registration.name)
    const { hostId, sequence } = registration
    if (known?.record.hostId === hostId && sequence <= known.record.sequence) {
      // What it says of the node's leases may not be true any more.
      throw new RfaasError(
        'ERR_RFAAS_INVALID_ARGUMENT',
        `sequence is ${sequence}, node ${registration.name} has registered with ${known.record.sequence} already: register with a higher one`,
        { field: 'sequence', value: sequence, status: 409 },
      )
    }
    if (known?.up === true && known.record.hostId !== hostId) {
      throw new RfaasError(
        'ERR_RFAAS_INVALID_ARGUMENT',
        `name is "${registration.name}", which the node at ${known.record.url} on another host has: give every node its own name`,
        { field: 'name', value: registration.name, status: 409 },
      )
    }
  }

  register(registration: NodeRegistration, nowMs: number): NodeRecord {
    const { name, url, memoryBytes, providers, hostId, sequence } = registration
    const cores = [...registration.cores].sort((a, b) => a - b)
    const lastSeenMs = nowMs
    const record = { name, url, cores, memoryBytes, providers, hostId, sequence, lastSeenMs }
    const stream = this.#nodes.get(name)?.stream
    this.#nodes.set(name, { record, up: true, lastHeard: performance.now(), stream })
    return record
  }

  get(name: string): NodeRecord | undefined {
    return this.#nodes.get(name)?.record
  }

  /** Every request of a node counts as a sign of life; false when it has to register (again). */
  heard(name: string, nowMs: number): boolean {
    const node = this.#nodes.get(name)
    if (node === undefined || !node.up) return false
    node.lastHeard = performance.now()
    node.record = { ...node.record, lastSeenMs: nowMs }
    return true
  }

  /** Names of the nodes that fell silent since the last call. */
  markLost(): string[] {
    const now = performance.now()
    const lost: string[] = []
    for (const [name, node] of this.#nodes) {
      if (node.up && now - node.lastHeard > this.#timeoutMs) {
        node.up = false
        lost.push(name)
      }
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
      const current = this.#nodes.get(name)
      if (current?.stream === stream) current.stream = undefined
    })
  }

  /** Best effort: what a node misses is repeated in the answers to its heartbeats. */
  tell(name: string, event: EndEvent): void {
    this.#nodes.get(name)?.stream?.send('end', event)
  }

  countByState(): { up: number; lost: number } {
    let up = 0
    for (const node of this.#nodes.values()) if (node.up) up += 1
    return { up, lost: this.#nodes.size - up }
  }

  /** What can be granted now: nodes that are up, without what `holding` says is taken. */
  candidates(holding: (node: string) => Iterable<LeaseRecord>, only?: string): Candidate[] {
    const candidates: Candidate[] = []
    for (const [name, node] of this.#nodes) {
      if (!node.up || (only !== undefined && only !== name)) continue
      candidates.push({ name, ...free(node.record, holding(name)) })
    }
    return candidates
  }

  list(holding: (node: string) => Iterable<LeaseRecord>): NodeInfo[] {
    return [...this.#nodes.values()].map(({ record, up }) => {
      const { freeCores, freeMemoryBytes } = free(record, holding(record.name))
      return {
        name: record.name,
        url: record.url,
        state: up ? 'up' : 'lost',
        cores: record.cores.length,
        freeCores: freeCores.length,
        memoryBytes: record.memoryBytes,
        freeMemoryBytes,
        providers: record.providers,
        hostId: record.hostId,
        lastSeen: new Date(record.lastSeenMs).toISOString(),
      }
    })
  }
}

function free(
  { cores, memoryBytes }: NodeRecord,
  leases: Iterable<LeaseRecord>,
): { freeCores: number[]; freeMemoryBytes: number } {
  const taken = new Set<number>()
  let takenBytes = 0
  for (const lease of leases) {
    for (const core of lease.cores) taken.add(core)
    takenBytes += lease.memoryBytes
  }
  return {
    freeCores: cores.filter((core) => !taken.has(core)),
    // A node may come back with less memory than its leases were granted.
    freeMemoryBytes: Math.max(0, memoryBytes - takenBytes),
  }
}
