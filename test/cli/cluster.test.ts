// `rfaas up` and the commands that use what it started.
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import {
  cleanUp,
  descendants,
  helloPackages,
  rfaas,
  rfaasProcess,
  rfaasServer,
  temporaryFolder,
  type Ended,
  type Running,
} from './support.js'

let hello: { native: string; node: string }
beforeAll(async () => {
  hello = await helloPackages()
})
afterEach(cleanUp)

/** A cluster whose sockets and data lie in a folder that we can look into. */
async function up(): Promise<Running & { folder: string }> {
  const folder = temporaryFolder()
  const env = { TMPDIR: folder, XDG_RUNTIME_DIR: folder }
  return { ...(await rfaasServer(['up', '--port', '0'], env)), folder }
}

async function leases(url: string, ...flags: string[]): Promise<unknown[]> {
  const { stdout } = await rfaas(['leases', '--json', '--url', url, ...flags])
  return JSON.parse(stdout) as unknown[]
}

function expectDone({ code, stderr }: Ended): void {
  expect(stderr).toBe('')
  expect(code).toBe(0)
}

describe('a cluster', () => {
  test('has one node with all its cores free', async () => {
    const { url } = await up()
    const { stdout, code } = await rfaas(['nodes', '--json', '--url', url])
    const nodes = JSON.parse(stdout) as { state: string; cores: number; freeCores: number }[]
    expect(code).toBe(0)
    expect(nodes).toHaveLength(1)
    expect(nodes[0]?.state).toBe('up')
    expect(nodes[0]?.freeCores).toBe(nodes[0]?.cores)

    const table = await rfaas(['nodes'], { env: { RFAAS_URL: url } })
    expectDone(table)
    expect(table.stdout).toMatch(/^NODE +STATE +FREE CORES/)
    expect(table.stdout).toMatch(/^local +up +/m)
  })

  test('lends nothing of a node that is drained, and ends what a removed one runs', async () => {
    const { url } = await up()
    const env = { RFAAS_URL: url }
    const node = async (): Promise<string | undefined> =>
      /^local +(\S.*?)  /m.exec((await rfaas(['nodes'], { env })).stdout)?.[1]
    const invoke = () => rfaas(['invoke', hello.native, 'hello', '--cores', '1'], { env })

    expect((await rfaas(['drain', 'local', '--now'], { env })).stderr).toMatch(
      /is draining: 'rfaas/,
    )
    expect(await node()).toBe('up, draining')
    expect((await invoke()).stderr).toMatch(/no node lends, 1 draining/)
    expect((await rfaas(['undrain', 'local', '--url', url])).code).toBe(0)
    expectDone(await invoke())

    expect(await rfaas(['nodes', 'remove', 'local'], { env })).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^rfaas: node local is up: drain it/) as string,
    })
    await using client = await Client.connect(url)
    const lease = await client.lease({ memory: '64MiB' })
    await using functions = await lease.deploy(hello.native)
    const ended = once(lease, 'ended')
    expect((await rfaas(['nodes', 'remove', 'local', '--url', url, '--force'])).code).toBe(0)
    await ended
    await expect(functions.invoke('hello', new Uint8Array(1))).rejects.toThrow()
    // It has come back, as a new one with all its cores.
    await expect.poll(node, { timeout: 10_000 }).toBe('up')
    expectDone(await invoke())
  })

  test('lends as many cores as it was told to', async () => {
    const { url } = await rfaasServer(['up', '--port', '0', '--cores', '1', '--memory', '1GiB'])
    const { stdout } = await rfaas(['nodes', '--json', '--url', url])
    expect(JSON.parse(stdout)).toMatchObject([{ cores: 1, memoryBytes: 2 ** 30 }])
  })

  test.each(['SIGTERM', 'SIGINT'] as const)(
    'ends cleanly on %s, with nothing left behind',
    async (signal) => {
      const cluster = await up()
      expectDone(await rfaas(['invoke', hello.node, 'hello', '--url', cluster.url], { input: '' }))
      const pids = descendants(cluster.child.pid ?? 0)
      expect(await cluster.end(signal)).toBe(0)
      expect(pids.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([])
      expect(readdirSync(cluster.folder)).toEqual([])
      for (const line of cluster.stderr().trim().split('\n')) {
        expect(JSON.parse(line)).toHaveProperty('msg')
      }
    },
  )

  test('says that its port is taken', async () => {
    const { url } = await up()
    const { port } = new URL(url)
    const { code, stderr } = await rfaas(['up', '--port', port])
    expect(stderr).toContain(`port ${port} of 127.0.0.1 is in use`)
    expect(code).toBe(1)
  })

  test('is also made of the two managers', async () => {
    const data = temporaryFolder()
    const manager = await rfaasServer(['resource-manager', '--port', '0', '--data-dir', data])
    const config = join(temporaryFolder(), 'node.json')
    const settings = { port: 0, name: 'thin', cores: 1, dataDir: join(data, 'node') }
    writeFileSync(config, JSON.stringify({ ...settings, resourceManager: manager.url }))
    const args = ['executor-manager', '--config', config, '--name', 'named-by-flag']
    const node = await rfaasServer(args)
    const { stdout } = await rfaas(['nodes', '--json', '--url', manager.url])
    expect(JSON.parse(stdout)).toMatchObject([{ name: 'named-by-flag', cores: 1, url: node.url }])
    expect(await node.end('SIGTERM')).toBe(0)
    expect(await manager.end('SIGTERM')).toBe(0)
  })
})

