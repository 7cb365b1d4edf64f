// A lease as its client sees it: the parts put together.
import { isLive, stateOfParts } from '../../lib/control/lease-states.js'
import type { LeaseClaims, LeaseGrant, LeaseInfo } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'
import type { LeaseRecord, NodeRecord } from '../stores/store.js'

export type FindNode = (name: string) => NodeRecord | undefined
/** Makes the token that proves a part to its node. */
export type SignClaims = (claims: LeaseClaims) => string

export function leaseInfo(parts: readonly LeaseRecord[], nodeOf: FindNode): LeaseInfo {
  const { lease: id, tenant, grantedAtMs } = parts[0]!
  const expiresAtMs = Math.max(...parts.map((part) => part.expiresAtMs))
  return {
    id,
    state: stateOfParts(parts.map(({ state }) => state)),
    tenant,
    memoryBytes: parts.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
    epoch: Math.max(...parts.map(({ epoch }) => epoch)),
    grantedAt: new Date(grantedAtMs).toISOString(),
    expiresAt: new Date(expiresAtMs).toISOString(),
    parts: parts.map(({ id: part, node, cores, memoryBytes, state }) => {
      const found = nodeOf(node)
      if (found === undefined) {
        throw new RfaasError('ERR_RFAAS_INTERNAL', `lease ${part} is on an unknown node`)
      }
      const { url: executorManager, hostId } = found
      return { id: part, node, executorManager, hostId, cores, memoryBytes, state }
    }),
  }
}

export function leaseGrant(
  parts: readonly LeaseRecord[],
  nodeOf: FindNode,
  sign: SignClaims,
): LeaseGrant {
  const tokens = parts.map((part) => (isLive(part.state) ? tokenOf(part, sign) : null))
  return { lease: leaseInfo(parts, nodeOf), tokens }
}

function tokenOf(part: LeaseRecord, sign: SignClaims): string {
  const { id: lease, tenant, node, cores, memoryBytes, epoch, expiresAtMs } = part
  return sign({ lease, tenant, node, cores, memoryBytes, epoch, expiresAtMs })
}
