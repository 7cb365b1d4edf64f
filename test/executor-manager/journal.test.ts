// What a node owes the ledger survives the resource manager's absence, its own end, and being killed.
import { spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { appendFileSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { createLogger } from '../../lib/control/log.js'
import { Journal } from '../../executor-manager/src/journal.js'
import {
  answer,
  cleanUp,
  eventually,
  onCleanUp,
  scriptManager,
  startExecutor,
  startNode,
  temporaryDirectory,
} from './support.js'

afterEach(cleanUp)

const functions = `
export const echo = (i, o) => { o.set(i); return i.length }
setInterval(() => { for (const until = Date.now() + 20; Date.now() < until; ); }, 40)
`
const logger = createLogger({ name: 'test', level: 'silent' })

describe('what a lease used', () => {
  it('is reported by the next executor manager when the resource manager was away', async () => {
    const keys = generateKeyPairSync('ed25519')
    const script = await scriptManager(0, keys)
    const dataDir = temporaryDirectory()
    const node = await startNode(script.url, { dataDir })
    const token = script.token()
    await startExecutor(node.url, token, functions)
    await script.close()
    await request(`${node.url}/v1/leases/l-1`, { method: 'DELETE', token })
    await node.close()

    const back = await scriptManager(Number(new URL(script.url).port), keys)
    await startNode(back.url, { dataDir })
    await eventually(() => back.closed.length > 0, 'the report')
    expect(back.registrations[0]?.leases).toEqual(['l-1'])
    expect(back.closed).toMatchObject([{ lease: 'l-1' }])
    expect(back.closed[0]?.used.heldMs).toBeGreaterThan(0)
    await eventually(
      () => readFileSync(join(dataDir, 'leases.journal'), 'utf8').includes('null'),
      'nothing is owed any more',
    )
  })

  it('until shortly before the executor manager was killed is reported by the next', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const main = join(import.meta.dirname, '../../dist/executor-manager/src/main.js')
    const options = { '--port': '0', '--name': 'node-1', '--log-level': 'error' }
    const folders = { '--data-dir': dataDir, '--runtime-dir': temporaryDirectory() }
    const args = Object.entries({ ...options, ...folders, '--resource-manager': script.url })
    const killed = spawn(process.execPath, [main, ...args.flat()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    onCleanUp(() => void killed.kill('SIGKILL'))
    const [line] = (await once(createInterface(killed.stdout), 'line')) as [string]
    const url = /http:\/\/[0-9.:]+/.exec(line)?.[0] as string
    const token = script.token()
    await startExecutor(url, token, functions)
    const journal = join(dataDir, 'leases.journal')
    await eventually(() => /"cpuMs":[1-9]/.test(readFileSync(journal, 'utf8')), 'a checkpoint')
    killed.kill('SIGKILL')
    await once(killed, 'exit')

    const node = await startNode(script.url, { dataDir })
    await eventually(() => script.closed.length > 0, 'the report')
    expect(script.registrations.at(-1)?.leases).toEqual(['l-1'])
    expect(script.closed[0]?.used.heldMs).toBeGreaterThan(0)
    expect(script.closed[0]?.used.cpuMs).toBeGreaterThan(0)
    expect(await answer(node.url, 'GET', '/v1/leases/l-1/events', { token })).toMatchObject({
      status: 409,
      code: 'ERR_RFAAS_LEASE_ENDED',
      message: expect.stringContaining('its executor manager was restarted') as unknown,
    })
  })
})

describe('an executor manager', () => {
  it('shares neither its folder nor its name with another one on the host', async () => {
    const script = await scriptManager()
    const dataDir = temporaryDirectory()
    const first = await startNode(script.url, { dataDir })
    const taken = (field: string): object => ({ code: 'ERR_RFAAS_UNAVAILABLE', field })
    await expect(startNode(script.url, { dataDir, name: 'node-2' })).rejects.toMatchObject(
      taken('dataDir'),
    )
    await expect(startNode(script.url)).rejects.toMatchObject(taken('name'))
    await first.close()
    await startNode(script.url, { dataDir })
  })
})

describe('the journal', () => {
  it('keeps what is owed through damage, and stays short', async () => {
    const path = join(temporaryDirectory(), 'leases.journal')
    const journal = await Journal.open(path, logger)
    const used = { heldMs: 10, cpuMs: 5 }
    void journal.began('l-owed')
    await journal.ended('l-owed', used)
    for (let i = 0; i < 3000; i += 1) {
      void journal.began(`l-${i}`)
      journal.checkpoint([[`l-${i}`, used]])
      journal.confirmed(`l-${i}`)
      if (i % 100 === 0) await journal.ended('l-owed', used)
    }
    await journal.close()
    expect(readFileSync(path, 'utf8').split('\n').length).toBeLessThan(3000)

    appendFileSync(path, 'rubbish\n{"lease":"l-half","us')
    const again = await Journal.open(path, logger)
    expect([...again.owed]).toEqual([['l-owed', used]])
    await again.close()
    rmSync(path)
    const empty = await Journal.open(path, logger)
    expect(empty.owed.size).toBe(0)
    await empty.close()
  })

  it('that cannot be read is an error that names it', async () => {
    const path = temporaryDirectory()
    await expect(Journal.open(path, logger)).rejects.toMatchObject({
      code: 'ERR_RFAAS_INTERNAL',
      message: expect.stringContaining(path) as unknown,
    })
  })
})
