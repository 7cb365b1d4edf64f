// Where secrets are not: in arguments, in the environment of workers, in logs, in files for everybody.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createLogger } from '../../lib/control/log.js'
import {
  cleanUp as endProcesses,
  descendants,
  rfaas,
  rfaasProcess,
  rfaasServer,
} from '../cli/support.js'
import { Authority, cleanUp, temporaryFolder } from './support.js'

afterEach(async () => {
  await endProcesses()
  await cleanUp()
})

const apiKey = /rfk_[a-z0-9]+_[A-Za-z0-9_-]{43}/
const leaseToken = /[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{86}/

describe('a cluster made with the command line, with keys and TLS,', () => {
  it('shows its secrets nowhere', async () => {
    const folder = temporaryFolder()
    const authority = new Authority()
    const keysFile = join(folder, 'keys.json')
    const key = async (name: string, ...args: string[]): Promise<string> => {
      const { stdout, stderr } = await rfaas(['keys', 'add', '--keys-file', keysFile, ...args])
      expect(stdout).toMatch(apiKey)
      expect(stderr).not.toMatch(apiKey)
      const path = join(folder, name)
      writeFileSync(path, stdout, { mode: 0o600 })
      return path
    }
    const tenant = await key('alice.key', '--tenant', 'alice')
    const node = await key('node.key', '--role', 'node', '--node', 'node-1')
    const tls = (name: string): string[] => {
      const files = authority.issue(name)
      return ['--tls-cert', files.cert, '--tls-key', files.key, '--port', '0']
    }
    const data = { manager: join(folder, 'manager'), node: join(folder, 'node') }
    const resourceManager = await rfaasServer([
      ...['resource-manager', '--keys-file', keysFile, '--node-ca', authority.certificate],
      ...['--data-dir', data.manager, '--log-level', 'trace', ...tls('manager')],
    ])
    const executorManager = await rfaasServer([
      ...['executor-manager', '--name', 'node-1', '--resource-manager', resourceManager.url],
      ...['--key-file', node, '--ca', authority.certificate, '--runtime-dir', folder],
      ...['--data-dir', data.node, '--cores', '1', '--log-level', 'trace', ...tls('node-1')],
    ])
    const path = join(folder, 'slow.mjs')
    writeFileSync(
      path,
      `export const wait = (input, output, { signal }) =>
         new Promise((resolve) => signal.addEventListener('abort', () => resolve(0)))`,
    )
    const target = ['--url', resourceManager.url, '--key-file', tenant]
    const trusted = [...target, '--ca', authority.certificate]
    const call = rfaasProcess(['invoke', path, 'wait', '--memory', '64MiB', ...trusted])
    const managers = [resourceManager, executorManager].map(({ child }) => child.pid ?? 0)
    const workers = (): number[] => descendants(managers[1] ?? 0)
    await expect.poll(workers, { timeout: 20_000 }).not.toEqual([])
    await expect
      .poll(async () => (await rfaas(['leases', '--json', ...trusted])).stdout, { timeout: 20_000 })
      .toContain('"active"')

    const texts = new Map<string, string>()
    for (const pid of [...managers, ...workers(), call.child.pid ?? 0]) {
      texts.set(`arguments of ${pid}`, readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    }
    for (const pid of workers()) {
      texts.set(`environment of ${pid}`, readFileSync(`/proc/${pid}/environ`, 'utf8'))
    }
    call.child.kill('SIGINT')
    await call.exited
    // Refused attempts are logged, too.
    await rfaas(['leases', ...trusted], { env: { RFAAS_KEY: 'rfk_0000_short' } })
    texts.set('log of the resource manager', resourceManager.stderr())
    texts.set('log of the executor manager', executorManager.stderr())
    texts.set('what the client said', call.stderr())
    for (const [where, text] of texts) {
      expect(text, where).not.toMatch(apiKey)
      expect(text, where).not.toMatch(leaseToken)
      expect(text, where).not.toMatch(/PRIVATE KEY|ticket=/)
    }

    for (const place of Object.values(data)) {
      expect((statSync(place).mode & 0o777).toString(8)).toBe('700')
      for (const file of ['signing-key.pem', 'leases.journal']) {
        if (!readdirSync(place).includes(file)) continue
        expect((statSync(join(place, file)).mode & 0o777).toString(8), file).toBe('600')
      }
    }
    expect((statSync(keysFile).mode & 0o777).toString(8)).toBe('600')
    for (const file of readdirSync(data.manager)) {
      const text = readFileSync(join(data.manager, file), 'latin1')
      expect(text, file).not.toMatch(apiKey)
      expect(text, file).not.toMatch(leaseToken)
    }
  })

  it('is for those with keys: others are told how to come in', async () => {
    const folder = temporaryFolder()
    const keysFile = join(folder, 'keys.json')
    const { stdout } = await rfaas(['keys', 'add', '--keys-file', keysFile, '--tenant', 'alice'])
    const { url } = await rfaasServer([
      ...['resource-manager', '--port', '0', '--keys-file', keysFile],
      ...['--data-dir', join(folder, 'data')],
    ])
    const without = await rfaas(['leases', '--url', url])
    expect([without.code, without.stdout]).toEqual([1, ''])
    expect(without.stderr).toMatch(/no API key.*\n.*--key-file or RFAAS_KEY_FILE/)
    const keyFile = join(folder, 'alice.key')
    writeFileSync(keyFile, stdout, { mode: 0o644 })
    const open = await rfaas(['leases', '--url', url], { env: { RFAAS_KEY_FILE: keyFile } })
    expect([open.code, open.stderr]).toEqual([2, expect.stringContaining('chmod 600')])
    const inside = await rfaas(['leases', '--json', '--url', url], {
      env: { RFAAS_KEY: stdout.trim() },
    })
    expect(inside).toMatchObject({ code: 0, stdout: '[]\n' })

    const listed = await rfaas(['keys', 'list', '--json', '--keys-file', keysFile])
    const [record] = JSON.parse(listed.stdout) as { id: string }[]
    expect(listed.stdout).not.toContain('sha256')
    await rfaas(['keys', 'remove', record?.id ?? '', '--keys-file', keysFile])
    const after = await rfaas(['leases', '--url', url], { env: { RFAAS_KEY: stdout.trim() } })
    expect(after.stderr).toContain('no such key')
  })
})

describe('a log', () => {
  it('has no keys and no tokens, wherever in a line they are', () => {
    const lines: string[] = []
    const stream = { write: (line: string) => void lines.push(line) }
    const logger = createLogger({ name: 'test', level: 'trace', stream })
    const key = `rfk_abcdef_${'s'.repeat(42)}-`
    const token = `${'p'.repeat(60)}.${'q'.repeat(85)}-`
    logger.info({ deep: { down: { below: [key, token] } }, err: new Error(`bad ${token}`) }, key)
    logger.info({ headers: { authorization: 'x-secret' }, grant: { tokens: ['x-secret'] } }, 'x')
    expect(lines).toHaveLength(2)
    expect(lines.join('')).not.toMatch(/s{42}|q{85}|x-secret/)
    expect(lines[0]).toContain('rfk_abcdef_[redacted]')
  })
})
