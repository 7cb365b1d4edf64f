// The errors of the manager: what was asked for, why it cannot be, what to do next.
import { stateOfParts } from '../../lib/control/lease-states.js'
import { RfaasError } from '../../lib/errors.js'
import type { LeaseRequest } from '../../lib/control/schemas.js'
import { formatBytes, formatDuration } from '../../lib/units.js'
import type { LeaseRecord } from '../stores/store.js'
import type { NodeTable } from './nodes.js'

export function notFound(field: string, message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_NOT_FOUND', message, { status: 404, field })
}

export function noNode(name: string): RfaasError {
  return notFound('node', `there is no node ${name}: GET /v1/nodes lists the registered ones`)
}

export function noLease(id: string): RfaasError {
  return notFound('id', `there is no lease ${id}, or it ended long ago`)
}

/** What is left of the lease cannot be used, or not for long. */
export function leaseEnded(parts: readonly LeaseRecord[]): RfaasError {
  const { lease, expiresAtMs } = parts[0]!
  const state = stateOfParts(parts.map((part) => part.state))
  if (state === 'revoking') {
    const message = `lease ${lease} is being taken back by the operator: request a new one`
    return new RfaasError('ERR_RFAAS_LEASE_REVOKED', message, { status: 409 })
  }
  const how =
    state === 'expired' ? `expired at ${new Date(expiresAtMs).toISOString()}` : `is ${state}`
  const message = `lease ${lease} ${how}: request a new one`
  return new RfaasError('ERR_RFAAS_LEASE_ENDED', message, { status: 409 })
}

export function noCapacity(
  { cores, memoryBytes, node, nodes = 1 }: LeaseRequest,
  table: NodeTable,
  waitedMs: number,
): RfaasError {
  const { shown, more } = table.lending(node, 8)
  const free = shown.map(
    ({ name, freeCores, freeMemoryBytes }) =>
      `${name} has ${freeCores.length} cores and ${formatBytes(freeMemoryBytes)} free`,
  )
  if (more > 0) free.push(`${more} more nodes have no room either`)
  if (free.length === 0) {
    const { lost, draining } = table.countByState()
    if (draining > 0) free.push(`no node lends, ${draining} draining, ${lost} lost`)
    else free.push(lost === 0 ? 'no node is registered' : `no node is up, ${lost} lost`)
  }
  const who = nodes === 1 ? 'no node has' : `no ${nodes} nodes together have`
  const waited = waitedMs === 0 ? '' : ` (waited ${formatDuration(waitedMs)})`
  return new RfaasError(
    'ERR_RFAAS_NO_CAPACITY',
    `${who} ${cores} free ${cores === 1 ? 'core' : 'cores'} and ${formatBytes(memoryBytes)}${waited}: ${free.join('; ')}`,
    { status: 409 },
  )
}

export function hungUp(): RfaasError {
  return new RfaasError('ERR_RFAAS_ABORTED', 'the caller has hung up', { status: 499 })
}
