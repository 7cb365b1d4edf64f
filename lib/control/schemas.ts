// The control plane's messages: what client, resource manager and executor manager say, over HTTP and in
// sessions. Servers validate requests with these schemas, `check()` validates what comes back, and the types
// are derived from them, so that each message is written down once.
import { Type, type Static } from 'typebox'

// What messages are made of, also those in report-schemas.ts.
export const closed = { additionalProperties: false }
export const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
export const bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
export const instant = Type.String({ format: 'date-time' })
/** Unix time in milliseconds, as far as `instant` reaches: the year 9999. */
const moment = Type.Integer({ minimum: 0, maximum: 253_402_300_799_999 })
const coreIds = Type.Array(Type.Integer({ minimum: 0, maximum: 65535 }), {
  minItems: 1,
  maxItems: 4096,
  uniqueItems: true,
})

/** Identifies a host: a client may use shm with the nodes of its own. */
const hostId = Type.String({ minLength: 1, maxLength: 128 })

/** SHA-256 of a function package, lower-case hex: its address on every node. */
export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

// ── leases (client ⇄ resource manager) ────────────────────────────────────────────────────────

/** What they mean and how they follow each other: lease-states.ts. */
export const LeaseState = Type.Union([
  Type.Literal('granted'),
  Type.Literal('active'),
  Type.Literal('revoking'),
  Type.Literal('released'),
  Type.Literal('expired'),
  Type.Literal('revoked'),
  Type.Literal('lost'),
  Type.Literal('closed'),
])
export type LeaseState = Static<typeof LeaseState>

const duration = Type.Integer({ minimum: 1000, maximum: 7 * 24 * 3600 * 1000 })

/** What runs a function package: the native worker, or Node. */
export const Runtime = Type.Union([Type.Literal('native'), Type.Literal('node')])
export type Runtime = Static<typeof Runtime>

/** A function package on the cores of a lease. */
export const ExecutorRequest = Type.Object(
  {
    package: Sha256,
    runtime: Runtime,
    provider: Type.Union([Type.Literal('shm'), Type.Literal('verbs')]),
    /** Requests that a worker can hold at once. */
    slots: Type.Integer({ minimum: 1, maximum: 1024 }),
    /** Longest payload and longest result, in bytes. */
    payloadBytes: Type.Integer({ minimum: 64, maximum: 1024 * 1024 * 1024 }),
    outputBytes: Type.Integer({ minimum: 64, maximum: 1024 * 1024 * 1024 }),
    /** How long a worker spins after a call before it sleeps; 0 sleeps at once. */
    hotTimeoutMs: Type.Integer({ minimum: 0, maximum: 24 * 3600 * 1000 }),
    /** shm: the user of this host that is to be let in beside the manager's, with its ticket. */
    clientUid: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 32 - 2 })),
  },
  closed,
)
export type ExecutorRequest = Static<typeof ExecutorRequest>

export const LeaseRequest = Type.Object(
  {
    /** In total, over all nodes. */
    cores: Type.Integer({ minimum: 1, maximum: 4096 }),
    /** In total; each node gives in proportion to its cores. */
    memoryBytes: Type.Integer({ minimum: 1024 * 1024, maximum: Number.MAX_SAFE_INTEGER }),
    durationMs: duration,
    /** Only on this node. */
    node: Type.Optional(identifier),
    /** Most nodes that the cores may be spread over. Default 1. */
    nodes: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
    /** The client's own, so that it can be given nodes near to it. */
    hostId: Type.Optional(hostId),
    /** What is about to be started there: nodes that are the client's host begin with it while the lease is being
     * granted. */
    executor: Type.Optional(ExecutorRequest),
    /** How long to wait, first come, first served, when nothing is free. Default 0. */
    waitMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 3600 * 1000 })),
    /** Random, made by the client: a repeated request with it is answered with the same lease. */
    requestId: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{16,64}$' })),
  },
  closed,
)
export type LeaseRequest = Static<typeof LeaseRequest>

export const RenewRequest = Type.Object({ durationMs: duration }, closed)
export type RenewRequest = Static<typeof RenewRequest>

const notice = Type.Integer({ minimum: 0, maximum: 24 * 3600 * 1000 })

