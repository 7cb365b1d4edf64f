// Who may do what, and who sees what.
import type { AccessTable } from '../../lib/control/auth.js'
import type { Principal } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'

/** Who may call which route: decided before anything of a request's body is read. /healthz is for
 * everybody, /metrics and /openapi.json are for the operator. */
export const routeAccess: AccessTable = {
  'POST /v1/leases': ['tenant', 'operator'],
  'GET /v1/leases': ['tenant', 'operator'],
  'GET /v1/leases/:id': ['tenant', 'operator'],
  'POST /v1/leases/:id/renew': ['tenant', 'operator'],
  'DELETE /v1/leases/:id': ['tenant', 'operator'],
  'POST /v1/leases/:id/revoke': ['operator'],
  'GET /v1/usage': ['tenant', 'operator'],
  'GET /v1/usage/entries': ['tenant', 'operator'],
  'GET /v1/usage/jobs': ['operator'],
  'GET /v1/overview/events': ['tenant', 'operator'],
  'GET /v1/nodes': ['tenant', 'operator'],
  'GET /v1/harvest': ['operator'],
  'POST /v1/nodes': ['node'],
  'DELETE /v1/nodes/:name': ['operator'],
  'POST /v1/nodes/:name/drain': ['operator'],
  'POST /v1/nodes/:name/undrain': ['operator'],
  'POST /v1/nodes/:name/heartbeat': ['node'],
  'POST /v1/nodes/:name/leave': ['node'],
  'GET /v1/nodes/:name/events': ['node'],
  'POST /v1/nodes/:name/leases/:id/active': ['node'],
  'POST /v1/nodes/:name/leases/:id/closed': ['node'],
}

/** Requests leases and looks at them: a tenant, or the operator. */
export function requireClient(principal: Principal): void {
  if (principal.role === 'node') throw forbidden(principal, 'speaks for a node, not for a tenant')
}

export function requireOperator(principal: Principal): void {
  if (principal.role !== 'operator') throw forbidden(principal, 'is not an operator')
}

/** A host speaks for its node, and for further ones on it: `n7`, `n7_2`, `n7_3`. The operator may speak
 * for any. */
export function requireNode(principal: Principal, name: string): void {
  const { role, node } = principal
  if (role === 'operator') return
  if (role === 'node' && node !== undefined) {
    if (name === node || (name.startsWith(node) && /^_\d+$/.test(name.slice(node.length)))) return
  }
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
