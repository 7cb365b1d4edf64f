// The page at / and what feeds it: over HTTP, and as a browser shows it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createKey, type KeyRecord } from '../../lib/control/keys.js'
import { events, request } from '../../lib/control/http.js'
import type { Change, Overview } from '../../resource-manager/dashboard/messages.js'
import { Browser, browserProgram } from './browser.js'
import {
  cleanUp,
  grant,
  MiB,
  registeredNode,
  release,
  startManager,
  temporaryDirectory,
} from './support.js'

afterEach(cleanUp)

/** Keys in a file, by role; `remove` takes one away. */
function keysOf(...records: Pick<KeyRecord, 'role' | 'tenant' | 'node'>[]) {
  const path = join(temporaryDirectory(), 'keys.json')
  const made = records.map((record) => createKey(record))
  const write = (kept: typeof made): void =>
    writeFileSync(path, JSON.stringify({ keys: kept.map(({ record }) => record) }), { mode: 0o600 })
  write(made)
  const remove = (gone: string): void => write(made.filter(({ key }) => key !== gone))
  return { path, keys: made.map(({ key }) => key), remove }
}

const bob = { role: 'tenant', tenant: 'bob' } as const
const alice = { role: 'tenant', tenant: 'alice' } as const
const ops = { role: 'operator', tenant: 'ops' } as const
const node = { role: 'node', node: 'node-a' } as const

async function clusterOfTenants() {
  const { path, keys, remove } = keysOf(alice, bob, ops, node)
  const [aliceKey = '', bobKey = '', opsKey = '', token] = keys
  const { url } = await startManager({ keysFile: path, nodeTimeoutMs: 60_000 })
  const registration = {
    ...{ name: 'node-a', url: 'http://127.0.0.1:1', cores: [0, 1, 2, 3], memoryBytes: 1024 * MiB },
    ...{ providers: [], hostId: 'h', sequence: 1, leases: [] },
  }
  await request(`${url}/v1/nodes`, { method: 'POST', token, body: registration })
  for (const [key, cores] of [
    [aliceKey, 1],
    [bobKey, 2],
  ] as const) {
    const body = { cores, memoryBytes: MiB, durationMs: 60_000 }
    await request(`${url}/v1/leases`, { method: 'POST', token: key, body })
  }
  return { url, aliceKey, opsKey, remove }
}

