// The ledger: what every closed lease used, and the sums per tenant. Entries are in the store alone,
// the sums of all are in memory too.
import type { LeaseClosed } from '../../lib/control/schemas.js'
import type { EndReason, LeaseRecord, LedgerEntry, TenantUsage } from '../stores/store.js'

/** What the manager knows by itself (for how long the tenant had what), and the node's measurement as
 * far as it is possible: nothing ran for longer than from the grant to now, and no core gave more CPU
 * time than that. */
export function ledgerEntry(
  record: LeaseRecord,
  measured: LeaseClosed | undefined,
  nowMs: number,
  reason: EndReason,
): LedgerEntry {
  const { id, lease, part, tenant, node, cores, memoryBytes, grantedAtMs } = record
  const closedMs = Math.max(nowMs, grantedAtMs)
  const endMs = Math.max(
    grantedAtMs,
    Math.min(record.endedAtMs ?? record.expiresAtMs, record.expiresAtMs, closedMs),
  )
  const leaseMs = endMs - grantedAtMs
  const seenMs = closedMs - grantedAtMs
  return {
    id,
    lease,
    part,
    tenant,
    node,
    ...(record.job !== undefined && { job: record.job }),
    cores,
    memoryBytes,
    leaseMs,
    // Without a measurement it may have run as long as the lease lasted.
    heldMs: Math.min(measured?.heldMs ?? leaseMs, seenMs),
    cpuMs: Math.min(measured?.cpuMs ?? 0, seenMs * cores.length),
    coreMs: leaseMs * cores.length,
    memoryByteMs: leaseMs * memoryBytes,
    startMs: grantedAtMs,
    endMs,
    closedMs,
    reason,
  }
}

export class Ledger {
  readonly #tenants: Map<string, TenantUsage>

  constructor(sums: Iterable<TenantUsage> = []) {
    this.#tenants = new Map(Array.from(sums, (usage) => [usage.tenant, usage]))
  }

  /** Returns the tenant's new sums. */
  add(entry: LedgerEntry): TenantUsage {
    const { tenant, part, leaseMs, heldMs, cpuMs, coreMs, memoryByteMs } = entry
    const sum = this.#tenants.get(tenant)
    const usage = {
      tenant,
      // Every lease has one first part.
      leases: (sum?.leases ?? 0) + (part === 0 ? 1 : 0),
      leaseMs: (sum?.leaseMs ?? 0) + leaseMs,
      heldMs: (sum?.heldMs ?? 0) + heldMs,
      cpuMs: (sum?.cpuMs ?? 0) + cpuMs,
      coreMs: (sum?.coreMs ?? 0) + coreMs,
      memoryByteMs: (sum?.memoryByteMs ?? 0) + memoryByteMs,
    }
    this.#tenants.set(tenant, usage)
    return usage
  }

  usage(): TenantUsage[] {
    return [...this.#tenants.values()]
  }
}
