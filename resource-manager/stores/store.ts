// The seam between the resource manager and where its state lives. The manager keeps everything in
// memory and decides there; a store only has to load once, and to make changes durable in order.
import { Type, type Static } from 'typebox'
import { LeaseState } from '../../lib/control/schemas.js'

const closed = { additionalProperties: false }
const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
const time = Type.Integer({ minimum: 0 })
const cores = Type.Array(Type.Integer({ minimum: 0, maximum: 65535 }), { minItems: 1 })

/** Why a lease ended. `node`: its executor manager ended it before its time. */
export const EndReason = Type.Union([
  Type.Literal('released'),
  Type.Literal('expired'),
  Type.Literal('revoked'),
  Type.Literal('lost'),
  Type.Literal('node'),
])
export type EndReason = Static<typeof EndReason>

export const LeaseRecord = Type.Object(
  {
    id: identifier,
    state: LeaseState,
    tenant: identifier,
    node: identifier,
    cores,
    memoryBytes: time,
    /** Of the newest token; grows with every token that the store's managers ever signed. */
    epoch: Type.Integer({ minimum: 1 }),
    grantedAtMs: time,
    expiresAtMs: time,
  },
  closed,
)
export type LeaseRecord = Static<typeof LeaseRecord>

export const NodeRecord = Type.Object(
  {
    name: identifier,
    url: Type.String({ format: 'uri' }),
    cores,
    memoryBytes: time,
    providers: Type.Array(
      Type.Object({ name: identifier, available: Type.Boolean(), reason: Type.String() }, closed),
    ),
    hostId: Type.String({ minLength: 1 }),
    /** Of its newest registration. */
    sequence: time,
    lastSeenMs: time,
  },
  closed,
)
export type NodeRecord = Static<typeof NodeRecord>

/** What one closed lease used; written once, never changed. */
export const LedgerEntry = Type.Object(
  {
    lease: identifier,
    tenant: identifier,
    node: identifier,
    cores,
    memoryBytes: time,
    /** Wall-clock time that the cores were held. */
    heldMs: time,
    /** CPU time of the executors. */
    cpuMs: time,
    coreMs: Type.Number({ minimum: 0 }),
    /** May exceed 2^53: exact to 16 digits. */
    memoryByteMs: Type.Number({ minimum: 0 }),
    startMs: time,
    endMs: time,
    reason: EndReason,
  },
  closed,
)
export type LedgerEntry = Static<typeof LedgerEntry>

export interface Snapshot {
  /** The highest epoch in use, 0 in a new store. */
  epoch: number
  leases: LeaseRecord[]
  nodes: NodeRecord[]
  ledger: Iterable<LedgerEntry>
}

/** What changes together or not at all. */
export interface Changes {
  epoch?: number
  leases?: readonly LeaseRecord[]
  removedLeases?: readonly string[]
  nodes?: readonly NodeRecord[]
  ledger?: readonly LedgerEntry[]
}

export interface Store {
  /** Everything, every record checked; a damaged record is an error that names it. */
  load(): Snapshot
  /** Throws ERR_RFAAS_UNAVAILABLE when a commit could not succeed now: asked before memory changes,
   * so that a full disk leaves both as they are. */
  assertWritable(): void
  /** One transaction. Resolves when it is on disk; commits become durable in the order of the calls.
   * After a failure the store refuses everything: memory and disk no longer agree. */
  commit(changes: Changes): Promise<void>
  /** Resolves when all earlier commits are durable. */
  settled(): Promise<void>
  close(): Promise<void>
}
