// The control plane's messages: what client, resource manager and executor manager say over HTTP.
// Fastify validates requests with these schemas, `check()` validates what comes back, and the types
// are derived from them, so that each message is written down once.
import { Type, type Static } from 'typebox'

const closed = { additionalProperties: false }
const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
const bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const instant = Type.String({ format: 'date-time' })
const coreIds = Type.Array(Type.Integer({ minimum: 0, maximum: 65535 }), {
  minItems: 1,
  maxItems: 4096,
  uniqueItems: true,
})

/** SHA-256 of a function package, lower-case hex: its address on every node. */
export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

// ── leases (client ⇄ resource manager) ────────────────────────────────────────────────────────

/** granted: no executor yet. active: the node reported one. released, expired, revoked, lost: over
 * for the client, the node still has to confirm. closed: confirmed, its cores are free again. */
export const LeaseState = Type.Union([
  Type.Literal('granted'),
  Type.Literal('active'),
  Type.Literal('released'),
  Type.Literal('expired'),
  Type.Literal('revoked'),
  Type.Literal('lost'),
  Type.Literal('closed'),
])
export type LeaseState = Static<typeof LeaseState>

export const LeaseRequest = Type.Object(
  {
    cores: Type.Integer({ minimum: 1, maximum: 4096 }),
    memoryBytes: Type.Integer({ minimum: 1024 * 1024, maximum: Number.MAX_SAFE_INTEGER }),
    durationMs: Type.Integer({ minimum: 1000, maximum: 7 * 24 * 3600 * 1000 }),
    /** Only on this node. */
    node: Type.Optional(identifier),
  },
  closed,
)
export type LeaseRequest = Static<typeof LeaseRequest>

export const RenewRequest = Type.Object(
  { durationMs: Type.Integer({ minimum: 1000, maximum: 7 * 24 * 3600 * 1000 }) },
  closed,
)
export type RenewRequest = Static<typeof RenewRequest>

export const LeaseInfo = Type.Object(
  {
    id: identifier,
    state: LeaseState,
    tenant: identifier,
    node: identifier,
    /** Base URL of the node's executor manager. */
    executorManager: Type.String({ format: 'uri' }),
    cores: coreIds,
    memoryBytes: bytes,
    epoch: Type.Integer({ minimum: 1 }),
    grantedAt: instant,
    expiresAt: instant,
  },
  closed,
)
export type LeaseInfo = Static<typeof LeaseInfo>

/** Answer to a grant and to a renewal: the token proves the lease to the executor manager. */
export const LeaseGrant = Type.Object({ lease: LeaseInfo, token: Type.String() }, closed)
export type LeaseGrant = Static<typeof LeaseGrant>
export const LeaseList = Type.Object({ leases: Type.Array(LeaseInfo) }, closed)
export type LeaseList = Static<typeof LeaseList>

/** What a lease token says; signed by the resource manager with Ed25519 (control/token.ts). */
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
    /** Identifies the host, so that a client on the same host may use shm. */
    hostId: Type.String({ minLength: 1, maxLength: 128 }),
    /** Leases that have executors on the node now. */
    leases: Type.Array(identifier, { maxItems: 65536 }),
  },
  closed,
)
export type NodeRegistration = Static<typeof NodeRegistration>

export const NodeWelcome = Type.Object(
  {
    /** Ed25519 public key, SPKI, PEM: checks lease tokens. */
    publicKey: Type.String(),
    heartbeatMs: Type.Integer({ minimum: 10 }),
    /** Leases of the registration that are over: end them and confirm. */
    end: Type.Array(identifier),
  },
  closed,
)
export type NodeWelcome = Static<typeof NodeWelcome>

export const NodeHeartbeat = Type.Object({ leases: Type.Array(identifier) }, closed)
export type NodeHeartbeat = Static<typeof NodeHeartbeat>
export const HeartbeatReply = Type.Object({ end: Type.Array(identifier) }, closed)
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

export const NodeInfo = Type.Object(
  {
    name: identifier,
    url: Type.String(),
    state: Type.Union([Type.Literal('up'), Type.Literal('lost')]),
    cores: Type.Integer(),
    freeCores: Type.Integer(),
    memoryBytes: bytes,
    freeMemoryBytes: bytes,
    providers: Type.Array(ProviderInfo),
    hostId: Type.String(),
    lastSeen: instant,
  },
  closed,
)
export type NodeInfo = Static<typeof NodeInfo>
export const NodeList = Type.Object({ nodes: Type.Array(NodeInfo) }, closed)
export type NodeList = Static<typeof NodeList>

/** The ledger: what the closed leases of every tenant used. */
export const UsageReport = Type.Object({
  tenants: Type.Array(
    Type.Object({
      tenant: Type.String(),
      leases: Type.Integer(),
      heldMs: Type.Integer(),
      cpuMs: Type.Integer(),
      coreMs: Type.Number(),
      memoryByteMs: Type.Number(),
    }),
  ),
})
export type UsageReport = Static<typeof UsageReport>

// ── executors (client ⇄ executor manager; Authorization: Bearer <lease token>) ────────────────

export const Runtime = Type.Union([Type.Literal('native'), Type.Literal('node')])
export type Runtime = Static<typeof Runtime>

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
  },
  closed,
)
export type ExecutorRequest = Static<typeof ExecutorRequest>

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
