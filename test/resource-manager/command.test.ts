import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { cleanUp, spawnManager, temporaryDirectory } from './support.js'

afterEach(cleanUp)

const main = fileURLToPath(new URL('../../dist/resource-manager/src/main.js', import.meta.url))

function run(...args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const timeout = 20_000
    execFile(process.execPath, [main, ...args], { timeout }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr })
    })
  })
}

function config(value: unknown): string {
  const path = join(temporaryDirectory(), 'config.json')
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value))
  return path
}

describe('the command line', () => {
  it('explains every option', async () => {
    const { code, stdout } = await run('--help')
    expect(code).toBe(0)
    for (const flag of [
      'host',
      'port',
      'data-dir',
      'heartbeat-ms',
      'keys-file',
      'tls-cert',
      'config',
    ]) {
      expect(stdout).toContain(`--${flag}`)
    }
  })

  it.each([
    [['--port', 'http'], /must be an integer from 0 to 65535/],
    [['--colour'], /unknown option '--colour'/],
    [['--log-level', 'loud'], /Allowed choices are silent, fatal/],
    [['--host', '0.0.0.0'], /^resource-manager: host is "0\.0\.0\.0", .*--keys-file/],
    [['--heartbeat-ms', 'often'], /^resource-manager: heartbeatMs is "often"/],
  ])('ends with 2 on %j', async (args, message) => {
    const { code, stdout, stderr } = await run(...args)
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(message)
  })

  it.each<[string, unknown, RegExp]>([
    ['an unknown key', { hots: '127.0.0.1' }, /is "hots", must be one of host, port/],
    ['a wrong value', { port: '7070' }, /port is "7070", must be an integer/],
    ['no object', [], /config is an array, must be a JSON object/],
    ['no JSON', '{', /config file .*config\.json cannot be used/],
  ])('ends with 2 on a config file with %s', async (_what, value, message) => {
    const { code, stderr } = await run('--config', config(value))
    expect(code).toBe(2)
    expect(stderr).toMatch(message)
  })

  it('ends with 1 when the data directory is in use, and says by whom', async () => {
    const dataDir = temporaryDirectory()
    const { child } = await spawnManager(dataDir)
    const { code, stderr } = await run('--port', '0', '--data-dir', dataDir)
    expect(code).toBe(1)
    expect(stderr).toContain(`in use by the resource manager with process id ${child.pid}`)
  })

  it('takes options from the file, and flags before them', async () => {
    const path = config({ port: 1, heartbeatMs: '777ms', host: '0.0.0.0' })
    const { url } = await spawnManager(temporaryDirectory(), {
      args: ['--config', path, '--host', '127.0.0.1'],
    })
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
  })
})
