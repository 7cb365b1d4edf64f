// The dashboard: what the stream says, put on the page. Everything is drawn anew from the latest state,
// at most once a second, and only where something is different.
import {
  byId,
  element,
  fillTable,
  formatBytes,
  formatDuration,
  formatNumber,
  type Column,
} from './elements.js'
import {
  coreStates,
  type CallCounts,
  type Change,
  type CoreCounts,
  type LeaseRow,
  type NodeRow,
  type Overview,
  type Sample,
  type Totals,
  type UsageRow,
} from './messages.js'
import { plotSamples, timeOf } from './plot.js'
import { events, Refused } from './stream.js'

const keyName = 'rfaas-key'
const remembered = 360
// More nodes than this are drawn as a square each.
const detailedNodes = 256
const detailedCores = 128

const nodes = new Map<string, NodeRow>()
const leases = new Map<string, LeaseRow>()
let samples: Sample[] = []
let totals: Totals | undefined

byId('sign-in').addEventListener('submit', (event) => {
  event.preventDefault()
  const input = byId('key') as HTMLInputElement
  sessionStorage.setItem(keyName, input.value.trim())
  input.value = ''
  void follow()
})
byId('sign-out').addEventListener('click', () => {
  sessionStorage.removeItem(keyName)
  location.reload()
})
addEventListener('resize', showPlot)
void follow()

/** Reads the stream for ever; after an end it begins anew with everything. */
async function follow(): Promise<void> {
  for (;;) {
    try {
      const key = sessionStorage.getItem(keyName)
      for await (const { name, data } of events('v1/overview/events', key)) {
        if (name === 'overview') begin(data as Overview)
        if (name === 'change') apply(data as Change)
      }
    } catch (error) {
      if (error instanceof Refused && [401, 403].includes(error.status)) return askForKey(error)
    }
    connection('connection lost, trying again', false)
    await new Promise((resolve) => setTimeout(resolve, 2000))
  }
}

function askForKey({ message }: Refused): void {
  const had = sessionStorage.getItem(keyName) !== null
  sessionStorage.removeItem(keyName)
  connection('not signed in', false)
  // Whoever comes next to this tab may be somebody else.
  nodes.clear()
  leases.clear()
  const filled = [
    'figures',
    'legend',
    'map',
    'nodes',
    'harvest',
    'samples',
    'leases',
    'usage',
    'news',
  ]
  for (const id of filled) byId(id).replaceChildren()
  byId('cluster').hidden = true
  byId('sign-out').hidden = true
  byId('whose').textContent = ''
  byId('sign-in').hidden = false
  byId('sign-in-problem').textContent = had ? message : ''
  byId('key').focus()
}

function begin(overview: Overview): void {
  nodes.clear()
  leases.clear()
  for (const node of overview.nodes) nodes.set(node.name, node)
  for (const lease of overview.leases) leases.set(lease.id, lease)
  samples = overview.history
  totals = overview.totals
  byId('sign-in').hidden = true
  byId('cluster').hidden = false
  byId('sign-out').hidden = sessionStorage.getItem(keyName) === null
  connection('live', true)
  showTotals()
  showNodes()
  showSamples()
  showLeases()
}

function apply(change: Change): void {
  tellNews(change)
  for (const node of change.nodes) nodes.set(node.name, node)
  for (const name of change.goneNodes) nodes.delete(name)
  for (const lease of change.leases) leases.set(lease.id, lease)
  for (const id of change.goneLeases) leases.delete(id)
  totals = change.totals
  if (change.sample !== undefined) {
    samples = [...samples, change.sample].slice(-remembered)
    showSamples()
  }
  if (change.nodes.length + change.goneNodes.length > 0) showNodes()
  showTotals()
  showLeases()
}

/** What somebody who does not see the map should hear: nodes that are lost, drained or back. */
function tellNews({ nodes: changed, goneNodes }: Change): void {
  const news = changed
    .filter(({ name, state }) => nodes.get(name)?.state !== state)
    .map(({ name, state }) => `node ${name} is ${state}`)
  const gone = goneNodes.map((name) => `node ${name} is gone`)
  const all = [...news, ...gone]
  if (all.length === 0) return
  byId('news').textContent = all.length > 3 ? `${all.length} nodes changed` : all.join(', ')
}

