// What the resource manager sends to the dashboard, as server-sent events: `overview` first, then a
// `change` at every look at which something is different. Types alone: both sides compile them.

/** What becomes of a core, in the order in which it is drawn. */
export const coreStates = ['leased', 'batch', 'draining', 'lost', 'idle'] as const
export type CoreState = (typeof coreStates)[number]
export type CoreCounts = Record<CoreState, number>

export interface NodeRow {
  name: string
  state: 'up' | 'draining' | 'lost' | 'batch'
  cores: CoreCounts
  memoryBytes: number
  freeMemoryBytes: number
}

export interface LeaseRow {
  id: string
  tenant: string
  state: string
  nodes: string[]
  cores: number
  memoryBytes: number
  /** Unix time, as is everything that ends in Ms here and is no duration. */
  grantedAtMs: number
  expiresAtMs: number
  /** As its workers count them; absent as long as none has said anything. */
  calls?: CallCounts
}

/** Percentiles: from the arrival at a worker to its answer, of the newest calls that were timed. */
export interface CallCounts {
  total: number
  perSecond: number
  p50Us: number
  p99Us: number
}

export interface UsageRow {
  tenant: string
  leases: number
  coreMs: number
  memoryByteMs: number
  cpuMs: number
}

export interface Sample {
  atMs: number
  cores: CoreCounts
}

/** What is not about single nodes or leases. */
export interface Totals {
  atMs: number
  /** Whose leases and usage are here; undefined: everybody's. */
  tenant?: string
  waiting: number
  /** Granted since the resource manager started. */
  grants: number
  /** Of the newest grants, from request to answer. */
  grantP50Ms?: number
  grantP99Ms?: number
  /** All open ones; the rows may be fewer. */
  leases: number
  usage: UsageRow[]
}

export interface Overview {
  totals: Totals
  nodes: NodeRow[]
  leases: LeaseRow[]
  history: Sample[]
}

/** Rows that are new or different, and the names and ids of those that are gone. */
export interface Change {
  totals: Totals
  nodes: NodeRow[]
  goneNodes: string[]
  leases: LeaseRow[]
  goneLeases: string[]
  sample?: Sample
}
