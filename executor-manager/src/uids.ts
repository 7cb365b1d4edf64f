// Users for leases: numbers without a name, one for each lease at a time, over all managers of this
// host. A number is claimed by a lock on a file; whoever runs as it holds the lock as well, so it is
// free when the last process is gone, even if the manager was killed.
import { closeSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import { native } from '../../lib/native.js'

const directory = '/run/rfaas/uids'
// Of those that systemd's list of ranges calls unused; 64 K are more than a node has leases.
const defaultRange = '1900000000-1900065535'

export interface UidRange {
  first: number
  last: number
}

/** What runs as `uid` has to hold `lock`. */
export interface UidClaim {
  uid: number
  lock: number
}

export function parseUidRange(text: string = defaultRange): UidRange {
  const [, first, last] = /^(\d{1,10})-(\d{1,10})$/.exec(text) ?? []
  const range = { first: Number(first), last: Number(last) }
  if (range.first >= 1 && range.last >= range.first && range.last < 2 ** 32 - 1) return range
  throw invalidArgument('uidRange', text, 'FIRST-LAST, from 1 to 4294967294, that nobody uses')
}

export class Uids {
  readonly #range: UidRange
  #next: number

  constructor(range: UidRange) {
    this.#range = range
    this.#next = range.first
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  }

  claim(): UidClaim {
    const { first, last } = this.#range
    // Round and round: a number rests for as long as possible before it is somebody else's.
    for (let tried = first; tried <= last; tried++) {
      const uid = this.#next
      this.#next = uid === last ? first : uid + 1
      const lock = native.lockFile(join(directory, String(uid)))
      if (lock >= 0) return { uid, lock }
    }
    throw new RfaasError(
      'ERR_RFAAS_NO_CAPACITY',
      `all users from ${first} to ${last} run leases on this host: choose a longer uidRange`,
    )
  }

  release(claim: UidClaim): void {
    closeSync(claim.lock)
  }
}
