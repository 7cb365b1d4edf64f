// What is due next: ids in a binary heap by their times, which knows where each id is, so that a
// deadline that moved or is gone leaves nothing behind.

interface Entry {
  id: string
  atMs: number
  place: number
}

export class Deadlines {
  readonly #heap: Entry[] = []
  readonly #entries = new Map<string, Entry>()

  /** The earliest one. */
  get next(): { id: string; atMs: number } | undefined {
    return this.#heap[0]
  }

  /** All that are due, in no order. */
  due(nowMs: number): string[] {
    const ids: string[] = []
    // A child is never due before its parent.
    const look = (place: number): void => {
      const entry = this.#heap[place]
      if (entry === undefined || entry.atMs > nowMs) return
      ids.push(entry.id)
      look(2 * place + 1)
      look(2 * place + 2)
    }
    look(0)
    return ids
  }

  set(id: string, atMs: number): void {
    let entry = this.#entries.get(id)
    if (entry?.atMs === atMs) return
    if (entry === undefined) {
      entry = { id, atMs, place: this.#heap.length }
      this.#entries.set(id, entry)
      this.#heap.push(entry)
    }
    entry.atMs = atMs
    this.#rise(entry)
    this.#sink(entry)
  }

  delete(id: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    const last = this.#heap.pop()!
    if (last === entry) return
    this.#put(last, entry.place)
    this.#rise(last)
    this.#sink(last)
  }

  #rise(entry: Entry): void {
    while (entry.place > 0) {
      const place = entry.place
      const parent = this.#heap[(place - 1) >> 1]!
      if (parent.atMs <= entry.atMs) return
      this.#put(entry, parent.place)
      this.#put(parent, place)
    }
  }

  #sink(entry: Entry): void {
    for (;;) {
      const place = entry.place
      const left = this.#heap[2 * place + 1]
      const right = this.#heap[2 * place + 2]
      const child = right !== undefined && right.atMs < left!.atMs ? right : left
      if (child === undefined || child.atMs >= entry.atMs) return
      this.#put(entry, child.place)
      this.#put(child, place)
    }
  }

  #put(entry: Entry, place: number): void {
    entry.place = place
    this.#heap[place] = entry
  }
}
