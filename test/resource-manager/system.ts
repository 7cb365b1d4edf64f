// The real manager on a real store, with a clock that the test moves, and the comparison with the model.
import { generateKeyPairSync } from 'node:crypto'
import { expect } from 'vitest'
import type { Clock } from '../../lib/control/clock.js'
import { createLogger } from '../../lib/control/log.js'
import type { LeaseInfo } from '../../lib/control/schemas.js'
import { signToken } from '../../lib/control/token.js'
import { schedulers, type SchedulerName } from '../../resource-manager/schedulers/policies.js'
import { Manager } from '../../resource-manager/src/manager.js'
import type { LedgerEntry, Snapshot, Store } from '../../resource-manager/stores/store.js'
import { nodeTimeoutMs, operator, tenants, type Model } from './model.js'

/** Opens what was stored in the folder before, which is also a name: the seam for other stores. */
export type OpenStore = (folder: string) => Store | Promise<Store>

const { privateKey } = generateKeyPairSync('ed25519')
const logger = createLogger({ name: 'model', level: 'silent' })

export interface Place {
  open: OpenStore
  folder: string
  scheduler: SchedulerName
}

export class System {
  manager: Manager
  readonly clock: Clock
  #store: Store
  readonly #place: Place

  private constructor(place: Place, clock: Clock, store: Store, snapshot: Snapshot) {
    this.#place = place
    this.clock = clock
    this.#store = store
    this.manager = this.#start(snapshot)
  }

  static async start(place: Place, model: Model): Promise<System> {
    const store = await place.open(place.folder)
    return new System(place, { now: () => model.nowMs }, store, await store.load())
  }

  async restart(): Promise<void> {
    await this.close()
    this.#store = await this.#place.open(this.#place.folder)
    this.manager = this.#start(await this.#store.load())
  }

  async close(): Promise<void> {
    this.manager.stop()
    await this.#store.close()
  }

  /** Everything that was decided is on disk, and whoever waited for it has heard. */
  async settle(): Promise<void> {
    // A grant may follow from a closed lease, and a release from a grant that nobody wants any more.
    for (let turn = 0; turn < 3; turn += 1) {
      await this.#store.settled()
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  #start(snapshot: Snapshot): Manager {
    return new Manager({
      store: this.#store,
      snapshot,
      clock: this.clock,
      sign: (claims) => signToken(claims, privateKey),
      scheduler: schedulers[this.#place.scheduler],
      logger,
      heartbeatMs: 3_600_000,
      nodeTimeoutMs,
      maxLeaseMs: 3_600_000,
    })
  }

  async #ledger(): Promise<LedgerEntry[]> {
    const entries: LedgerEntry[] = []
    const begin = { closedMs: 0, id: '' }
    for await (const entry of this.#store.ledger(begin, Number.MAX_SAFE_INTEGER))
      entries.push(entry)
    return entries
  }

  /** What must hold after every step. */
  async compare(model: Model): Promise<void> {
    model.tick()
    const leases = this.manager.leases(operator)
    await this.settle()
    this.#compareWaits(model)
    this.#compareLeases(model, this.manager.leases(operator))
    expect(leases.length).toBeLessThanOrEqual(
      new Set([...model.parts.values()].map(({ lease }) => lease)).size,
    )
    this.#compareNodes(model)
    for (const tenant of tenants) {
      expect(model.withinQuota(tenant), `quota of ${tenant.tenant}`).toBe(true)
      const own = this.manager.leases(tenant)
      expect(own.every((lease) => lease.tenant === tenant.tenant)).toBe(true)
    }

    const entries = await this.#ledger()
    expect(entries.map(({ id }) => id).sort()).toEqual([...model.ledger.keys()].sort())
    for (const { id, leaseMs, cores, coreMs } of entries) {
      expect([id, leaseMs]).toEqual([id, model.ledger.get(id)])
      expect(coreMs).toBe(leaseMs * cores.length)
    }
    const sums = await this.manager.usage.sums(operator, {})
    const billed = sums.reduce((sum, { leaseMs }) => sum + leaseMs, 0)
    expect(billed).toBe(entries.reduce((sum, { leaseMs }) => sum + leaseMs, 0))
  }

  #compareWaits(model: Model): void {
    const heard = model.waits.filter(({ settled }) => settled !== undefined)
    const granted = heard.filter(({ settled }) => settled?.grant !== undefined)
    granted.sort((a, b) => a.settled!.grant!.lease.epoch - b.settled!.grant!.lease.epoch)
    for (const { principal, request, settled } of granted) {
      const grant = settled!.grant!
      const known = model.requests.get(request.requestId ?? '')
      // A repeated request that waited too has the same lease.
      if (known === undefined) model.grant(principal, request, grant)
      else expect(grant.lease.id).toBe(known.lease)
      model.waits = model.waits.filter((wait) => wait.request !== request)
    }
    for (const wait of heard.filter(({ settled }) => settled?.error !== undefined)) {
      model.waits = model.waits.filter((other) => other !== wait)
      expect(wait.deadlineMs, String(wait.settled?.error)).toBeLessThanOrEqual(model.nowMs)
      const code = (wait.settled?.error as { code: string }).code
      expect(['ERR_RFAAS_NO_CAPACITY', 'ERR_RFAAS_QUOTA']).toContain(code)
    }
    for (const wait of model.waits) expect(wait.deadlineMs).toBeGreaterThan(model.nowMs)
    // Whoever is first does not wait while there is room.
    const [first] = model.waits
    if (first !== undefined && model.withinQuota(first.principal, first.request)) {
      expect(model.fits(first.request), 'the first in line waits although there is room').toBe(
        false,
      )
    }
  }

  #compareLeases(model: Model, leases: LeaseInfo[]): void {
    const seen = leases.flatMap(({ id, parts, tenant, expiresAt, epoch }) =>
      parts.map((part) => ({ ...part, lease: id, tenant, until: Date.parse(expiresAt), epoch })),
    )
    const short = (part: {
      id: string
      lease: string
      state: string
      cores: number[]
      node: string
    }) => `${part.lease} ${part.id} ${part.node}/${part.cores.join()} ${part.state}`
    expect(seen.map(short).sort()).toEqual([...model.parts.values()].map(short).sort())
    const taken = seen.flatMap(({ node, cores, state }) =>
      state === 'closed' ? [] : cores.map((core) => `${node}/${core}`),
    )
    expect(new Set(taken).size, `granted twice: ${taken.join(' ')}`).toBe(taken.length)
    for (const { id, epoch, expiresAt } of leases) {
      const parts = model.partsOf(id)
      expect(epoch).toBe(Math.max(...parts.map((part) => part.epoch)))
      expect(Date.parse(expiresAt)).toBe(Math.max(...parts.map((part) => part.expiresAtMs)))
    }
  }

  #compareNodes(model: Model): void {
    const nodes = this.manager
      .nodes()
      .map(({ name, state, draining, freeCores }) => ({ name, state, draining, freeCores }))
    const known = [...model.nodes.values()].filter(({ removed }) => !removed)
    const expected = known.map((node) => ({
      name: node.name,
      state: node.up ? 'up' : 'lost',
      draining: node.draining,
      freeCores: model.freeOn(node).cores.length,
    }))
    const byName = (a: { name: string }, b: { name: string }): number =>
      a.name.localeCompare(b.name)
    expect(nodes.sort(byName)).toEqual(expected.sort(byName))
  }
}
