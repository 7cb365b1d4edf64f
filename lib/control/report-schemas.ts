// What a resource manager reports over HTTP: what it harvests, and what leases used. As schemas.ts.
import { Type, type Static } from 'typebox'

import { bytes, closed, identifier, instant } from './schemas.js'

// ── harvest (batch system ⇄ resource manager, as its operator sees it) ─────────────────────────

/** A node of the batch system. */
export const HarvestNode = Type.Object(
  {
    name: identifier,
    /** In the batch system's words. */
    state: Type.String(),
    features: Type.Array(Type.String()),
    partitions: Type.Array(Type.String()),
    cores: Type.Integer({ minimum: 0 }),
    /** Of jobs other than ours. */
    batchCores: Type.Integer({ minimum: 0 }),
    harvestedCores: Type.Integer({ minimum: 0 }),
    /** Of nobody, on a node that takes jobs. */
    idleCores: Type.Integer({ minimum: 0 }),
    memoryBytes: bytes,
    allocatedMemoryBytes: bytes,
  },
  closed,
)
export type HarvestNode = Static<typeof HarvestNode>

/** A job of ours that waits or runs. */
export const HarvestJobInfo = Type.Object(
  {
    id: identifier,
    state: Type.String(),
    /** Of the resource manager, when its executor manager has registered. */
    node: identifier,
    cores: Type.Integer({ minimum: 0 }),
    memoryBytes: bytes,
    startedAt: Type.Optional(instant),
    /** When the batch system gave notice that it wants the cores back. */
    preemptedAt: Type.Optional(instant),
  },
  closed,
)
export type HarvestJobInfo = Static<typeof HarvestJobInfo>

/** A job of others that waits, and when the batch system plans to start it. */
export const PlannedStart = Type.Object(
  {
    job: identifier,
    partition: Type.String(),
    nodes: Type.Integer({ minimum: 0 }),
    cores: Type.Integer({ minimum: 0 }),
    at: instant,
  },
  closed,
)
export type PlannedStart = Static<typeof PlannedStart>

export const HarvestInfo = Type.Object(
  {
    source: Type.Union([Type.Literal('static'), Type.Literal('slurm')]),
    /** `failing`: the batch system gives no answer that makes sense. What follows is the last one that
     * did. */
    state: Type.Union([Type.Literal('starting'), Type.Literal('ok'), Type.Literal('failing')]),
    /** Why it fails. */
    reason: Type.Optional(Type.String()),
    warnings: Type.Array(Type.String()),
    /** Of the last answer that made sense. */
    seenAt: Type.Optional(instant),
    nodes: Type.Array(HarvestNode),
    jobs: Type.Array(HarvestJobInfo),
    planned: Type.Array(PlannedStart),
  },
  closed,
)
export type HarvestInfo = Static<typeof HarvestInfo>

// ── usage (client ⇄ resource manager) ─────────────────────────────────────────────────────────

/** Which closed leases: of one tenant, closed at `from` or later and before `to`. */
const usageRange = {
  tenant: Type.Optional(identifier),
  from: Type.Optional(instant),
  to: Type.Optional(instant),
}
export const UsageQuery = Type.Object(usageRange, closed)
export type UsageQuery = Static<typeof UsageQuery>

/** The sums of the ledger, per tenant. */
export const UsageReport = Type.Object({
  tenants: Type.Array(
    Type.Object({
      tenant: Type.String(),
      leases: Type.Integer(),
      /** From grant to end. */
      leaseMs: Type.Integer(),
      /** From first use to the end of the processes, as measured by the nodes. */
      heldMs: Type.Integer(),
      /** From the kernel, as measured by the nodes. */
      cpuMs: Type.Integer(),
      /** leaseMs times cores, and times memory. */
      coreMs: Type.Number(),
      memoryByteMs: Type.Number(),
    }),
  ),
})
export type UsageReport = Static<typeof UsageReport>

export const UsageEntriesQuery = Type.Object(
  {
    ...usageRange,
    /** `next` of the page before. */
    after: Type.Optional(Type.String({ pattern: '^[0-9]{1,16}/[A-Za-z0-9._-]{1,63}$' })),
  },
  closed,
)
export type UsageEntriesQuery = Static<typeof UsageEntriesQuery>

/** One closed part of a lease. */
export const UsageEntry = Type.Object({
  id: Type.String(),
  lease: Type.String(),
  tenant: Type.String(),
  node: Type.String(),
  /** The batch job that the node was. */
  job: Type.Optional(Type.String()),
  cores: Type.Array(Type.Integer()),
  memoryBytes: bytes,
  leaseMs: Type.Integer(),
  heldMs: Type.Integer(),
  cpuMs: Type.Integer(),
  coreMs: Type.Number(),
  memoryByteMs: Type.Number(),
  start: instant,
  end: instant,
  closed: instant,
  /** released, expired, revoked, lost; node: its executor manager ended it before its time. */
  reason: Type.String(),
})
export type UsageEntry = Static<typeof UsageEntry>

/** A page of the ledger, in the order in which the leases closed. */
export const UsageEntries = Type.Object({
  entries: Type.Array(UsageEntry),
  /** Where the next page begins; absent on the last one. */
  next: Type.Optional(Type.String()),
})
export type UsageEntries = Static<typeof UsageEntries>

/** Which harvest jobs: those that had their cores at some time from `from` to `to`. */
export const JobUsageQuery = Type.Object({ from: usageRange.from, to: usageRange.to }, closed)
export type JobUsageQuery = Static<typeof JobUsageQuery>

const tenantShares = Type.Array(Type.Object({ tenant: Type.String(), coreMs: Type.Integer() }))

/** What the batch system charges for a harvest job, and what leases had of it. */
export const JobUsage = Type.Object({
  id: Type.String(),
  /** The node that it was, of the resource manager. */
  node: Type.String(),
  partition: Type.String(),
  /** That the batch system gave it. */
  cores: Type.Integer(),
  /** In the batch system's words; `unknown`: it did not tell how the job ended, which was at `end` or later. */
  state: Type.String(),
  begin: instant,
  /** Absent as long as it has its cores. */
  end: Type.Optional(instant),
  /** To its end, or to the last look at the batch system. */
  elapsedMs: Type.Integer(),
  /** elapsedMs times cores: the sum of the next two. */
  coreMs: Type.Integer(),
  /** From the grant of each lease to its end, within the time of the job. */
  leasedCoreMs: Type.Integer(),
  idleCoreMs: Type.Integer(),
  /** Of leasedCoreMs. */
  tenants: tenantShares,
})
export type JobUsage = Static<typeof JobUsage>

export const JobUsageReport = Type.Object({
  /** In the order in which they began: those that have not ended, and the last 10,000 that have. */
  jobs: Type.Array(JobUsage),
  /** Of all these jobs together. */
  tenants: tenantShares,
})
export type JobUsageReport = Static<typeof JobUsageReport>
