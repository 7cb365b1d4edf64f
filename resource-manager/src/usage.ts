// Questions to the ledger: the sums of all that was ever closed are in memory; a range of time is read
// from the store.
import type { Principal } from '../../lib/control/principal.js'
import type {
  UsageEntries,
  UsageEntriesQuery,
  UsageEntry,
  UsageQuery,
} from '../../lib/control/report-schemas.js'
import type { LedgerEntry, LedgerPosition, Store, TenantUsage } from '../stores/store.js'
import { requireClient, sees } from './access.js'
import { Ledger } from './ledger.js'

const entriesPerPage = 1000

export class UsageReader {
  readonly #ledger: Ledger
  readonly #store: Store

  constructor(ledger: Ledger, store: Store) {
    this.#ledger = ledger
    this.#store = store
  }

  /** Per tenant, as far as the principal may see, of all that was ever closed. */
  allOf(principal: Principal): TenantUsage[] {
    requireClient(principal)
    return this.#ledger.usage().filter((usage) => sees(principal, usage))
  }

  /** Per tenant, as far as the principal may see. */
  async sums(principal: Principal, query: UsageQuery): Promise<TenantUsage[]> {
    requireClient(principal)
    const wanted = wantedBy(principal, query)
    if (query.from === undefined && query.to === undefined) {
      return this.#ledger.usage().filter(wanted)
    }
    const range = new Ledger()
    for await (const entry of this.#read(query)) if (wanted(entry)) range.add(entry)
    return range.usage()
  }

  /** A page of entries. */
  async entries(principal: Principal, query: UsageEntriesQuery): Promise<UsageEntries> {
    requireClient(principal)
    const wanted = wantedBy(principal, query)
    const entries: LedgerEntry[] = []
    for await (const entry of this.#read(query, query.after)) {
      if (!wanted(entry)) continue
      if (entries.length === entriesPerPage) {
        const last = entries.at(-1)!
        return { entries: entries.map(shown), next: `${last.closedMs}/${last.id}` }
      }
      entries.push(entry)
    }
    return { entries: entries.map(shown) }
  }

  #read({ from, to }: UsageQuery, after?: string): AsyncIterable<LedgerEntry> {
    const start: LedgerPosition = { closedMs: from === undefined ? 0 : Date.parse(from), id: '' }
    const [closedMs, id] = after?.split('/') ?? []
    const position = id === undefined ? start : { closedMs: Number(closedMs), id }
    return this.#store.ledger(position, to === undefined ? Number.MAX_SAFE_INTEGER : Date.parse(to))
  }
}

function wantedBy(
  principal: Principal,
  { tenant }: UsageQuery,
): (of: { tenant: string }) => boolean {
  return (of) => sees(principal, of) && (tenant === undefined || tenant === of.tenant)
}

function shown({ part: _, startMs, endMs, closedMs, ...entry }: LedgerEntry): UsageEntry {
  return {
    ...entry,
    start: new Date(startMs).toISOString(),
    end: new Date(endMs).toISOString(),
    closed: new Date(closedMs).toISOString(),
  }
}
