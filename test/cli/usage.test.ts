// What the command line says of itself, and to those who use it wrongly.
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'

import { cleanUp, rfaas, root, temporaryFolder } from './support.js'

afterEach(cleanUp)

const commands = [
  'up',
  'doctor',
  'invoke',
  'nodes',
  'leases',
  'usage',
  'include',
  'resource-manager',
  'executor-manager',
  'keys',
  'drain',
  'undrain',
  'utilization',
  'simulate',
]

describe('help', () => {
  test('lists every command', async () => {
    const { code, stdout } = await rfaas(['--help'])
    expect(code).toBe(0)
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^  ${command}\\b`, 'm'))
  })

  test.each(commands)('of %s names the command and its options', async (command) => {
    const { code, stdout } = await rfaas([command, '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`^Usage: rfaas ${command}\\b`))
    expect(stdout).toContain('--help')
  })

  test('is what comes without a command, and counts as wrong usage', async () => {
    const { code, stdout, stderr } = await rfaas([])
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toContain('Usage: rfaas')
  })

  test('the version is that of the package', async () => {
    const { code, stdout } = await rfaas(['--version'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  test('include prints where function.h is', async () => {
    const { code, stdout } = await rfaas(['include'])
    expect(code).toBe(0)
    expect(existsSync(join(stdout.trim(), 'rfaas/function.h'))).toBe(true)
    expect(stdout.trim().startsWith(root)).toBe(true)
  })
})

describe('wrong usage is exit code 2 and names', () => {
  test.each([
    ['the command', ['conjure'], "unknown command 'conjure'"],
    ['the option', ['nodes', '--jsn'], "unknown option '--jsn'"],
    ['a missing argument', ['invoke', 'hello.so'], "missing required argument 'function'"],
    ['a count', ['invoke', 'a.so', 'f', '--repeat', 'often'], "'often' is invalid"],
    ['a count of cores', ['invoke', 'a.so', 'f', '--cores', '0'], 'from 1 to 4096'],
    ['a size', ['invoke', 'a.so', 'f', '--memory', 'lots'], "'lots' is invalid"],
    ['a time', ['invoke', 'a.so', 'f', '--timeout', '5 parsecs'], "'5 parsecs' is invalid"],
    ['a provider', ['invoke', 'a.so', 'f', '--provider', 'tcp'], 'Allowed choices are shm, verbs'],
    ['a port', ['up', '--port', '70000'], 'from 0 to 65535'],
    ['a URL', ['nodes', '--url', 'ftp://host'], 'url is "ftp://host"'],
    ['cores', ['executor-manager', '--cores', 'two'], 'cores is "two"'],
    ['a policy', ['simulate', '--scheduler', 'worst-fit'], '--scheduler is "worst-fit"'],
    ['a trace', ['utilization', 'report', 'no-such-file'], 'no-such-file: cannot be read'],
    ['a host', ['resource-manager', '--host', '0.0.0.0'], 'host is "0.0.0.0"'],
  ])('%s', async (_what, args, message) => {
    const { code, stdout, stderr } = await rfaas(args)
    expect(stderr).toContain(message)
    expect(stderr).toMatch(/^rfaas: /)
    expect(stderr).not.toMatch(/^\s+at /m)
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })

  test.each([
    ['resource-manager', { prot: 7070 }, /"prot", must be one of .*port/],
    ['resource-manager', { port: 'web' }, /port is "web"/],
    ['resource-manager', { heartbeatMs: 'soon' }, /heartbeatMs is "soon"/],
    ['executor-manager', { core: 1 }, /"core", must be one of .*cores/],
    ['executor-manager', { port: -1 }, /port is -1/],
    ['executor-manager', { memoryBytes: 'all' }, /memoryBytes is "all"/],
    ['executor-manager', { resourceManager: 'there' }, /resourceManager is "there"/],
  ])('a key of the config file: %s %j', async (command, config, message) => {
    const file = join(temporaryFolder(), 'config.json')
    writeFileSync(file, JSON.stringify(config))
    const { code, stderr } = await rfaas([command, '--config', file])
    expect(stderr).toMatch(message)
    expect(code).toBe(2)
  })

  test('a config file that is not JSON', async () => {
    const file = join(temporaryFolder(), 'config.json')
    writeFileSync(file, '{')
    const { code, stderr } = await rfaas(['resource-manager', '--config', file])
    expect(stderr).toContain(file)
    expect(code).toBe(2)
  })
})

describe('doctor', () => {
  test('finds that shared memory works and says what it knows of RDMA', async () => {
    const { code, stdout } = await rfaas(['doctor'])
    expect(stdout).toMatch(/✔ shared memory/)
    expect(stdout).toMatch(/[✔!] seccomp/)
    expect(stdout).toMatch(/provider verbs/)
    expect(stdout).toMatch(/rfaas works here over shared memory/)
    expect(stdout).not.toContain('\x1b[')
    expect(code).toBe(0)
  })

  test('fails where UNIX sockets cannot be made', async () => {
    const nowhere = join(temporaryFolder(), 'missing')
    const { code, stdout } = await rfaas(['doctor'], { env: { TMPDIR: nowhere } })
    expect(stdout).toMatch(/✘ shared memory .*missing/)
    expect(stdout).toContain('change what is marked ✘')
    expect(code).toBe(1)
  })

  test('speaks JSON', async () => {
    const { code, stdout } = await rfaas(['doctor', '--json'])
    const report = JSON.parse(stdout) as {
      works: boolean
      findings: { sharedMemory: { name: string; verdict: string }[] }
    }
    expect(code).toBe(0)
    expect(report.works).toBe(true)
    expect(report.findings.sharedMemory).toContainEqual(
      expect.objectContaining({ name: 'shared memory', verdict: 'ok' }),
    )
  })
})

describe('without a resource manager', () => {
  // Port 9 is reserved for discarding; nothing on loopback answers there.
  const url = 'http://127.0.0.1:9'

  test.each([['nodes'], ['leases'], ['usage']])('%s says so, and what to do', async (command) => {
    const { code, stdout, stderr } = await rfaas([command], { env: { RFAAS_URL: url } })
    expect(stderr).toContain(`there is no resource manager at ${url}`)
    expect(stderr).toContain("'rfaas up'")
    expect(stdout).toBe('')
    expect(code).toBe(1)
  })

  test('--debug shows where it happened', async () => {
    const { code, stderr } = await rfaas(['nodes', '--url', url, '--debug'])
    expect(stderr).toMatch(/^\s+at .*connect/m)
    expect(code).toBe(1)
  })
})
