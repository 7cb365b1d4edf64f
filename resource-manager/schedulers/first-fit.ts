// Placement: which node and which of its cores a request gets. Pure, so that another policy is
// another function of this type.

export interface Candidate {
  name: string
  /** Ids, ascending. */
  freeCores: readonly number[]
  freeMemoryBytes: number
}

export interface Placement {
  node: string
  cores: number[]
}

export type Scheduler = (
  request: { cores: number; memoryBytes: number },
  candidates: readonly Candidate[],
) => Placement | undefined

/** The first node, in order of registration, that has room; its lowest free cores. */
export const firstFit: Scheduler = (request, candidates) => {
  for (const { name, freeCores, freeMemoryBytes } of candidates) {
    if (freeCores.length >= request.cores && freeMemoryBytes >= request.memoryBytes) {
      return { node: name, cores: freeCores.slice(0, request.cores) }
    }
  }
  return undefined
}
