// Nodes by how many cores are free: a shelf for each number, on it the nodes in order of registration.
// A node moves when that number changes; nothing is ever sorted as a whole.
import type { Candidate } from './scheduler.js'

export class Shelves {
  /** By number of free cores. A shelf that became empty stays: it will be needed again. */
  readonly #shelves: (Candidate[] | undefined)[] = []
  /** Where each node stands; its own number may have changed since. */
  readonly #places = new Map<string, { node: Candidate; cores: number }>()

  get size(): number {
    return this.#places.size
  }

  /** A node that is new, or on which something changed. */
  put(node: Candidate): void {
    const cores = node.freeCores.length
    const before = this.#places.get(node.name)
    if (before?.node === node && before.cores === cores) return
    this.delete(node.name)
    this.#places.set(node.name, { node, cores })
    const shelf = (this.#shelves[cores] ??= [])
    shelf.splice(placeOf(node.order, shelf), 0, node)
  }

  delete(name: string): void {
    const place = this.#places.get(name)
    if (place === undefined) return
    this.#places.delete(name)
    const shelf = this.#shelves[place.cores]!
    shelf.splice(placeOf(place.node.order, shelf), 1)
  }

  /** The node that comes first in order of registration, of those with at least so many free cores that
   * are wanted. */
  first(cores: number, wanted: (node: Candidate) => boolean): Candidate | undefined {
    let first: Candidate | undefined
    for (let count = cores; count < this.#shelves.length; count += 1) {
      for (const node of this.#shelves[count] ?? []) {
        if (first !== undefined && first.order < node.order) break
        if (wanted(node)) first = node
      }
    }
    return first
  }

  /** Those with the fewest free cores first, beginning at so many. */
  *fullest(cores: number): Generator<Candidate> {
    for (let count = cores; count < this.#shelves.length; count += 1) {
      yield* this.#shelves[count] ?? []
    }
  }

  /** Those with the most free cores first, down to so many. */
  *emptiest(cores: number): Generator<Candidate> {
    for (let count = this.#shelves.length - 1; count >= cores; count -= 1) {
      yield* this.#shelves[count] ?? []
    }
  }
}

/** Where a node of this order is on the shelf, or would be. */
function placeOf(order: number, shelf: readonly Candidate[]): number {
  let low = 0
  let high = shelf.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (shelf[middle]!.order < order) low = middle + 1
    else high = middle
  }
  return low
}
