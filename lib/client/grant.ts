// Asking for a lease, so that none is lost: a request whose answer does not arrive is repeated with
// the same id and answered with the same lease, and a lease that nobody waits for any more is given
// back.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { LeaseGrant, type LeaseRequest } from '../control/schemas.js'
import { RfaasError } from '../errors.js'
import type { ManagerLink } from './manager-link.js'

export type IdentifiedRequest = LeaseRequest & { requestId: string }

export interface Grant {
  grant: LeaseGrant
  /** By performance.now(): it was granted between the two. */
  askedAt: number
  answeredAt: number
}

const pausesMs = [100, 500]

export function newRequestId(): string {
  return randomBytes(18).toString('base64url')
}

/** All attempts together take no longer than the wait in the queue and one request. */
export async function requestGrant(
  link: ManagerLink,
  body: IdentifiedRequest,
  signal?: AbortSignal,
): Promise<Grant> {
  const { waitMs = 0 } = body
  const askedAt = performance.now()
  for (let attempt = 0; ; attempt += 1) {
    const goneMs = performance.now() - askedAt
    try {
      const grant = await link.request('/v1/leases', {
        method: 'POST',
        body: waitMs === 0 ? body : { ...body, waitMs: Math.max(0, Math.round(waitMs - goneMs)) },
        schema: LeaseGrant,
        signal,
        timeoutMs: waitMs + link.timeoutMs - goneMs,
      })
      return { grant, askedAt, answeredAt: performance.now() }
    } catch (error) {
      // While there are several, another one will lead in a moment.
      const pauseMs = pausesMs[attempt] ?? (link.several ? 500 : undefined)
      if (!isUnanswered(error) || pauseMs === undefined) throw error
      if (goneMs + pauseMs >= waitMs + link.timeoutMs) throw error
      await sleep(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined)
    }
  }
}

/** Whether there may be a lease although there is no answer. */
export function mayBeGranted(error: unknown): boolean {
  return isUnanswered(error) || (error instanceof RfaasError && error.code === 'ERR_RFAAS_ABORTED')
}

/** Finds out whether the request was granted, and gives the lease back. If it was not it may be now,
 * for the moment between the two requests. If the resource manager cannot be reached, the lease ends
 * when it expires. */
export async function giveBack(link: ManagerLink, body: IdentifiedRequest): Promise<void> {
  try {
    const { lease } = await link.request('/v1/leases', {
      method: 'POST',
      body: { ...body, waitMs: 0 },
      schema: LeaseGrant,
    })
    await link.request(`/v1/leases/${lease.id}`, { method: 'DELETE' })
  } catch (error) {
    if (!(error instanceof RfaasError)) throw error
  }
}

function isUnanswered(error: unknown): boolean {
  return error instanceof RfaasError && error.code === 'ERR_RFAAS_UNAVAILABLE'
}
