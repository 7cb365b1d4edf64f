// The policies of placement. Each says on which node a request goes that one node can serve, and how one
// is divided that needs several; resource-manager/README.md says when to choose which.
import { fits, placeOn, type Candidate, type Demand, type Scheduler } from './scheduler.js'
import type { PlacedPart, Usable } from './scheduler.js'
import { onFew, onMany } from './several.js'
import type { Shelves } from './shelves.js'

/** The first node, in order of registration, that has room for all. */
const firstFit: Scheduler = (demand, { all }, usable) => {
  const node = all.first(demand.cores, (one) => fits(demand, one) && usable(one))
  return node === undefined ? onFew(demand, all, usable) : placeOn(node, demand)
}

/** The node that has the fewest cores left afterwards: nodes that are free as a whole stay so for large
 * requests. */
const bestFit: Scheduler = (demand, { all }, usable) => fullest(demand, all, usable)

/** The node with the most free cores, and as many nodes as the request allows: leases share as few
 * nodes as possible, and one node takes few of them with it. */
const spread: Scheduler = (demand, { all }, usable) => {
  if (demand.nodes > 1) return onMany(demand, all, usable)
  const node = find(all.emptiest(demand.cores), demand, usable)
  return node === undefined ? undefined : placeOn(node, demand)
}

/** Near the client: its own host, where shared memory is used, then its switch. What has several parts
 * is on one switch, if one has room. */
const locality: Scheduler = (demand, pool, usable) => {
  const { hostId } = demand
  const near = hostId === undefined ? [] : [pool.onHost(hostId)]
  if (hostId !== undefined) near.push(...pool.switchesOf(hostId).map((name) => pool.onSwitch(name)))
  for (const shelves of near) {
    const placed = shelves === undefined ? undefined : fullest(demand, shelves, usable)
    if (placed !== undefined) return placed
  }
  const alone = find(pool.all.fullest(demand.cores), demand, usable)
  if (alone !== undefined) return placeOn(alone, demand)
  if (demand.nodes === 1) return undefined
  for (const shelves of pool.switches()) {
    const placed = onFew(demand, shelves, usable)
    if (placed !== undefined) return placed
  }
  return onFew(demand, pool.all, usable)
}

/** The node that is wanted by others the soonest after the end of the lease, so that those that stay
 * idle for long are left to long leases; if none stays idle until then, the one that does for longest. */
const idleTime: Scheduler = (demand, pool, usable) => {
  const node = find(pool.byIdleTime(demand.untilMs), demand, usable)
  if (node !== undefined) return placeOn(node, demand)
  if (demand.nodes === 1) return undefined
  const idle: Usable = (one) => (one.idleUntilMs ?? Infinity) >= demand.untilMs && usable(one)
  return onFew(demand, pool.all, idle) ?? onFew(demand, pool.all, usable)
}

function fullest(demand: Demand, shelves: Shelves, usable: Usable): PlacedPart[] | undefined {
  const node = find(shelves.fullest(demand.cores), demand, usable)
  return node === undefined ? onFew(demand, shelves, usable) : placeOn(node, demand)
}

function find(nodes: Iterable<Candidate>, demand: Demand, usable: Usable): Candidate | undefined {
  for (const node of nodes) if (fits(demand, node) && usable(node)) return node
  return undefined
}

export const schedulers = {
  'first-fit': firstFit,
  'best-fit': bestFit,
  spread,
  locality,
  'idle-time': idleTime,
} as const

export type SchedulerName = keyof typeof schedulers
export const schedulerNames = Object.keys(schedulers) as SchedulerName[]