describe('invoke', () => {
  test.each(['native', 'node'] as const)(
    'calls a %s function with standard input and prints only its result',
    async (runtime) => {
      const { url } = await up()
      const args = ['invoke', hello[runtime], 'hello', '--input', '-', '--url', url]
      const done = await rfaas(args, { input: 'world' })
      expectDone(done)
      expect(done.stdout).toBe('Hello, world')
      expect(await leases(url)).toEqual([])
      expect(await leases(url, '--all')).toMatchObject([{ state: 'closed' }])
      const usage = await rfaas(['usage', '--json', '--url', url])
      expect(JSON.parse(usage.stdout)).toMatchObject([{ tenant: 'default', leases: 1 }])
    },
  )

  test('reads and writes files', async () => {
    const { url, folder } = await up()
    const [input, output] = [join(folder, 'in'), join(folder, 'out')]
    writeFileSync(input, Buffer.from([0, 255, 10, 13, 0]))
    const args = ['invoke', hello.native, 'echo', '--input', input, '--output', output]
    const done = await rfaas([...args, '--url', url])
    expectDone(done)
    expect(done.stdout).toBe('')
    expect(readFileSync(output)).toEqual(Buffer.from([0, 255, 10, 13, 0]))
  })

  test('gives nothing to the function unless it is told to', async () => {
    const { url } = await up()
    const done = await rfaas(['invoke', hello.native, 'hello', '--url', url], { input: 'ignored' })
    expect(done.stdout).toBe('Hello, ')
  })

  test('measures repeated calls and keeps the last result', async () => {
    const { url } = await up()
    const args = ['invoke', hello.native, 'echo', '--input', '-', '--repeat', '500', '--url', url]
    const { code, stdout, stderr } = await rfaas(args, { input: '12345678' })
    expect(code).toBe(0)
    expect(stdout).toBe('12345678')
    expect(stderr).toMatch(/500 .*round trips, 8 bytes in, 8 bytes out \(after 50 to warm up\)/)
    expect(stderr).toMatch(/p50 \S+ (ns|µs|ms) +p99 \S+ (ns|µs|ms) +min .* max /)
  })

  test.each([
    ['a package that is not there', ['nope.so', 'f'], 'the package cannot be read: ENOENT'],
    ['a package of no known kind', ['hello.py', 'f'], 'must be a path that ends in .so'],
  ])('refuses %s', async (_what, [path = '', name = ''], message) => {
    const { url } = await up()
    const { code, stdout, stderr } = await rfaas(['invoke', path, name, '--url', url])
    expect(stderr).toContain(message)
    expect(stdout).toBe('')
    expect(code).not.toBe(0)
    expect(await leases(url)).toEqual([])
  })

  test('says which functions the package has', async () => {
    const { url } = await up()
    const { code, stderr } = await rfaas(['invoke', hello.native, 'helo', '--url', url])
    expect(stderr).toContain('no function "helo"; it has hello, echo')
    expect(code).toBe(1)
  })

  test('repeats what a failing function said', async () => {
    const { url, folder } = await up()
    const path = join(folder, 'fails.mjs')
    writeFileSync(path, "export function fail() { throw new Error('no luck today') }")
    const { code, stderr } = await rfaas(['invoke', path, 'fail', '--url', url])
    expect(stderr).toContain('no luck today')
    expect(code).toBe(1)
    expect(await leases(url)).toEqual([])
  })

  test('ends a function that takes longer than its timeout', async () => {
    const { url, folder } = await up()
    const path = join(folder, 'slow.mjs')
    writeFileSync(path, 'export const forever = () => { for (;;); }')
    const args = ['invoke', path, 'forever', '--timeout', '300ms', '--url', url]
    const { code, stderr } = await rfaas(args)
    expect(stderr).toMatch(/deadline|no answer within 300 ms/)
    expect(code).toBe(1)
    expect(await leases(url)).toEqual([])
  })

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('releases its lease on %s', async (signal, expected) => {
    const { url, folder, stderr: log } = await up()
    const path = join(folder, 'slow.mjs')
    writeFileSync(
      path,
      `export async function wait(input, output, context) {
         console.log('the function runs')
         await new Promise((resolve) => context.signal.addEventListener('abort', resolve))
         return 0
       }`,
    )
    const { child, exited, stderr } = rfaasProcess(['invoke', path, 'wait', '--url', url])
    while (!log().includes('the function runs')) {
      if (child.exitCode !== null) throw new Error(`invoke ended: ${stderr()}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(await leases(url)).toHaveLength(1)
    child.kill(signal)
    const [code] = await exited
    expect(code).toBe(expected)
    expect(await leases(url)).toEqual([])
  })

  test('does not mind a reader that has seen enough', async () => {
    const { url } = await up()
    const { child, exited, stderr } = rfaasProcess(['nodes', '--url', url])
    child.stdout?.destroy()
    await once(child, 'close')
    expect((await exited)[0]).toBe(0)
    expect(stderr()).toBe('')
  })
})
