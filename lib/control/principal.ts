// Who asks. Every request to the resource manager has a principal; what it may do is decided by its
// role, what it may see by its tenant.

/** `tenant` uses leases; `node` is an executor manager; `operator` may do and see everything. */
export type Role = 'tenant' | 'node' | 'operator'

/** What a tenant may hold at once; what is absent is not limited. */
export interface Quota {
  maxCores?: number
  maxMemoryBytes?: number
  maxLeases?: number
}

export interface Principal {
  /** Whose leases it requests. */
  tenant: string
  role: Role
  /** Names the key in logs; never the key itself. */
  keyId: string
  /** The only node that it speaks for; role `node`. */
  node?: string
  quota?: Quota
}

/** Everybody, as long as no keys are configured: only loopback is served then. */
export const openPrincipal: Principal = { tenant: 'default', role: 'operator', keyId: 'open' }
