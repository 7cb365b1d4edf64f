// The page that the resource manager serves: its files, and the stream that feeds it. A viewer gets
// everything once, then whatever is different at the next look; nobody looks while there is no viewer,
// except for the sample of the cores that the hour's plot is drawn from.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Type } from 'typebox'
import type { Principal } from '../../lib/control/principal.js'
import type { HarvestInfo, HarvestNode } from '../../lib/control/report-schemas.js'
import type { LeaseInfo, NodeInfo } from '../../lib/control/schemas.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import type { ControlServer } from '../../lib/control/server.js'
import { RfaasError } from '../../lib/errors.js'
import { packageRoot } from '../../lib/package-root.js'
import type {
  Change,
  CoreCounts,
  LeaseRow,
  NodeRow,
  Overview,
  Sample,
  Totals,
} from '../dashboard/messages.js'
import type { Manager } from './manager.js'
import type { ManagerMetrics } from './metrics.js'
import type { Office } from './office.js'
import type { Authenticate } from './server.js'

const lookMs = 1000
const sampleMs = 10_000
const rememberedSamples = 360
// Each costs the leader work at every look.
const mostViewers = 100
const mostViewersPerKey = 16
// The newest: more than anybody reads, and a page stays quick.
const mostLeaseRows = 200

const files = [
  { path: '/', file: 'resource-manager/dashboard/index.html', type: 'text/html' },
  { path: '/dashboard/style.css', file: 'resource-manager/dashboard/style.css', type: 'text/css' },
  ...['page', 'elements', 'messages', 'plot', 'stream'].map((name) => ({
    path: `/dashboard/${name}.js`,
    file: `dist/resource-manager/dashboard/${name}.js`,
    type: 'text/javascript',
  })),
]
const headers = {
  // Whatever a tenant or a node may be called, nothing but our own script runs.
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cache-control': 'no-cache',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/** For everybody: the page knows nothing by itself. */
export function addDashboardFiles({ app }: ControlServer): void {
  for (const { path, file, type } of files) {
    app.get(path, { schema: { hide: true } }, async (_request, reply) => {
      const bytes = await readFile(join(packageRoot(), file))
      return reply.headers(headers).type(`${type}; charset=utf-8`).send(bytes)
    })
  }
}

export function addDashboardRoute(
  server: ControlServer,
  dashboard: Dashboard,
  principalOf: Authenticate,
): void {
  server.operation({
    method: 'GET',
    path: '/v1/overview/events',
    summary: 'Server-sent events `overview` and `change`: what the dashboard at / shows',
    query: Type.Object({}, { additionalProperties: false }),
    answersEvents: true,
    handle: ({ asker, events }) => dashboard.open(principalOf(asker), events),
  })
}

/** A row beside what it is as JSON, made once for all viewers. */
interface Shown<Row> {
  key: string
  row: Row
  text: string
}

interface Viewer {
  principal: Principal
  stream: EventStream
  /** What it has been sent, by name and id, as JSON. */
  nodes: Map<string, string>
  leases: Map<string, string>
  totals: string
  sample: Sample | undefined
}

export class Dashboard {
  readonly #office: Office
  readonly #metrics: ManagerMetrics
  readonly #harvest: () => HarvestInfo
  readonly #viewers = new Set<Viewer>()
  readonly #history: Sample[] = []
  readonly #sampling: NodeJS.Timeout
  #looking: NodeJS.Timeout | undefined

  /** `harvest`: what the batch system is seen to do, where there is one. */
  constructor(office: Office, metrics: ManagerMetrics, harvest: () => HarvestInfo) {
    this.#office = office
    this.#metrics = metrics
    this.#harvest = harvest
    this.#sampling = setInterval(() => this.#sample(), sampleMs).unref()
    this.#sample()
  }

  /** The streams end with their server. */
  stop(): void {
    clearInterval(this.#sampling)
    clearInterval(this.#looking)
  }

  open(principal: Principal, open: () => EventStream): void {
    this.#requireRoom(principal)
    const { manager } = this.#office
    const { totals, leases } = this.#seenBy(principal, manager)
    const nodes = this.#nodesFor(principal)
    const stream = open()
    const viewer: Viewer = {
      principal,
      stream,
      nodes: new Map(),
      leases: new Map(),
      totals: JSON.stringify({ ...totals, atMs: 0 }),
      sample: this.#history.at(-1),
    }
    differences(viewer.nodes, shown(nodes, nameOf))
    differences(viewer.leases, shown(leases, idOf))
    const overview: Overview = { totals, nodes, leases, history: this.#history }
    stream.send('overview', overview)
    this.#viewers.add(viewer)
    this.#looking ??= setInterval(() => this.#look(), lookMs).unref()
    stream.onClose(() => {
      this.#viewers.delete(viewer)
      if (this.#viewers.size > 0) return
      clearInterval(this.#looking)
      this.#looking = undefined
    })
  }

  #look(): void {
    // Streams end with the term of whoever decides.
    const manager = this.#office.current
    if (manager === undefined) return
    const own = shown(this.#ownNodes(), nameOf)
    const all = [...own, ...shown(this.#batchNodes(), nameOf)]
    for (const viewer of this.#viewers) {
      const { totals, leases } = this.#seenBy(viewer.principal, manager)
      const sample = this.#history.at(-1)
      const node = differences(viewer.nodes, seesBatch(viewer.principal) ? all : own)
      const lease = differences(viewer.leases, shown(leases, idOf))
      const change: Change = {
        totals,
        nodes: node.changed,
        goneNodes: node.gone,
        leases: lease.changed,
        goneLeases: lease.gone,
        ...(sample !== undefined && sample !== viewer.sample && { sample }),
      }
      const text = JSON.stringify({ ...totals, atMs: 0 })
      const same =
        text === viewer.totals &&
        change.sample === undefined &&
        [node.changed, node.gone, lease.changed, lease.gone].every((list) => list.length === 0)
      if (same) continue
      viewer.totals = text
      viewer.sample = sample
      viewer.stream.send('change', change)
    }
  }

  #sample(): void {
    const cores = noCores()
    for (const row of [...this.#ownNodes(), ...this.#batchNodes()]) {
      for (const state of Object.keys(cores) as (keyof CoreCounts)[])
        cores[state] += row.cores[state]
    }
    this.#history.push({ atMs: Date.now(), cores })
    if (this.#history.length > rememberedSamples) this.#history.shift()
  }

  #requireRoom({ keyId }: Principal): void {
    const own = [...this.#viewers].filter(({ principal }) => principal.keyId === keyId).length
    if (this.#viewers.size < mostViewers && own < mostViewersPerKey) return
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `the dashboard has as many viewers as it takes (${mostViewersPerKey} of a key, ${mostViewers} of all): close another one`,
      { status: 429 },
    )
  }

  #nodesFor(principal: Principal): NodeRow[] {
    return seesBatch(principal) ? [...this.#ownNodes(), ...this.#batchNodes()] : this.#ownNodes()
  }

  #ownNodes(): NodeRow[] {
    return (this.#office.current?.nodes() ?? []).map(nodeRow)
  }

  #batchNodes(): NodeRow[] {
    return this.#harvest().nodes.map(batchRow)
  }

  #seenBy(principal: Principal, manager: Manager): { totals: Totals; leases: LeaseRow[] } {
    const open = manager.leases(principal).filter(({ state }) => state !== 'closed')
    const { grantTimes } = this.#metrics
    const totals: Totals = {
      atMs: Date.now(),
      ...(principal.role === 'tenant' && { tenant: principal.tenant }),
      waiting: manager.countWaiting(),
      grants: grantTimes.count,
      ...(grantTimes.count > 0 && {
        grantP50Ms: grantTimes.percentile(0.5),
        grantP99Ms: grantTimes.percentile(0.99),
      }),
      leases: open.length,
      usage: manager.usage.allOf(principal),
    }
    return {
      totals,
      leases: open
        .reverse()
        .slice(0, mostLeaseRows)
        .map((lease) => leaseRow(lease, manager)),
    }
  }
}

function leaseRow(
  { id, tenant, state, parts, memoryBytes, ...times }: LeaseInfo,
  manager: Manager,
): LeaseRow {
  const calls = manager.calls.of(parts)
  return {
    id,
    tenant,
    state,
    nodes: parts.map(({ node }) => node),
    cores: parts.reduce((sum, part) => sum + part.cores.length, 0),
    memoryBytes,
    grantedAtMs: Date.parse(times.grantedAt),
    expiresAtMs: Date.parse(times.expiresAt),
    ...(calls !== undefined && { calls }),
  }
}

/** As of `GET /v1/harvest`: what the batch system does on which node is its operator's business. */
function seesBatch({ role }: Principal): boolean {
  return role === 'operator'
}

const nameOf = ({ name }: NodeRow): string => name
const idOf = ({ id }: LeaseRow): string => id

function noCores(): CoreCounts {
  return { leased: 0, batch: 0, draining: 0, lost: 0, idle: 0 }
}

function nodeRow(node: NodeInfo): NodeRow {
  const { name, state, draining, cores, freeCores, memoryBytes, freeMemoryBytes } = node
  const counts = noCores()
  if (state === 'lost') {
    counts.lost = cores
  } else {
    counts.leased = cores - freeCores
    counts[draining ? 'draining' : 'idle'] = freeCores
  }
  const shown = state === 'up' && draining ? 'draining' : state
  return { name, state: shown, cores: counts, memoryBytes, freeMemoryBytes }
}

/** What the batch system has on a node of its own, beside the nodes that were harvested from it. */
function batchRow({ name, batchCores, idleCores, ...node }: HarvestNode): NodeRow {
  const { memoryBytes, allocatedMemoryBytes } = node
  return {
    name: `batch:${name}`,
    state: 'batch',
    cores: { ...noCores(), batch: batchCores, idle: idleCores },
    memoryBytes,
    freeMemoryBytes: Math.max(0, memoryBytes - allocatedMemoryBytes),
  }
}

function shown<Row>(rows: readonly Row[], keyOf: (row: Row) => string): Shown<Row>[] {
  return rows.map((row) => ({ key: keyOf(row), row, text: JSON.stringify(row) }))
}

/** What is not as it was sent, which is brought up to date. */
function differences<Row>(
  sent: Map<string, string>,
  rows: readonly Shown<Row>[],
): { changed: Row[]; gone: string[] } {
  const present = new Set<string>()
  const changed: Row[] = []
  for (const { key, row, text } of rows) {
    present.add(key)
    if (sent.get(key) === text) continue
    sent.set(key, text)
    changed.push(row)
  }
  const gone = [...sent.keys()].filter((key) => !present.has(key))
  for (const key of gone) sent.delete(key)
  return { changed, gone }
}
