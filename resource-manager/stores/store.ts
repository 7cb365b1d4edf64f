// The seam between the resource manager and where its state lives. The manager keeps everything in
// memory and decides there; a store only has to load once, and to make changes durable in order.
import { Type, type Static } from 'typebox'
import type { ClockAnchor } from '../../lib/control/clock.js'
import { LeaseState } from '../../lib/control/schemas.js'
import type { RfaasError } from '../../lib/errors.js'

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

/** A part of a lease: what it has on one node. */
export const LeaseRecord = Type.Object(
  {
    id: identifier,
    /** The lease that it is part of, and which one. */
    lease: identifier,
    part: Type.Integer({ minimum: 0, maximum: 1023 }),
    state: LeaseState,
    tenant: identifier,
    node: identifier,
    cores,
    memoryBytes: time,
    /** Of the newest token; grows with every token that the store's managers ever signed. */
    epoch: Type.Integer({ minimum: 1 }),
    grantedAtMs: time,
    expiresAtMs: time,
    /** When the notice of its revocation is over. */
    revokeAtMs: Type.Optional(time),
    /** When it was over for the client. */
    endedAtMs: Type.Optional(time),
    /** The batch job that its node was when it was granted. */
    job: Type.Optional(identifier),
    /** The client's own name for its request. */
    requestId: Type.Optional(Type.String({ minLength: 1 })),
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
    switch: Type.Optional(identifier),
    idleUntilMs: Type.Optional(time),
    /** The batch job that it is. */
    job: Type.Optional(identifier),
    /** Of its newest registration. */
    sequence: time,
    lastSeenMs: time,
    /** The operator wants it empty: nothing new is granted on it. */
    draining: Type.Optional(Type.Literal(true)),
    /** The operator has removed it. The record stays for closed leases that name it, and so that an old
     * registration of it is known to be old. */
    removed: Type.Optional(Type.Literal(true)),
  },
  closed,
)
export type NodeRecord = Static<typeof NodeRecord>

/** What one closed part of a lease used; written once, never changed. */
export const LedgerEntry = Type.Object(
  {
    id: identifier,
    lease: identifier,
    part: Type.Integer({ minimum: 0, maximum: 1023 }),
    tenant: identifier,
    node: identifier,
    /** The batch job that its node was: what the batch system has charged it for. */
    job: Type.Optional(identifier),
    cores,
    memoryBytes: time,
    /** From its grant to its end: what the tenant had the cores and the memory for. */
    leaseMs: time,
    /** From its first use to the end of its processes, as the node measured it. */
    heldMs: time,
    /** CPU time of the executors, as the node measured it. */
    cpuMs: time,
    /** Of leaseMs. */
    coreMs: Type.Number({ minimum: 0 }),
    /** Of leaseMs; may exceed 2^53: exact to 16 digits. */
    memoryByteMs: Type.Number({ minimum: 0 }),
    startMs: time,
    endMs: time,
    /** When the node confirmed, and the entry was written: entries are in this order. */
    closedMs: time,
    reason: EndReason,
  },
  closed,
)
export type LedgerEntry = Static<typeof LedgerEntry>

/** The sums of a tenant's ledger entries. */
export const TenantUsage = Type.Object(
  {
    tenant: identifier,
    /** Each counts once, however many parts it has. */
    leases: time,
    leaseMs: time,
    heldMs: time,
    cpuMs: time,
    coreMs: Type.Number({ minimum: 0 }),
    memoryByteMs: Type.Number({ minimum: 0 }),
  },
  closed,
)
export type TenantUsage = Static<typeof TenantUsage>

/** A batch job that was a node, as the batch system tells of it. */
export const JobRecord = Type.Object(
  {
    id: identifier,
    /** The node that it was, of the resource manager. */
    node: identifier,
    partition: Type.String({ maxLength: 255 }),
    /** That the batch system gave it, and charges for. */
    cores: Type.Integer({ minimum: 1 }),
    /** In the batch system's words; `unknown`: it does not tell any more. */
    state: Type.String({ maxLength: 64 }),
    beginMs: time,
    /** Absent as long as it has its cores. */
    endMs: Type.Optional(time),
    /** When the batch system said this. */
    seenMs: time,
  },
  closed,
)
export type JobRecord = Static<typeof JobRecord>

/** Batch systems count jobs anew when they are set up anew, and a job that is requeued begins again. */
export function jobKey({ id, beginMs }: Pick<JobRecord, 'id' | 'beginMs'>): string {
  return `${id}/${beginMs}`
}

export const ClockRecord = Type.Object({ bootId: Type.String(), offsetMs: Type.Number() })

/** A place in the ledger, between entries: after all that closed earlier, or then with a smaller id. */
export interface LedgerPosition {
  closedMs: number
  id: string
}

/** Under which stores keep an entry: text that sorts like the time that it begins with. */
export function ledgerKey({ closedMs, id }: LedgerPosition): string {
  return `ledger/${String(closedMs).padStart(16, '0')}/${id}`
}

export interface Snapshot {
  /** The highest epoch in use, 0 in a new store. */
  epoch: number
  clock: ClockAnchor | undefined
  leases: LeaseRecord[]
  nodes: NodeRecord[]
  usage: TenantUsage[]
  jobs: JobRecord[]
}

/** What changes together or not at all. */
export interface Changes {
  epoch?: number
  clock?: ClockAnchor
  leases?: readonly LeaseRecord[]
  removedLeases?: readonly string[]
  nodes?: readonly NodeRecord[]
  ledger?: readonly LedgerEntry[]
  usage?: readonly TenantUsage[]
  jobs?: readonly JobRecord[]
  /** Keys of jobs. */
  removedJobs?: readonly string[]
}

export interface Store {
  /** Resolves with the reason when a commit has failed: the store must be opened anew, that of LMDB by a new
   * process. */
  readonly failed: Promise<RfaasError>
  /** Everything but the ledger, every record checked; a damaged record is an error that names it. */
  load(): Promise<Snapshot>
  /** Throws ERR_RFAAS_UNAVAILABLE when a commit could not succeed now: asked before memory changes,
   * so that a full disk leaves both as they are. */
  assertWritable(): void
  /** One transaction. Resolves when it is on disk; commits become durable in the order of the calls.
   * After a failure the store refuses everything: memory and disk no longer agree. */
  commit(changes: Changes): Promise<void>
  /** Resolves when all earlier commits are durable. */
  settled(): Promise<void>
  /** Ledger entries after `position` that closed before `endMs`, in order. It may be long: it is read
   * in pieces, with the event loop turning in between. */
  ledger(position: LedgerPosition, endMs: number): AsyncIterable<LedgerEntry>
  close(): Promise<void>
}
