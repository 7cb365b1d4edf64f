// The report, as text and as a browser shows it.
import { execFile, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { renderPage } from '../../bench/report/page.js'
import { fileOf, wholeFile } from './results.js'

const run = promisify(execFile)
const file = wholeFile()
const html = renderPage(file)

describe('the report', () => {
  test('has the figures of a paper, each with a name, a description and its table', () => {
    const ids = [...html.matchAll(/<section id="([^"]+)">/g)].map(([, id]) => id)
    expect(ids).toEqual([
      ...['targets', 'latency', 'cdf', 'function', 'depth', 'workers', 'clients', 'bandwidth'],
      ...['cold-start', 'cost', 'leases', 'footprint', 'neighbour', 'method'],
    ])
    const plots = html.match(/<svg [^>]*role="img"/g)!.length
    expect(html.match(/<title id="plot-/g)).toHaveLength(plots)
    expect(html.match(/<desc id="plot-/g)).toHaveLength(plots)
    for (const section of html.split('<section ').slice(1, -1)) expect(section).toContain('<table')
  })

  test('needs nothing from the network and runs no script', () => {
    expect(html).not.toMatch(/\b(src|href)="(?!#)/)
    expect(html).not.toMatch(/<script|@import|url\(/)
  })

  test('text from a result file is text', () => {
    expect(html).toContain('A &lt;fast&gt; &amp; quiet one')
    expect(html).not.toContain('<fast>')
  })

  test('says what it is of', () => {
    for (const text of ['Linux 6.1', 'v20.17.0', '0123456789ab', 'shm on shm0', 'core 0']) {
      expect(html).toContain(text)
    }
  })

  test('leaves out what was not measured, and says what could not be', () => {
    const skipped = { trial: 'latency', driver: 'ib_write_lat', reason: 'no device' }
    const page = renderPage({ ...fileOf([]), skipped: [skipped] })
    expect(page).not.toContain('<svg')
    expect(page).toContain('latency: ib_write_lat was not measured: no device')
  })

  test('no coordinate is missing', () => {
    expect(html).not.toMatch(/NaN|Infinity|undefined/)
  })
})

const browser = ['chromium', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
)
if (browser === undefined) {
  console.warn('the report in a browser: skipped, there is no chromium (Debian: chromium)')
}

describe.runIf(browser !== undefined)('the report in a browser', () => {
  let folder: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rfaas-report-'))
    await writeFile(join(folder, 'report.html'), html)
    await writeFile(join(folder, 'checked.html'), html.replace('</body>', `${checks}</body>`))
  })

  afterAll(() => rm(folder, { recursive: true, force: true }))

  const chromium = async (page: string, ...args: string[]): Promise<string> => {
    const profile = `--user-data-dir=${join(folder, 'profile')}`
    const always = ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', profile]
    const url = `file://${join(folder, page)}`
    return (await run(browser!, [...always, ...args, url], { timeout: 60_000 })).stdout
  }

  // Looks at every text in every plot, and leaves what it finds in the document.
  const checks = `<script>
    const problems = [];
    for (const svg of document.querySelectorAll('svg')) {
      const name = svg.querySelector('title').textContent;
      const frame = svg.getBoundingClientRect();
      const texts = [...svg.querySelectorAll('text')].map((text) => ({
        text: text.textContent, box: text.getBoundingClientRect() }));
      for (const { text, box } of texts) {
        if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom)
          problems.push(name + ': ' + text + ' leaves its plot');
      }
      texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => {
        const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
        const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
        if (wide > 1 && high > 3) problems.push(name + ': ' + a.text + ' is upon ' + b.text);
      }));
    }
    if (document.documentElement.scrollWidth > innerWidth) problems.push('the page is wider than its window');
    document.body.dataset.problems = JSON.stringify(problems);
    document.body.dataset.plots = document.querySelectorAll('svg').length;
  </script>`

  test.each([1280, 500])(
    '%d pixels wide: every text is in its plot, and on no other',
    async (wide) => {
      const dom = await chromium('checked.html', '--dump-dom', `--window-size=${wide},900`)
      const attribute = (name: string): string =>
        new RegExp(`data-${name}="([^"]*)"`).exec(dom)![1]!.replaceAll('&quot;', '"')
      expect(JSON.parse(attribute('problems'))).toEqual([])
      expect(Number(attribute('plots'))).toBeGreaterThan(9)
    },
  )

  test.each(['light', 'dark'])('in %s mode it is, and what is drawn stands out', async (theme) => {
    const flags = theme === 'dark' ? ['--force-dark-mode'] : []
    const picture = join(folder, `${theme}.png`)
    await chromium('report.html', `--screenshot=${picture}`, '--window-size=1060,6000', ...flags)
    const { channels } = await sharp(await readFile(picture))
      .greyscale()
      .stats()
    const { mean, stdev } = channels[0]!
    if (theme === 'light') expect(mean).toBeGreaterThan(200)
    else expect(mean).toBeLessThan(60)
    expect(stdev).toBeGreaterThan(10)
  })
})
