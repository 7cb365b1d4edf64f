// Placement: which nodes and which of their cores a request gets. Pure, so that another policy is
// another function of this type.

export interface Candidate {
  readonly name: string
  /** Ids, ascending. */
  readonly freeCores: readonly number[]
  readonly freeMemoryBytes: number
}

export interface Demand {
  cores: number
  memoryBytes: number
  /** Most nodes that it may be spread over. */
  nodes: number
}

export interface PlacedPart {
  node: string
  cores: number[]
  memoryBytes: number
}

/** All of it, or undefined. Every part is on another node. */
export type Scheduler = (
  demand: Demand,
  candidates: readonly Candidate[],
) => PlacedPart[] | undefined

/** The first node, in order of registration, that has room for all; its lowest free cores. If there
 * is none, as few nodes as possible. */
export const firstFit: Scheduler = (demand, candidates) => {
  for (const { name, freeCores, freeMemoryBytes } of candidates) {
    if (freeCores.length >= demand.cores && freeMemoryBytes >= demand.memoryBytes) {
      const cores = freeCores.slice(0, demand.cores)
      return [{ node: name, cores, memoryBytes: demand.memoryBytes }]
    }
  }
  return demand.nodes > 1 ? spread(demand, candidates) : undefined
}

/** Those with most room first: what does not fit on these does not fit on as many others. */
function spread(
  { cores, memoryBytes, nodes }: Demand,
  candidates: readonly Candidate[],
): PlacedPart[] | undefined {
  // Whole bytes, so that a part never takes more than its node has.
  const bytesPerCore = Math.floor(memoryBytes / cores)
  const roomy = candidates
    .map(({ name, freeCores, freeMemoryBytes }) => {
      const room = Math.min(freeCores.length, Math.floor(freeMemoryBytes / bytesPerCore))
      return { name, freeCores, room }
    })
    .filter(({ room }) => room > 0)
    .sort((a, b) => b.room - a.room)
    .slice(0, nodes)
  const parts: PlacedPart[] = []
  let left = cores
  for (const { name, freeCores, room } of roomy) {
    if (left === 0) break
    const taken = freeCores.slice(0, Math.min(room, left))
    parts.push({ node: name, cores: taken, memoryBytes: taken.length * bytesPerCore })
    left -= taken.length
  }
  return left === 0 ? parts : undefined
}
