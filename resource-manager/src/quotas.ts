// What a tenant may hold at once. The limits come with the principal, the holdings from the book.
import type { LeaseRequest } from '../../lib/control/schemas.js'
import type { Principal, Quota } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/units.js'
import type { Holding } from './leases.js'

const limits: readonly {
  of: keyof Holding
  limit: keyof Quota
  show: (amount: number) => string
}[] = [
  { of: 'leases', limit: 'maxLeases', show: (amount) => plural(amount, 'lease') },
  { of: 'cores', limit: 'maxCores', show: (amount) => plural(amount, 'core') },
  { of: 'memoryBytes', limit: 'maxMemoryBytes', show: (amount) => `${formatBytes(amount)} memory` },
]

/** The first limit that the tenant would pass with this on top of what it holds. */
function exceeded({ quota = {} }: Principal, request: LeaseRequest, holding: Holding) {
  for (const { of, limit, show } of limits) {
    const [held, asked] = [holding[of], of === 'leases' ? 1 : request[of]]
    if (held + asked > (quota[limit] ?? Infinity)) return { limit, show, held, asked }
  }
  return undefined
}

export function withinQuota(
  principal: Principal,
  request: LeaseRequest,
  holding: Holding,
): boolean {
  return exceeded(principal, request, holding) === undefined
}

/** Why the tenant may not have it; undefined when it may. */
export function quotaRefusal(
  principal: Principal,
  request: LeaseRequest,
  holding: Holding,
): RfaasError | undefined {
  const passed = exceeded(principal, request, holding)
  if (passed === undefined) return undefined
  const { limit, show, held, asked } = passed
  return new RfaasError(
    'ERR_RFAAS_QUOTA',
    `tenant ${principal.tenant} asks for ${show(asked)} and holds ${show(held)}, its quota is ` +
      `${show(principal.quota?.[limit] ?? 0)}: release a lease, or ask the operator for more`,
    { status: 409, field: limit },
  )
}

function plural(amount: number, what: string): string {
  return `${amount} ${what}${amount === 1 ? '' : 's'}`
}