function connection(text: string, live: boolean): void {
  const place = byId('connection')
  // Said once, not again with every event.
  if (place.textContent !== text) place.textContent = text
  place.classList.toggle('live', live)
}

function coresOfAll(): CoreCounts {
  const sum: CoreCounts = { leased: 0, batch: 0, draining: 0, lost: 0, idle: 0 }
  for (const { cores } of nodes.values()) for (const state of coreStates) sum[state] += cores[state]
  return sum
}

function showTotals(): void {
  if (totals === undefined) return
  const { tenant, waiting, grants, grantP50Ms, grantP99Ms, usage } = totals
  byId('whose').textContent = tenant === undefined ? 'all tenants' : `tenant ${tenant}`
  const cores = coresOfAll()
  const all = coreStates.reduce((sum, state) => sum + cores[state], 0)
  const own = [...nodes.values()].filter(({ state }) => state !== 'batch')
  const up = own.filter(({ state }) => state !== 'lost').length
  const ms = (value: number | undefined): string =>
    value === undefined ? '–' : `${formatNumber(value, value < 10 ? 1 : 0)} ms`
  const calls = [...leases.values()].flatMap((lease) => lease.calls ?? [])
  const rate = calls.reduce((sum, { perSecond }) => sum + perSecond, 0)
  const figures: [string, string][] = [
    [`of ${formatNumber(own.length)} nodes up`, formatNumber(up)],
    [`of ${formatNumber(all)} cores leased`, formatNumber(cores.leased)],
    ['cores idle', formatNumber(cores.idle)],
    ['leases', formatNumber(totals.leases)],
    ['requests waiting', formatNumber(waiting)],
    ['calls a second', formatNumber(rate)],
    [`for half of ${formatNumber(grants)} grants`, ms(grantP50Ms)],
    ['for 99 % of them', ms(grantP99Ms)],
  ]
  byId('figures').replaceChildren(
    ...figures.map(([term, value]) =>
      element('div', {}, element('dt', {}, term), element('dd', {}, value)),
    ),
  )
  showUsage(usage)
}

// ── nodes ─────────────────────────────────────────────────────────────────────────────────────────

function showNodes(): void {
  const rows = [...nodes.values()].sort((a, b) =>
    a.name.localeCompare(b.name, 'en', { numeric: true }),
  )
  const cores = coresOfAll()
  byId('legend').replaceChildren(
    ...coreStates.map((state) =>
      element('li', {}, cell(state), `${state}: ${formatNumber(cores[state])}`),
    ),
  )
  const map = byId('map')
  const dense = rows.length > detailedNodes
  // Where the keyboard was must not be lost with what is drawn anew.
  const focused = (document.activeElement as HTMLElement | null)?.getAttribute('href')
  map.classList.toggle('dense', dense)
  map.replaceChildren(
    ...(rows.length === 0
      ? [element('li', { class: 'empty' }, 'No node has registered.')]
      : rows.map((node) => element('li', {}, nodeOnMap(node, dense)))),
  )
  if (focused?.startsWith('#node-') === true) {
    map.querySelector<HTMLElement>(`a[href="${CSS.escape(focused)}"]`)?.focus()
  }
  const number = (state: keyof CoreCounts): Column<NodeRow> => ({
    title: `Cores ${state}`,
    value: (row) => formatNumber(row.cores[state]),
    number: true,
  })
  fillTable(
    byId('nodes'),
    rows,
    [
      { title: 'Node', value: ({ name }) => name },
      { title: 'State', value: ({ state }) => state },
      ...coreStates.map(number),
      {
        title: 'Memory free',
        value: (row) => `${formatBytes(row.freeMemoryBytes)} of ${formatBytes(row.memoryBytes)}`,
        number: true,
      },
    ],
    'No node has registered.',
    ({ name }) => `node-${name}`,
  )
}

