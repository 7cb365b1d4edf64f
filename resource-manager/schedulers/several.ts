// A request on several nodes.
import { coresFor } from './pool.js'
import type { Candidate, Demand, PlacedPart, Usable } from './scheduler.js'
import type { Shelves } from './shelves.js'

interface Roomy {
  node: Candidate
  /** Cores that it could give, each with its share of the memory. */
  cores: number
}

/** On as few nodes as possible: those with most room first, since what does not fit on these does not
 * fit on as many others. */
export function onFew(demand: Demand, shelves: Shelves, usable: Usable): PlacedPart[] | undefined {
  if (demand.nodes === 1) return undefined
  const roomy = roomiest(demand, shelves, usable, demand.cores)
  let left = demand.cores
  const shares: number[] = []
  for (const { cores } of roomy) {
    shares.push(Math.min(cores, left))
    left -= shares.at(-1)!
    if (left === 0) return parts(demand, roomy, shares)
  }
  return undefined
}

/** On as many nodes as it may be, as evenly as their room allows. */
export function onMany(demand: Demand, shelves: Shelves, usable: Usable): PlacedPart[] | undefined {
  const nodes = Math.min(demand.nodes, demand.cores)
  const roomy = roomiest({ ...demand, nodes }, shelves, usable, Infinity).reverse()
  let left = demand.cores
  // The least roomy one first: what it cannot take the others share.
  const shares = roomy.map(({ cores }, i) => {
    const share = Math.min(cores, Math.ceil(left / (roomy.length - i)))
    left -= share
    return share
  })
  return left === 0 ? parts(demand, roomy, shares) : undefined
}

/** The nodes with most room, `demand.nodes` at most, and no more than it takes to have `cores`. */
function roomiest(
  { cores: asked, memoryBytes, nodes }: Demand,
  shelves: Shelves,
  usable: Usable,
  enough: number,
): Roomy[] {
  const found: Roomy[] = []
  let sum = 0
  for (const node of shelves.emptiest(1)) {
    const free = node.freeCores.length
    const least = found.at(-1)
    // No later one has more room than this one has free cores.
    if (least !== undefined && least.cores >= free && (found.length === nodes || sum >= enough)) {
      break
    }
    if (!usable(node)) continue
    const room = { cores: free, memoryBytes: node.freeMemoryBytes }
    const cores = coresFor(memoryBytes / asked, room)
    if (cores === 0) continue
    if (found.length === nodes) {
      if (cores <= least!.cores) continue
      sum -= found.pop()!.cores
    }
    let place = found.length
    while (place > 0 && found[place - 1]!.cores < cores) place -= 1
    found.splice(place, 0, { node, cores })
    sum += cores
  }
  return found
}

function parts(
  { cores, memoryBytes }: Demand,
  roomy: readonly Roomy[],
  shares: readonly number[],
): PlacedPart[] {
  const bytesPerCore = Math.floor(memoryBytes / cores)
  return shares.map((share, i) => {
    const { name, freeCores } = roomy[i]!.node
    return { node: name, cores: freeCores.slice(0, share), memoryBytes: share * bytesPerCore }
  })
}