export const RevokeRequest = Type.Object(
  {
    /** How long running calls may go on; 0 ends the lease at once. Default 30 s. */
    noticeMs: Type.Optional(notice),
  },
  closed,
)
export type RevokeRequest = Static<typeof RevokeRequest>

/** What a lease has on one node: to that node's executor manager it is a lease of its own. */
export const LeasePart = Type.Object(
  {
    /** `lease` in its token; the lease's own id when it is the only part. */
    id: identifier,
    node: identifier,
    /** Base URL of the node's executor manager. */
    executorManager: Type.String({ format: 'uri' }),
    /** Of the node: a client that has the same shares memory with it. */
    hostId,
    cores: coreIds,
    memoryBytes: bytes,
    state: LeaseState,
  },
  closed,
)
export type LeasePart = Static<typeof LeasePart>

export const LeaseInfo = Type.Object(
  {
    id: identifier,
    /** Of the part that has most of its life left: a part may be over before the others. */
    state: LeaseState,
    tenant: identifier,
    memoryBytes: bytes,
    epoch: Type.Integer({ minimum: 1 }),
    grantedAt: instant,
    expiresAt: instant,
    parts: Type.Array(LeasePart, { minItems: 1, maxItems: 1024 }),
  },
  closed,
)
export type LeaseInfo = Static<typeof LeaseInfo>

/** Answer to a grant and to a renewal: tokens prove the lease to the executor managers. */
export const LeaseGrant = Type.Object(
  {
    lease: LeaseInfo,
    /** One for each part, in order; null for a part that is over. */
    tokens: Type.Array(Type.Union([Type.String(), Type.Null()])),
  },
  closed,
)
export type LeaseGrant = Static<typeof LeaseGrant>
export const LeaseList = Type.Object({ leases: Type.Array(LeaseInfo) }, closed)
export type LeaseList = Static<typeof LeaseList>

/** What a lease token says; signed by the resource manager with Ed25519 (control/token.ts). `lease` is
 * the part on `node`. */
export const LeaseClaims = Type.Object(
  {
    lease: identifier,
    tenant: identifier,
    node: identifier,
    cores: coreIds,
    memoryBytes: bytes,
    epoch: Type.Integer({ minimum: 1 }),
    /** Unix time in milliseconds. */
    expiresAtMs: Type.Integer({ minimum: 0 }),
  },
  closed,
)
export type LeaseClaims = Static<typeof LeaseClaims>

// ── nodes (executor manager ⇄ resource manager) ───────────────────────────────────────────────

export const ProviderInfo = Type.Object(
  { name: identifier, available: Type.Boolean(), reason: Type.String() },
  closed,
)
export type ProviderInfo = Static<typeof ProviderInfo>

export const NodeRegistration = Type.Object(
  {
    name: identifier,
    url: Type.String({ format: 'uri' }),
    cores: coreIds,
    memoryBytes: bytes,
    providers: Type.Array(ProviderInfo, { maxItems: 16 }),
    hostId,
    /** The switch that it is on: placement by locality keeps what belongs together on one. */
    switch: Type.Optional(identifier),
    /** When somebody else is expected to want the node, Unix time: placement by idle time avoids leases
     * that last longer. */
    idleUntilMs: Type.Optional(moment),
    /** Grows with every registration of this host: one that comes late, or twice, is refused. */
    sequence: Type.Integer({ minimum: 0 }),
    /** The batch job that the node is. */
    job: Type.Optional(identifier),
    /** Leases that have executors on the node now. */
    leases: Type.Array(identifier, { maxItems: 65536 }),
  },
  closed,
)
export type NodeRegistration = Static<typeof NodeRegistration>

/** A lease that is taken back, and how much of the notice is left. Also the server-sent event
 * `revoking` on a node's event stream. */
export const RevokingEvent = Type.Object(
  { lease: identifier, noticeMs: Type.Integer({ minimum: 0 }) },
  closed,
)
export type RevokingEvent = Static<typeof RevokingEvent>

/** This will be wanted in a moment: server-sent event `prepare` on a node's event
 * stream, which is not repeated. */
export const PrepareEvent = Type.Object(
  { lease: identifier, executor: ExecutorRequest, cores: coreIds, memoryBytes: bytes },
  closed,
)
export type PrepareEvent = Static<typeof PrepareEvent>

