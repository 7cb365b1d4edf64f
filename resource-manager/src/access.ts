// Who may do what, and who sees what.
import type { Principal } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'

/** Requests leases and looks at them: a tenant, or the operator. */
export function requireClient(principal: Principal): void {
  if (principal.role === 'node') throw forbidden(principal, 'speaks for a node, not for a tenant')
}

export function requireOperator(principal: Principal): void {
  if (principal.role !== 'operator') throw forbidden(principal, 'is not an operator')
}

/** A node speaks for itself; the operator may speak for any. */
export function requireNode(principal: Principal, name: string): void {
  if (principal.role === 'operator') return
  if (principal.role === 'node' && principal.node === name) return
  throw forbidden(principal, `does not speak for node ${name}`)
}

/** A tenant sees its own, the operator everything. */
export function sees(principal: Principal, { tenant }: { tenant: string }): boolean {
  return (
    principal.role === 'operator' || (principal.role === 'tenant' && principal.tenant === tenant)
  )
}

function forbidden({ keyId, role, tenant }: Principal, why: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_FORBIDDEN',
    `key ${keyId} (${role} of ${tenant}) ${why}: use a key that may do this`,
    { status: 403 },
  )
}
