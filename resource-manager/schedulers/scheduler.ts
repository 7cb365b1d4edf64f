// Placement: which nodes and which of their cores a request gets. A policy is a pure function of what
// is asked for and what is free; policies.ts has the list of them.
import type { Pool } from './pool.js'

/** A node that lends, as placement sees it. */
export interface Candidate {
  readonly name: string
  /** Its place in the order of registration: ties are broken by it. */
  readonly order: number
  /** Ids, ascending. */
  readonly freeCores: readonly number[]
  readonly freeMemoryBytes: number
  /** What it has when nothing is leased. */
  readonly capacity: Room
  readonly hostId: string
  /** The switch that it is on; undefined: not known. */
  readonly switch: string | undefined
  /** When somebody else is expected to want it; undefined: nobody is. */
  readonly idleUntilMs: number | undefined
}

export interface Room {
  readonly cores: number
  readonly memoryBytes: number
}

export interface Demand extends Room {
  /** Most nodes that it may be spread over. */
  nodes: number
  /** When the lease ends unless it is renewed. */
  untilMs: number
  /** Where the client runs, if it says so. */
  hostId: string | undefined
}

export interface PlacedPart {
  node: string
  cores: number[]
  memoryBytes: number
}

/** Whether a request may have something of a node, whatever is free there. */
export type Usable = (node: Candidate) => boolean

/** All of it, or undefined. Every part is on another node, which is usable and has it free. The same
 * pool gives the same answer. */
export type Scheduler = (demand: Demand, pool: Pool, usable: Usable) => PlacedPart[] | undefined

/** All of it on this node. */
export function placeOn(node: Candidate, { cores, memoryBytes }: Demand): PlacedPart[] {
  return [{ node: node.name, cores: node.freeCores.slice(0, cores), memoryBytes }]
}

export function fits({ cores, memoryBytes }: Room, node: Candidate): boolean {
  return node.freeCores.length >= cores && node.freeMemoryBytes >= memoryBytes
}
