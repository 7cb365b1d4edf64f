// Which tokens are of the past, although their signature and expiry are good. A lease is kept out
// when it ended here, when the resource manager had ended it before this node registered, and when
// one of its cores has been leased to somebody else since.
import type { LeaseClaims } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'

export type EndReason =
  | 'released'
  | 'expired'
  | 'revoked'
  | 'lost'
  | 'the resource manager says that it is over'
  | 'the node shuts down'
  | 'its executor manager was restarted'

// Reasons of leases that the resource manager knows to be over: only so that errors can name them.
const maxReasons = 1024

export class Fence {
  readonly #maxEnded: number
  readonly #ended = new Map<string, EndReason>()
  readonly #cores = new Map<number, { lease: string; epoch: number }>()
  #epoch = 0
  #live: ReadonlySet<string> = new Set()

  /** `maxEnded`: of leases that ended here since the node registered. */
  constructor(maxEnded: number) {
    this.#maxEnded = maxEnded
  }

  /** Too many have ended to be remembered one by one: the node has to register again. */
  get crowded(): boolean {
    return this.#ended.size > this.#maxEnded
  }

  /** What the resource manager says when the node registers: the highest epoch that it ever granted,
   * and which leases of this node are live. Whatever else was granted until then is over. */
  welcomed(epoch: number, live: readonly string[]): void {
    this.#epoch = epoch
    this.#live = new Set(live)
    for (const lease of this.#ended.keys()) {
      if (this.#ended.size <= maxReasons) break
      if (!this.#live.has(lease)) this.#ended.delete(lease)
    }
  }

  ended(lease: string, reason: EndReason): void {
    if (!this.#ended.has(lease)) this.#ended.set(lease, reason)
  }

  hasEnded(lease: string): boolean {
    return this.#ended.has(lease)
  }

  endOf(lease: string): RfaasError {
    const reason = this.#ended.get(lease) ?? 'the resource manager says that it is over'
    return leaseEnded(`lease ${lease} has ended on this node: ${reason}`)
  }

  check({ lease, epoch, cores }: LeaseClaims): void {
    if (this.#ended.has(lease) || (epoch <= this.#epoch && !this.#live.has(lease))) {
      throw this.endOf(lease)
    }
    for (const core of cores) {
      const latest = this.#cores.get(core)
      if (latest === undefined || latest.lease === lease || latest.epoch < epoch) continue
      throw leaseEnded(
        `core ${core} of lease ${lease} has been leased again since (epoch ${latest.epoch}, this token is of ${epoch}): request a new lease`,
      )
    }
  }

  /** The lease has its cores now: tokens for them of earlier leases are worth nothing. */
  admitted({ lease, epoch, cores }: LeaseClaims): void {
    for (const core of cores) {
      if (epoch > (this.#cores.get(core)?.epoch ?? 0)) this.#cores.set(core, { lease, epoch })
    }
  }
}

function leaseEnded(message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_LEASE_ENDED', message)
}
