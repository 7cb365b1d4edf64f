// What a registration means for the leases that the manager has under that name. Pure: the manager
// carries it out.
import { isLive, isOver } from '../../lib/control/lease-states.js'
import type { NodeRegistration } from '../../lib/control/schemas.js'
import type { LeaseRecord, NodeRecord } from '../stores/store.js'

export interface Adoption {
  /** Nothing of them is on the node any more: their cores are free. */
  gone: LeaseRecord[]
  /** The node runs them, but has no room for them any more: it has to end them. */
  lost: LeaseRecord[]
}

export function adopt(
  held: Iterable<LeaseRecord>,
  registration: NodeRegistration,
  before: NodeRecord | undefined,
): Adoption {
  // Leases are on a host: another one that takes over the name begins with none. Should the first
  // still run them, behind a cut network, these are cores that nobody is granted any more.
  if (before?.hostId !== registration.hostId) return { gone: [...held], lost: [] }
  const reported = new Set(registration.leases)
  const cores = new Set(registration.cores)
  let memoryBytes = registration.memoryBytes
  const gone: LeaseRecord[] = []
  const lost: LeaseRecord[] = []
  for (const lease of held) {
    const runs = reported.has(lease.id)
    if (isOver(lease.state)) {
      if (!runs) gone.push(lease)
      continue
    }
    if (!isLive(lease.state)) continue
    // A granted lease has no executor yet: that the node does not list it means nothing.
    if (lease.state !== 'granted' && !runs) {
      gone.push(lease)
      continue
    }
    // The oldest leases keep their place.
    if (lease.memoryBytes <= memoryBytes && lease.cores.every((core) => cores.has(core))) {
      memoryBytes -= lease.memoryBytes
    } else if (runs) {
      lost.push(lease)
    } else {
      gone.push(lease)
    }
  }
  return { gone, lost }
}
