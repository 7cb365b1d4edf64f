// What nodes said last of the calls of their leases. It is shown and no more: nothing is decided or
// billed by it, and it is forgotten with the process.
import type { LeaseCalls } from '../../lib/control/schemas.js'

export interface CallCounts {
  total: number
  perSecond: number
  p50Us: number
  p99Us: number
}

interface Said {
  atMs: number
  calls: Map<string, CallCounts>
}

export class CallBook {
  readonly #nodes = new Map<string, Said>()

  /** All that the node has now: what it does not name any more is forgotten. */
  heard(node: string, calls: readonly LeaseCalls[], nowMs: number): void {
    const before = this.#nodes.get(node)
    const seconds = (nowMs - (before?.atMs ?? nowMs)) / 1000
    const now = calls.map(({ lease, ...counts }): [string, CallCounts] => {
      const more = counts.total - (before?.calls.get(lease)?.total ?? 0)
      return [lease, { ...counts, perSecond: seconds > 0 ? Math.max(0, more) / seconds : 0 }]
    })
    this.#nodes.set(node, { atMs: nowMs, calls: new Map(now) })
  }

  /** Of a lease with these parts: its workers do the same work, so the slowest part speaks for all. */
  of(parts: readonly { id: string; node: string }[]): CallCounts | undefined {
    const said = parts.flatMap(({ id, node }) => this.#nodes.get(node)?.calls.get(id) ?? [])
    if (said.length === 0) return undefined
    return {
      total: said.reduce((sum, { total }) => sum + total, 0),
      perSecond: said.reduce((sum, { perSecond }) => sum + perSecond, 0),
      p50Us: Math.max(...said.map(({ p50Us }) => p50Us)),
      p99Us: Math.max(...said.map(({ p99Us }) => p99Us)),
    }
  }

  forget(node: string): void {
    this.#nodes.delete(node)
  }
}
