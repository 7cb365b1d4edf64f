// Nodes by how many cores are free: a shelf for each number, on it the nodes in order of registration.
// A node moves when that number changes; nothing is ever sorted as a whole.
import type { Candidate } from './scheduler.js'
import { placeIn } from './sorted.js'

interface Shelf {
  readonly cores: number
  readonly nodes: Candidate[]
}

export class Shelves {
  /** By number of free cores, only those on which something stands, the lowest number first. */
  readonly #shelves: Shelf[] = []
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
    const index = this.#shelfFor(cores)
    if (this.#shelves[index]?.cores !== cores) this.#shelves.splice(index, 0, { cores, nodes: [] })
    const { nodes } = this.#shelves[index]!
    nodes.splice(placeOf(node.order, nodes), 0, node)
  }

  delete(name: string): void {
    const place = this.#places.get(name)
    if (place === undefined) return
    this.#places.delete(name)
    const index = this.#shelfFor(place.cores)
    const { nodes } = this.#shelves[index]!
    nodes.splice(placeOf(place.node.order, nodes), 1)
    if (nodes.length === 0) this.#shelves.splice(index, 1)
  }

  /** The node that comes first in order of registration, of those with at least so many free cores that
   * are wanted. */
  first(cores: number, wanted: (node: Candidate) => boolean): Candidate | undefined {
    let first: Candidate | undefined
    for (let index = this.#shelfFor(cores); index < this.#shelves.length; index += 1) {
      for (const node of this.#shelves[index]!.nodes) {
        if (first !== undefined && first.order < node.order) break
        if (wanted(node)) first = node
      }
    }
    return first
  }

  /** Those with the fewest free cores first, beginning at so many. */
  *fullest(cores: number): Generator<Candidate> {
    for (let index = this.#shelfFor(cores); index < this.#shelves.length; index += 1) {
      yield* this.#shelves[index]!.nodes
    }
  }

  /** Those with the most free cores first, down to so many. */
  *emptiest(cores: number): Generator<Candidate> {
    const last = this.#shelfFor(cores)
    for (let index = this.#shelves.length - 1; index >= last; index -= 1) {
      yield* this.#shelves[index]!.nodes
    }
  }

  /** Where the shelf for so many free cores, or the next one, is or would be. */
  #shelfFor(cores: number): number {
    return placeIn(this.#shelves, (shelf) => shelf.cores < cores)
  }
}

/** Where a node of this order is on the shelf, or would be. */
function placeOf(order: number, nodes: readonly Candidate[]): number {
  return placeIn(nodes, (node) => node.order < order)
}