/** What the resource manager repeats until the node confirms. */
const orders = {
  /** Its clock (control/clock.ts), Unix time in milliseconds: expiries in tokens are meant by it. */
  nowMs: Type.Integer({ minimum: 0 }),
  /** Leases that are over, or not of this node: end them and confirm. */
  end: Type.Array(identifier),
  revoking: Type.Array(RevokingEvent),
}

export const NodeWelcome = Type.Object(
  {
    /** Ed25519 public key, SPKI, PEM: checks lease tokens. */
    publicKey: Type.String(),
    heartbeatMs: Type.Integer({ minimum: 10 }),
    /** The highest epoch that was ever granted, and the leases that are live on the node. Together
     * they are the fence: a token of this epoch or below, of another lease, is of the past. */
    epoch: Type.Integer({ minimum: 0 }),
    live: Type.Array(identifier),
    ...orders,
  },
  closed,
)
export type NodeWelcome = Static<typeof NodeWelcome>

/** What the workers of a lease (the part on one node) say of their calls: for people to look at. */
export const LeaseCalls = Type.Object(
  {
    lease: identifier,
    total: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    /** From the arrival at a worker to its answer, of the newest that were timed. */
    p50Us: Type.Number({ minimum: 0 }),
    p99Us: Type.Number({ minimum: 0 }),
  },
  closed,
)
export type LeaseCalls = Static<typeof LeaseCalls>

export const NodeHeartbeat = Type.Object(
  {
    /** As in the registration: a node that took over the name of another does not keep it alive. */
    hostId,
    leases: Type.Array(identifier, { maxItems: 65536 }),
    calls: Type.Optional(Type.Array(LeaseCalls, { maxItems: 65536 })),
  },
  closed,
)
export type NodeHeartbeat = Static<typeof NodeHeartbeat>
export const HeartbeatReply = Type.Object(orders, closed)
export type HeartbeatReply = Static<typeof HeartbeatReply>

/** Server-sent event `end` on a node's event stream. */
export const EndEvent = Type.Object(
  {
    lease: identifier,
    reason: Type.Union([
      Type.Literal('released'),
      Type.Literal('expired'),
      Type.Literal('revoked'),
      Type.Literal('lost'),
    ]),
  },
  closed,
)
export type EndEvent = Static<typeof EndEvent>

/** The node is about to end, or has ended. */
export const NodeLeaving = Type.Object(
  {
    hostId,
    /** Not believed after a later registration. */
    sequence: Type.Integer({ minimum: 0 }),
    /** So long its leases may finish their running calls; 0: it has ended. */
    noticeMs: notice,
  },
  closed,
)
export type NodeLeaving = Static<typeof NodeLeaving>

/** The node has ended the lease; what its processes used, measured outside of them. */
export const LeaseClosed = Type.Object(
  {
    /** Wall-clock time that the lease held its cores on the node, in ms. */
    heldMs: bytes,
    /** CPU time of the executors, from the kernel, in ms. */
    cpuMs: bytes,
  },
  closed,
)
export type LeaseClosed = Static<typeof LeaseClosed>

/** The node has ended a lease that its client has given back. */
export const LeaseReleased = Type.Object(
  {
    /** The resource manager has it on disk: nobody else needs to be told. */
    confirmed: Type.Boolean(),
  },
  closed,
)

export const NodeInfo = Type.Object(
  {
    name: identifier,
    url: Type.String(),
    state: Type.Union([Type.Literal('up'), Type.Literal('lost')]),
    /** Nothing new is granted on it: the operator wants it empty, or it is about to end. */
    draining: Type.Boolean(),
    cores: Type.Integer(),
    freeCores: Type.Integer(),
    memoryBytes: bytes,
    freeMemoryBytes: bytes,
    providers: Type.Array(ProviderInfo),
    hostId: Type.String(),
    switch: Type.Optional(identifier),
    /** When somebody else is expected to want it. */
    idleUntil: Type.Optional(instant),
    /** The batch job that it is. */
    job: Type.Optional(identifier),
    lastSeen: instant,
  },
  closed,
)
export type NodeInfo = Static<typeof NodeInfo>
export const DrainRequest = Type.Object(
  {
    /** Leases on the node are taken back with so much notice. Absent: they may go on. */
    noticeMs: Type.Optional(notice),
  },
  closed,
)
export type DrainRequest = Static<typeof DrainRequest>

