// The errors of the manager: what was asked for, why it cannot be, what to do next.
import { RfaasError } from '../../lib/errors.js'
import type { LeaseRequest } from '../../lib/control/schemas.js'
import { formatBytes } from '../../lib/units.js'
import type { Candidate } from '../schedulers/first-fit.js'
import type { LeaseRecord } from '../stores/store.js'

export function notFound(field: string, message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_NOT_FOUND', message, { status: 404, field })
}

export function noLease(id: string): RfaasError {
  return notFound('id', `there is no lease ${id}, or it ended long ago`)
}

export function leaseEnded({ id, state, expiresAtMs }: LeaseRecord): RfaasError {
  const how =
    state === 'expired' ? `expired at ${new Date(expiresAtMs).toISOString()}` : `is ${state}`
  const message = `lease ${id} ${how}: request a new one`
  return new RfaasError('ERR_RFAAS_LEASE_ENDED', message, { status: 409 })
}

export function noCapacity(
  request: LeaseRequest,
  candidates: readonly Candidate[],
  lostNodes: number,
): RfaasError {
  const free = candidates
    .slice(0, 8)
    .map(
      ({ name, freeCores, freeMemoryBytes }) =>
        `${name} has ${freeCores.length} cores and ${formatBytes(freeMemoryBytes)} free`,
    )
  if (candidates.length > 8) free.push(`${candidates.length - 8} more nodes have no room either`)
  if (candidates.length === 0) {
    free.push(lostNodes === 0 ? 'no node is registered' : `no node is up, ${lostNodes} lost`)
  }
  const cores = `${request.cores} free ${request.cores === 1 ? 'core' : 'cores'}`
  return new RfaasError(
    'ERR_RFAAS_NO_CAPACITY',
    `no node has ${cores} and ${formatBytes(request.memoryBytes)}: ${free.join('; ')}`,
    { status: 409 },
  )
}