/** Leads to the node's row in the table, which a click opens. */
function nodeOnMap(node: NodeRow, dense: boolean): HTMLElement {
  const present = coreStates.filter((state) => node.cores[state] > 0)
  const told = present.map((state) => `${node.cores[state]} ${state}`).join(', ')
  const label = `${node.name}, ${node.state}: ${told === '' ? 'no cores' : `cores ${told}`}`
  const link = element('a', { href: `#node-${node.name}`, 'aria-label': label, title: label })
  link.addEventListener('click', () => {
    byId('nodes').closest('details')?.setAttribute('open', '')
  })
  if (dense) {
    const mostly = present.reduce(
      (most, state) => (node.cores[state] > node.cores[most] ? state : most),
      present[0] ?? 'idle',
    )
    link.append(cell(mostly))
    return link
  }
  // Cores of large nodes are drawn by their share.
  const all = present.reduce((sum, state) => sum + node.cores[state], 0)
  const share = Math.max(1, all / detailedCores)
  const cells = present.flatMap((state) =>
    Array.from({ length: Math.ceil(node.cores[state] / share) }, () => cell(state)),
  )
  link.append(
    element(
      'span',
      { class: 'name' },
      node.state === 'up' ? node.name : `${node.name} · ${node.state}`,
    ),
    element('span', { class: 'cores' }, ...cells),
  )
  return link
}

function cell(state: keyof CoreCounts): HTMLElement {
  return element('span', { class: `core ${state}`, 'aria-hidden': 'true' })
}

// ── time, leases, usage ───────────────────────────────────────────────────────────────────────────

function showSamples(): void {
  showPlot()
  // One a minute is enough to be read.
  const minutes = samples.filter((_, index) => (samples.length - 1 - index) % 6 === 0).reverse()
  fillTable(
    byId('samples'),
    minutes,
    [
      { title: 'Time', value: ({ atMs }) => timeOf(atMs) },
      ...coreStates.map((state): Column<Sample> => {
        return { title: state, value: ({ cores }) => formatNumber(cores[state]), number: true }
      }),
    ],
    'Nothing yet.',
  )
}

function showPlot(): void {
  const place = byId('harvest')
  place.replaceChildren(plotSamples(samples, Math.max(280, place.clientWidth)))
}

function showLeases(): void {
  if (totals === undefined) return
  const { atMs } = totals
  const rows = [...leases.values()].sort((a, b) => b.grantedAtMs - a.grantedAtMs)
  const us = (value: number): string =>
    value < 1000 ? `${formatNumber(value, 1)} µs` : `${formatNumber(value / 1000, 1)} ms`
  const calls = (title: string, value: (calls: CallCounts) => string): Column<LeaseRow> => ({
    title,
    value: (row) => (row.calls === undefined ? '–' : value(row.calls)),
    number: true,
  })
  fillTable(
    byId('leases'),
    rows,
    [
      { title: 'Lease', value: ({ id }) => id },
      { title: 'Tenant', value: ({ tenant }) => tenant },
      { title: 'State', value: ({ state }) => state },
      { title: 'Cores', value: (row) => formatNumber(row.cores), number: true },
      { title: 'Memory', value: (row) => formatBytes(row.memoryBytes), number: true },
      { title: 'On', value: (row) => placesOf(row.nodes) },
      calls('Calls', ({ total }) => formatNumber(total)),
      calls('A second', ({ perSecond }) => formatNumber(perSecond)),
      calls('Half within', ({ p50Us }) => us(p50Us)),
      calls('99 % within', ({ p99Us }) => us(p99Us)),
      { title: 'Age', value: (row) => formatDuration(atMs - row.grantedAtMs), number: true },
      { title: 'Ends in', value: (row) => formatDuration(row.expiresAtMs - atMs), number: true },
    ],
    'No lease holds cores.',
  )
  const more = totals.leases - rows.length
  byId('more-leases').hidden = more <= 0
  byId('more-leases').textContent = `and ${formatNumber(more)} older ones`
}

function placesOf(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ')
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown
}

function showUsage(usage: readonly UsageRow[]): void {
  const hours = (ms: number): string => {
    const value = ms / 3_600_000
    return value >= 1
      ? formatNumber(value, 1)
      : value.toLocaleString('en-US', { maximumSignificantDigits: 2 })
  }
  fillTable(
    byId('usage'),
    [...usage].sort((a, b) => b.coreMs - a.coreMs),
    [
      { title: 'Tenant', value: ({ tenant }) => tenant },
      { title: 'Leases', value: (row) => formatNumber(row.leases), number: true },
      { title: 'Core hours', value: (row) => hours(row.coreMs), number: true },
      {
        title: 'GiB hours',
        value: (row) => hours(row.memoryByteMs / 2 ** 30),
        number: true,
      },
      { title: 'CPU hours', value: (row) => hours(row.cpuMs), number: true },
    ],
    'No lease has ended.',
  )
}