describe('the stream of the dashboard', () => {
  it('begins with everything and goes on with what is different', async () => {
    const { url } = await startManager()
    await registeredNode(url)
    await registeredNode(url, { name: 'node-b', hostId: 'host-b' })
    const reading = new AbortController()
    const stream = events(`${url}/v1/overview/events`, { signal: reading.signal })
    const first = (await stream.next()).value as { event: string; data: Overview }
    expect(first).toMatchObject({
      event: 'overview',
      data: {
        totals: { waiting: 0, grants: 0, leases: 0, usage: [] },
        nodes: [{ name: 'node-a', state: 'up', cores: { idle: 4, leased: 0 } }, { name: 'node-b' }],
        leases: [],
      },
    })
    const { lease } = await grant(url, { node: 'node-a', cores: 3 })
    const second = (await stream.next()).value as { event: string; data: Change }
    expect(second).toMatchObject({
      event: 'change',
      data: {
        totals: { grants: 1, leases: 1 },
        nodes: [{ name: 'node-a', cores: { idle: 1, leased: 3 } }],
        leases: [{ id: lease.id, cores: 3, nodes: ['node-a'], state: 'granted' }],
      },
    })
    await request(`${url}/v1/nodes/node-b/drain`, { method: 'POST' })
    await request(`${url}/v1/nodes/node-a?force=true`, { method: 'DELETE' })
    let latest: Change
    do latest = ((await stream.next()).value as { data: Change }).data
    while (latest.goneNodes.length === 0)
    expect(latest).toMatchObject({ goneNodes: ['node-a'], goneLeases: [lease.id] })
    reading.abort()
  })

  it('shows tenants their own leases and usage, operators everything', async () => {
    const { url, aliceKey, opsKey } = await clusterOfTenants()
    const seenBy = async (token: string): Promise<Overview> => {
      const reading = new AbortController()
      const stream = events(`${url}/v1/overview/events`, { token, signal: reading.signal })
      const { value } = await stream.next()
      reading.abort()
      return (value as { data: Overview }).data
    }
    const own = await seenBy(aliceKey)
    expect(own.totals).toMatchObject({ tenant: 'alice', leases: 1 })
    expect(own.leases).toMatchObject([{ tenant: 'alice' }])
    expect(JSON.stringify(own)).not.toContain('bob')
    const all = await seenBy(opsKey)
    expect(all.totals.tenant).toBeUndefined()
    expect(all.leases.map(({ tenant }) => tenant).sort()).toEqual(['alice', 'bob'])
  })

  it('is not opened without end under one key', async () => {
    const { url, aliceKey, opsKey } = await clusterOfTenants()
    const reading = new AbortController()
    const open = async (token: string): Promise<unknown> => {
      const stream = events(`${url}/v1/overview/events`, { token, signal: reading.signal })
      return (await stream.next()).value
    }
    for (let n = 0; n < 16; n += 1) await open(aliceKey)
    await expect(open(aliceKey)).rejects.toMatchObject({ status: 429 })
    await expect(open(opsKey)).resolves.toMatchObject({ event: 'overview' })
    reading.abort()
  })

  it('needs a key where there are keys; the page itself does not, and runs no script but its own', async () => {
    const { url } = await clusterOfTenants()
    expect((await fetch(`${url}/v1/overview/events`)).status).toBe(401)
    const page = await fetch(url)
    expect(page.status).toBe(200)
    expect(page.headers.get('content-security-policy')).toMatch(
      /default-src 'none'; script-src 'self'/,
    )
    const html = await page.text()
    const linked = [...html.matchAll(/\b(?:src|href)="([^"#]*)"/g)].map(
      ([, target]) => target ?? '',
    )
    for (const target of linked.filter((link) => link !== 'data:,')) {
      expect((await fetch(new URL(target, url))).status, target).toBe(200)
    }
    expect(html).not.toMatch(/https?:|style=|<script>/)
  })
})

if (browserProgram === undefined) {
  console.warn('the dashboard in a browser: skipped, there is no chromium (Debian: chromium)')
}

describe.runIf(browserProgram !== undefined)('the dashboard in a browser', () => {
  let browser: Browser
  beforeEach(() => {
    browser = new Browser()
  })
  afterEach(() => browser.close())

  const soon = { timeout: 15_000 }

  it('shows nodes, cores and leases as they change, in a map and as tables', async () => {
    const { url } = await startManager()
    const first = await registeredNode(url)
    await registeredNode(url, { name: 'node-b', hostId: 'host-b', cores: [0, 1] })
    await browser.open(url, 1280, 1000)
    await expect.poll(() => browser.text('#connection'), soon).toBe('live')
    const cellsOf = (state: string) =>
      browser.evaluate<number>(`document.querySelectorAll('#map .core.${state}').length`)
    expect(await cellsOf('idle')).toBe(6)
    expect(await browser.text('#leases')).toContain('No lease holds cores')

    const { lease } = await grant(url, { node: 'node-a', cores: 3 })
    await expect.poll(() => cellsOf('leased'), soon).toBe(3)
    expect(await browser.text('#leases')).toContain(lease.id)
    await request(`${url}/v1/nodes/node-b/drain`, { method: 'POST' })
    await expect.poll(() => cellsOf('draining'), soon).toBe(2)
    expect(await browser.text('#news')).toBe('node node-b is draining')

    await release(url, lease.id)
    await first.closed(lease.id, 10, 10)
    await expect.poll(() => browser.text('#usage'), soon).toMatch(/^default\s+1/m)
    await expect.poll(() => cellsOf('leased'), soon).toBe(0)
    expect(browser.problems).toEqual([])
  })

  it('can be read and used without seeing it, and with the keyboard alone', async () => {
    const { url } = await startManager()
    await registeredNode(url)
    await grant(url)
    await browser.open(url, 1280, 1000)
    await expect.poll(() => browser.text('#connection'), soon).toBe('live')
    const unnamed = `[...document.querySelectorAll('table')].filter((table) =>
      !table.querySelector('thead th[scope=col]') || !table.querySelector('tbody th[scope=row], .empty')
    ).length`
    expect(await browser.evaluate(unnamed)).toBe(0)
    const focused = () =>
      browser.evaluate<{ text: string; outline: string }>(`(() => {
        const at = document.activeElement
        return { text: at.getAttribute('aria-label') ?? at.innerText, outline: getComputedStyle(at).outlineStyle }
      })()`)
    await browser.press('Tab')
    expect(await focused()).toEqual({ text: 'To the content', outline: 'solid' })
    await browser.press('Tab')
    expect(await focused()).toEqual({
      text: 'node-a, up: cores 1 leased, 3 idle',
      outline: 'solid',
    })
    await browser.press('Enter')
    await expect
      .poll(() => browser.evaluate(`document.querySelector('tr:target')?.innerText ?? ''`), soon)
      .toMatch(/^node-a\s+up\s+1/)
    // Focus stays where it was when the map is drawn anew.
    await browser.evaluate(`document.querySelector('#map a').focus()`)
    await grant(url)
    await expect
      .poll(async () => (await focused()).text, soon)
      .toBe('node-a, up: cores 2 leased, 2 idle')
  })

  it('asks for a key once, says what is wrong with one, and keeps it in the tab', async () => {
    const { url, aliceKey, remove } = await clusterOfTenants()
    await browser.open(url, 1280, 1000)
    const focusedId = () => browser.evaluate<string>('document.activeElement.id')
    await expect.poll(focusedId, soon).toBe('key')
    await browser.type(`rfk_0000000000_${'A'.repeat(43)}`)
    await browser.press('Enter')
    await expect.poll(() => browser.text('#sign-in-problem'), soon).toMatch(/there is no such key/)
    await browser.type(aliceKey)
    await browser.press('Enter')
    await expect.poll(() => browser.text('#whose'), soon).toBe('tenant alice')
    expect(await browser.text('#leases')).toContain('alice')
    expect(await browser.text('body')).not.toContain('bob')
    expect(await browser.evaluate('localStorage.length + document.cookie.length')).toBe(0)
    expect(await browser.evaluate('location.href')).toBe(`${url}/`)

    await browser.send('Page.reload')
    await expect.poll(() => browser.text('#whose'), soon).toBe('tenant alice')
    remove(aliceKey)
    await expect.poll(focusedId, soon).toBe('key')
    const left = await browser.evaluate<string>('document.body.textContent')
    expect(left).not.toMatch(/alice|node-a|l-/)
    expect(await browser.evaluate('sessionStorage.length')).toBe(0)
  })

  it.each(['light', 'dark'] as const)('is legible in %s mode, wide and narrow', async (theme) => {
    const { url } = await startManager()
    for (let index = 1; index <= 12; index += 1) {
      const cores = Array.from({ length: 16 }, (_, core) => core)
      await registeredNode(url, { name: `node-${index}`, hostId: `host-${index}`, cores })
    }
    await grant(url, { cores: 40, memoryBytes: 64 * MiB, nodes: 4 })
    await browser.open(url, 1280, 1000)
    await browser.theme(theme)
    await expect.poll(() => browser.text('#connection'), soon).toBe('live')
    // WCAG 2: 4.5 for text, 3 for what is drawn.
    const contrasts = await browser.evaluate<Record<string, number>>(`(() => {
      const style = getComputedStyle(document.documentElement)
      const light = (name) => {
        const [r, g, b] = style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((part) => {
          const value = parseInt(part, 16) / 255
          return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
        })
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
      }
      const between = (a, b) => {
        const [low, high] = [light(a), light(b)].sort((x, y) => x - y)
        return (high + 0.05) / (low + 0.05)
      }
      return Object.fromEntries(['ink', 'faint', 'accent', 'leased', 'batch', 'draining', 'lost'].map(
        (name) => [name, between('--' + name, '--card')]))
    })()`)
    for (const [name, ratio] of Object.entries(contrasts)) {
      const least = ['ink', 'faint', 'accent'].includes(name) ? 4.5 : 3
      expect(ratio, `${name} on a card`).toBeGreaterThan(least)
    }
    for (const width of [1280, 360]) {
      await browser.resize(width, 1000)
      const tooWide = 'document.documentElement.scrollWidth > innerWidth'
      expect(await browser.evaluate(tooWide), `${width} pixels`).toBe(false)
    }
    expect(browser.problems).toEqual([])
  })

  it('draws a large cluster as a square for each node', async () => {
    const { url } = await startManager()
    for (let first = 0; first < 300; first += 50) {
      await Promise.all(
        Array.from({ length: 50 }, (_, index) => {
          const name = `n${first + index}`
          return registeredNode(url, { name, hostId: name })
        }),
      )
    }
    await browser.open(url, 1280, 1000)
    await expect.poll(() => browser.text('#connection'), soon).toBe('live')
    expect(await browser.evaluate(`document.querySelectorAll('#map.dense .core').length`)).toBe(300)
    expect((await browser.picture()).length).toBeGreaterThan(0)
  })
})