export const NodeList = Type.Object({ nodes: Type.Array(NodeInfo) }, closed)
export type NodeList = Static<typeof NodeList>

// ── executors (client ⇄ executor manager; Authorization: Bearer <lease token>) ────────────────

/** Longest package that may come with the request to start it. */
export const maxInlineCodeBytes = 64 * 1024

export const ExecutorStart = Type.Object(
  {
    ...ExecutorRequest.properties,
    /** The package itself, base64: whoever does not know whether the node has a short one saves asking. */
    code: Type.Optional(Type.String({ maxLength: 4 * Math.ceil(maxInlineCodeBytes / 3) })),
  },
  closed,
)
export type ExecutorStart = Static<typeof ExecutorStart>

/** Where a worker listens and the secret that it wants to see. */
export const WorkerEndpoint = Type.Object(
  {
    worker: Type.Integer({ minimum: 0 }),
    core: Type.Integer({ minimum: 0 }),
    address: Type.String(),
    ticket: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  },
  closed,
)
export type WorkerEndpoint = Static<typeof WorkerEndpoint>

export const ExecutorInfo = Type.Object(
  {
    id: identifier,
    package: Sha256,
    runtime: Runtime,
    provider: Type.Union([Type.Literal('shm'), Type.Literal('verbs')]),
    /** Names of the package's functions; a function's index in calls is its place here. */
    functions: Type.Array(Type.String()),
    workers: Type.Array(WorkerEndpoint),
  },
  closed,
)
export type ExecutorInfo = Static<typeof ExecutorInfo>

/** Server-sent events on a lease's event stream at the executor manager. */
export const WorkerLostEvent = Type.Object(
  {
    executor: identifier,
    worker: Type.Integer({ minimum: 0 }),
    /** One sentence: which signal or exit code, and in which function. */
    cause: Type.String(),
    /** The request that was running when it ended, decimal; absent when it was idle. */
    requestId: Type.Optional(Type.String({ pattern: '^[0-9]{1,20}$' })),
    /** The request that it started last, decimal: those after it did not run. Absent when nobody knows. */
    lastStarted: Type.Optional(Type.String({ pattern: '^[0-9]{1,20}$' })),
    /** It was told to end, because the lease is taken back: none takes its place. */
    stopped: Type.Optional(Type.Literal(true)),
  },
  closed,
)
export type WorkerLostEvent = Static<typeof WorkerLostEvent>
export const WorkerReadyEvent = Type.Object(
  { executor: identifier, endpoint: WorkerEndpoint },
  closed,
)
export type WorkerReadyEvent = Static<typeof WorkerReadyEvent>
export const LeaseEndedEvent = Type.Object({ reason: Type.String() }, closed)
export type LeaseEndedEvent = Static<typeof LeaseEndedEvent>
/** `lease-revoking`: new calls are refused from now on, running ones may finish within the notice. */
export const LeaseRevokingEvent = Type.Object(
  { noticeMs: Type.Integer({ minimum: 0 }), reason: Type.String() },
  closed,
)
export type LeaseRevokingEvent = Static<typeof LeaseRevokingEvent>

// ── health (every manager) ────────────────────────────────────────────────────────────────────

/** Of one of several resource managers. */
export const Standing = Type.Object({
  role: Type.Union([Type.Literal('leader'), Type.Literal('follower')]),
  /** Where the leader is. */
  leader: Type.String(),
  /** How many members etcd has, and how many of them are well. */
  etcd: Type.Object({ members: Type.Integer(), well: Type.Integer() }),
})
export type Standing = Static<typeof Standing>

export const Health = Type.Object({
  status: Type.Literal('ok'),
  uptimeMs: Type.Integer(),
  /** What its operator has to look after; it does its work all the same. */
  warnings: Type.Array(Type.String()),
  ...Type.Partial(Standing).properties,
})
export type Health = Static<typeof Health>

// ── errors (every manager) ────────────────────────────────────────────────────────────────────

export const ErrorBody = Type.Object({
  error: Type.Object({
    code: Type.String(),
    message: Type.String(),
    field: Type.Optional(Type.String()),
    allowed: Type.Optional(Type.String()),
  }),
})
export type ErrorBody = Static<typeof ErrorBody>
