// Time that passes as fast as what happens in it can be worked out. What is due at the same moment
// happens in the order in which it was asked for, so that a run can be repeated.
import type { After, Clock } from '../../lib/control/clock.js'

interface Event {
  atMs: number
  order: number
  /** Undefined: it was called off. */
  happen: (() => void) | undefined
}

export class VirtualTime implements Clock {
  #nowMs: number
  #orders = 0
  /** A binary heap. */
  readonly #events: Event[] = []

  constructor(fromMs: number) {
    this.#nowMs = fromMs
  }

  now(): number {
    return this.#nowMs
  }

  readonly after: After = (delayMs, happen) => this.at(this.#nowMs + delayMs, happen)

  /** What it returns calls it off. */
  at(atMs: number, happen: () => void): () => void {
    const event: Event = { atMs: Math.max(atMs, this.#nowMs), order: this.#orders, happen }
    this.#orders += 1
    this.#push(event)
    return () => (event.happen = undefined)
  }

  /** Until nothing more happens before `untilMs`. `look` is called now and then. */
  async run(untilMs: number, look: (nowMs: number) => void): Promise<void> {
    for (let count = 0; ;) {
      const next = this.#events[0]
      if (next === undefined || next.atMs > untilMs) break
      const { happen } = this.#pop()
      if (happen === undefined) continue
      this.#nowMs = next.atMs
      happen()
      // Whoever awaits what has happened goes on before anything else does.
      await new Promise((resolve) => setImmediate(resolve))
      count += 1
      if (count % 1000 === 0) look(this.#nowMs)
    }
    this.#nowMs = untilMs
  }

  #push(event: Event): void {
    const heap = this.#events
    let place = heap.length
    heap.push(event)
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[place] = heap[parent]!
      place = parent
    }
    heap[place] = event
  }

  #pop(): Event {
    const heap = this.#events
    const first = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return first
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1
      if (!isBefore(heap[child]!, last)) break
      heap[place] = heap[child]!
      place = child
    }
    heap[place] = last
    return first
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
