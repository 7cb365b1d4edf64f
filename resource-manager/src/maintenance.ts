// What the operator does to nodes: empties them, lends them again, forgets those that never return.
import type { Logger } from '../../lib/control/log.js'
import type { Principal } from '../../lib/control/principal.js'
import { RfaasError } from '../../lib/errors.js'
import type { NodeRecord } from '../stores/store.js'
import { requireOperator } from './access.js'
import type { Granting } from './granting.js'
import { noNode } from './refusals.js'
import type { State } from './state.js'

export class Maintenance {
  readonly #state: State
  readonly #granting: Granting
  readonly #logger: Logger
  readonly #tick: () => void

  /** `tick`: brings the state up to the present time. */
  constructor(state: State, granting: Granting, logger: Logger, tick: () => void) {
    this.#state = state
    this.#granting = granting
    this.#logger = logger
    this.#tick = tick
  }

  /** Nothing new is granted on the node, over restarts too, until `undrain`. Its leases go on, or with
   * `noticeMs` are taken back. */
  async drain(principal: Principal, name: string, noticeMs?: number): Promise<void> {
    await this.#put({ ...this.#require(principal, name), draining: true })
    this.#logger.info({ node: name, noticeMs }, 'node is draining')
    if (noticeMs === undefined) return
    await this.#state.revoke(this.#state.nodes.holding(name), noticeMs)
    // Without notice they end here and now.
    this.#tick()
    await this.#state.settled()
  }

  async undrain(principal: Principal, name: string): Promise<void> {
    const { draining: _, ...node } = this.#require(principal, name)
    await this.#put(node)
    this.#logger.info({ node: name }, 'node lends again')
  }

  /** For as long as its source says so: of the present batch job, and not over restarts. */
  withhold(name: string, withheld: boolean): void {
    // Who waits may have it now, or wait for other nodes.
    if (this.#state.nodes.withhold(name, withheld)) this.#granting.serve()
  }

  /** The leases of the node are revoked with this notice; to say so again changes nothing. */
  takeBack(name: string, noticeMs: number): Promise<void> {
    return this.#state.revoke(this.#state.nodes.holding(name), noticeMs)
  }

  /** Forgets a node that is not up, or any with `force`: its leases are closed and billed as lost. What
   * the node may still run of them is fenced off: should it come back it registers like a new one and
   * is told to end them, and it starts no lease on a core before the one that had it is gone. */
  async remove(principal: Principal, name: string, force = false): Promise<void> {
    const { draining: _, ...node } = this.#require(principal, name)
    if (this.#state.nodes.isUp(name) && !force) {
      throw new RfaasError(
        'ERR_RFAAS_INVALID_ARGUMENT',
        `node ${name} is up: drain it and end its executor manager first, or remove it with force`,
        { field: 'name', value: name, status: 409 },
      )
    }
    const closing = [...this.#state.nodes.holding(name)].map((part) => this.#state.closing(part))
    const change = this.#state.changeEach({
      nodes: [{ ...node, removed: true }],
      leases: closing.map(({ lease }) => lease),
      ledger: closing.map(({ entry }) => entry),
    })
    this.#granting.serve()
    await change
    const level = closing.length > 0 ? 'warn' : 'info'
    this.#logger[level]({ node: name, leases: closing.length }, 'node removed')
    for (const { lease } of closing) {
      this.#state.nodes.tell(name, 'end', { lease: lease.id, reason: 'lost' })
    }
  }

  async #put(node: NodeRecord): Promise<void> {
    const change = this.#state.change({ nodes: [node] })
    // Who waits may wait for other nodes now, or have this one.
    this.#granting.serve()
    await change
  }

  #require(principal: Principal, name: string): NodeRecord {
    requireOperator(principal)
    this.#tick()
    const node = this.#state.nodes.registered(name)
    if (node === undefined) throw noNode(name)
    return node
  }
}
