// The ledger: what every closed lease used, and the sums per tenant.
import type { LeaseClosed } from '../../lib/control/schemas.js'
import type { EndReason, LeaseRecord, LedgerEntry } from '../stores/store.js'

export interface TenantUsage {
  tenant: string
  leases: number
  heldMs: number
  cpuMs: number
  coreMs: number
  memoryByteMs: number
}

/** The node's measurement, as far as it is possible: nothing is held longer than from its grant to
 * now, and no core gives more CPU time than that. */
export function ledgerEntry(
  lease: LeaseRecord,
  measured: LeaseClosed,
  nowMs: number,
  reason: EndReason,
): LedgerEntry {
  const seenMs = Math.max(0, nowMs - lease.grantedAtMs)
  const heldMs = Math.min(measured.heldMs, seenMs)
  const { id, tenant, node, cores, memoryBytes } = lease
  return {
    lease: id,
    tenant,
    node,
    cores,
    memoryBytes,
    heldMs,
    cpuMs: Math.min(measured.cpuMs, seenMs * cores.length),
    coreMs: heldMs * cores.length,
    memoryByteMs: heldMs * memoryBytes,
    startMs: lease.grantedAtMs,
    endMs: Math.max(nowMs, lease.grantedAtMs),
    reason,
  }
}

export class Ledger {
  readonly #tenants = new Map<string, TenantUsage>()

  add(entry: LedgerEntry): void {
    const { tenant, heldMs, cpuMs, coreMs, memoryByteMs } = entry
    const sum = this.#tenants.get(tenant)
    this.#tenants.set(tenant, {
      tenant,
      leases: (sum?.leases ?? 0) + 1,
      heldMs: (sum?.heldMs ?? 0) + heldMs,
      cpuMs: (sum?.cpuMs ?? 0) + cpuMs,
      coreMs: (sum?.coreMs ?? 0) + coreMs,
      memoryByteMs: (sum?.memoryByteMs ?? 0) + memoryByteMs,
    })
  }

  usage(): TenantUsage[] {
    return [...this.#tenants.values()]
  }
}
