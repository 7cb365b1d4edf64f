// The rules that hold in every scenario, whatever its fault: no core is granted twice, no lease and no
// entry of the ledger is lost, no process is left behind.
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'

import type { LeaseRecord, LedgerEntry, Store } from '../../resource-manager/stores/store.js'
import { descendants, isAlive, until, workersOf } from './proc.js'

const sampleMs = 100

/** What it looks at. */
export interface Audited {
  readonly folder: string
  /** Process ids of the executor managers that run now; those of one machine, whose cores they share,
   * together. */
  executorManagersByMachine(): number[][]
  /** In good order: throws when a manager ended badly. */
  end(): Promise<void>
  /** To look into when no manager runs. */
  openStore(): Store
  /** After that: ends what else there is. */
  stop(): Promise<void>
}

export class Audit {
  readonly #granted = new Set<string>()
  readonly #crowded: string[] = []
  #watch: NodeJS.Timeout | undefined
  /** Set by scenarios that leave no store to look into. */
  storeIsGone = false

  /** A client was told that it has this lease. */
  granted(lease: string): void {
    this.#granted.add(lease)
  }

  /** Looks again and again whether two workers share a core. */
  watch(cluster: Audited): void {
    this.#watch = setInterval(() => this.#sample(cluster), sampleMs).unref()
  }

  /** Ends the cluster. */
  async examine(cluster: Audited): Promise<void> {
    clearInterval(this.#watch)
    assert.deepEqual(this.#crowded, [], 'a core ran workers of two leases')
    const below = cluster.executorManagersByMachine().flat().flatMap(descendants)
    await cluster.end()
    await until('all workers ended with their manager', () => !below.some(isAlive))
    const sockets = readdirSync(cluster.folder).filter((name) => name.startsWith('rfaas-'))
    assert.deepEqual(sockets, [], 'folders with sockets were left behind')
    if (!this.storeIsGone) await this.#examineStore(cluster)
    await cluster.stop()
  }

  async #examineStore(cluster: Audited): Promise<void> {
    const store = cluster.openStore()
    try {
      const snapshot = await store.load()
      const ledger: LedgerEntry[] = []
      const begin = { closedMs: 0, id: '' }
      for await (const entry of store.ledger(begin, Number.MAX_SAFE_INTEGER)) ledger.push(entry)
      for (const id of this.#granted) {
        const known = snapshot.leases.some(({ lease }) => lease === id)
        assert(known || ledger.some(({ lease }) => lease === id), `lease ${id} was lost`)
      }
      for (const { id, state } of snapshot.leases) {
        if (state !== 'closed') continue
        assert(
          ledger.some((entry) => entry.id === id),
          `closed lease ${id} is not in the ledger`,
        )
      }
      checkIntervals(snapshot.leases, ledger)
    } finally {
      await store.close()
    }
  }

  #sample(cluster: Audited): void {
    for (const executorManagers of cluster.executorManagersByMachine()) {
      const holders = new Map<string, number>()
      for (const worker of executorManagers.flatMap(workersOf)) {
        const core = pinnedCore(worker)
        if (core === undefined) continue
        const other = holders.get(core)
        if (other === undefined) holders.set(core, worker)
        else this.#crowded.push(`core ${core}: processes ${other} and ${worker}`)
      }
    }
  }
}

/** From its grant until it was closed a lease has its cores for itself. */
function checkIntervals(leases: readonly LeaseRecord[], ledger: readonly LedgerEntry[]): void {
  interface Interval {
    lease: string
    begin: number
    end: number
  }
  const intervals = new Map<string, Interval[]>()
  const add = (node: string, cores: readonly number[], interval: Interval): void => {
    for (const core of cores) {
      const key = `core ${core} of ${node}`
      const others = intervals.get(key) ?? []
      for (const other of others) {
        const overlaps = interval.begin < other.end && other.begin < interval.end
        assert(!overlaps, `${key} was granted twice: ${interval.lease} and ${other.lease}`)
      }
      intervals.set(key, [...others, interval])
    }
  }
  for (const { lease, node, cores, startMs, closedMs } of ledger) {
    add(node, cores, { lease, begin: startMs, end: closedMs })
  }
  for (const { id, node, cores, state, grantedAtMs } of leases) {
    if (state !== 'closed') add(node, cores, { lease: id, begin: grantedAtMs, end: Infinity })
  }
}

function pinnedCore(pid: number): string | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1]
    return list !== undefined && /^\d+$/.test(list) ? list : undefined
  } catch {
    return undefined
  }
}
