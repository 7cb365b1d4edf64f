// What an operator can ask for, and what a lease takes and gives back.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'

import {
  deploy,
  hostileScript,
  missing,
  socketsOf,
  startNode,
  type Host,
  type Node,
} from './support.js'

const repository = join(import.meta.dirname, '..', '..')
const root = process.getuid?.() === 0
const reasons = {
  'a root without namespaces': missing('a root without namespaces'),
  'a client of another user': root ? missing('another user') : 'needs root',
  'a lease': root ? undefined : 'needs root',
}
for (const [what, reason] of Object.entries(reasons)) {
  if (reason !== undefined) console.warn(`${what}: skipped, ${reason}`)
}
let node: Node | undefined
afterEach(async () => {
  await node?.close()
  node = undefined
})

async function start(host: Host, ...flags: string[]): Promise<Node> {
  node = await startNode(host, ...flags)
  return node
}

describe('an executor manager', () => {
  test.skipIf(reasons['a root without namespaces'] !== undefined)(
    'that is to be strict does not start without a layer, and says which and what to change',
    async () => {
      const started = start('a root without namespaces', '--confinement', 'strict')
      await expect(started).rejects.toThrow(
        /strict, and this host lacks mount \(.*Operation not permitted.*CAP_SYS_ADMIN/,
      )
    },
  )

  test.skipIf(reasons['a lease'] !== undefined)(
    'confines as much, and runs functions, when its own files are for nobody else',
    async () => {
      const usual = (await start('root')).layers
      await node?.close()
      const closed = await start('root with a umask of 077')
      expect(closed.layers).toEqual(usual)
      const { attack } = await deploy(closed, hostileScript)
      expect(await attack('list', '/')).toContain('tmp')
    },
  )

  test('that is told so confines nothing, and still runs functions', async () => {
    const open = await start('root', '--confinement', 'off')
    expect(open.layers.size).toBe(0)
    const { attack } = await deploy(open, hostileScript)
    expect(await attack('list', open.folder)).toContain('resource-manager')
  })

  test('that allows the network allows no more than that', async () => {
    const open = await start('root', '--allow-network')
    expect(open.layers.has('network')).toBe(false)
    const { attack } = await deploy(open, hostileScript)
    expect(await attack('tcp', open.ports[0])).not.toMatch(/^E[A-Z]/)
    expect(await attack('list', open.folder)).not.toContain('resource-manager')
  })
})

describe.skipIf(reasons['a client of another user'] !== undefined)(
  'a client of another user',
  () => {
    test('calls its own workers; a third user does not get to their socket', async () => {
      const { client } = await start('root')
      const program = `
      import { Client } from ${JSON.stringify(join(repository, 'dist/lib/index.js'))}
      const client = await Client.connect(${JSON.stringify(client.url)})
      const lease = await client.lease({ cores: 1, memory: '64MiB' })
      const functions = await lease.deploy(${JSON.stringify(hostileScript)}, { provider: 'shm' })
      console.log(Buffer.from(await functions.invoke('shell', Buffer.from('echo inside'))).toString())
      await new Promise((resolve) => process.stdin.once('data', resolve))
      await client.close()
      process.exit(0)`
      const args = ['--input-type=module', '-e', program]
      const child = spawn(process.execPath, args, { uid: 65534, gid: 65534, cwd: '/' })
      const [said] = (await once(child.stdout, 'data')) as [Buffer]
      expect(said.toString().trim()).toBe('inside')
      const sockets = socketsOf(node as Node)
      expect(sockets).toHaveLength(1)
      expect(statSync(sockets[0] as string)).toMatchObject({ uid: 65534, mode: 0o140600 })
      const stranger = `
import socket, sys
try: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])
except OSError as error: print(error.strerror)`
      const refusal = execFileSync('python3', ['-c', stranger, ...sockets], {
        uid: 65533,
        gid: 65533,
      })
      expect(refusal.toString().trim()).toBe('Permission denied')
      child.stdin.write('end')
      await once(child, 'exit')
    })
  },
)

describe.skipIf(reasons['a lease'] !== undefined)('a lease', () => {
  test('has a user that no other lease has at the same time', async () => {
    const { client } = await start('root')
    const users = await Promise.all(
      [0, 1].map(async () => {
        const { attack } = await deploy(node as Node, hostileScript)
        return (await attack('shell', 'id -u')).trim()
      }),
    )
    expect(new Set([...users, '0', '65534']).size).toBe(4)
    await client.close()
  })

  test('takes its control groups with it, and its CPU time is what they counted', async () => {
    const { client, pid, layers } = await start('root')
    // Where the machine is known to have them, a manager that does not find them is an error.
    if (process.env['RFAAS_REQUIRE_CGROUPS'] === undefined && !layers.has('cgroup')) return
    const { lease, attack } = await deploy(node as Node, hostileScript)
    const groups = groupsOf(pid)
    const leases = groups.flatMap((folder) => readdirSync(folder).filter(isLease))
    expect(leases.length).toBe(groups.length)
    // One second, which is a time of its own: a busy machine takes longer for it.
    await attack('shell', 'sh -c "ulimit -t 1; while :; do :; done" || true')
    await lease.release()
    const left = (): string[] =>
      groups.flatMap((folder) =>
        readdirSync(folder)
          .filter(isLease)
          .map((name) => join(folder, name)),
      )
    // What is left is emptied of cached files, in its own time; nothing runs there.
    for (const folder of left()) expect(processesIn(folder)).toBe('')
    await expect.poll(left, { timeout: 10_000 }).toEqual([])
    await expect.poll(async () => (await client.usage())[0]?.leases).toBe(1)
    expect((await client.usage())[0]?.cpuMs).toBeGreaterThan(700)
    await node?.close()
    node = undefined
    expect(groups.filter((folder) => existsSync(folder))).toEqual([])
  })
})

/** A group that has gone meanwhile has none. */
function processesIn(folder: string): string {
  try {
    return readFileSync(join(folder, 'cgroup.procs'), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}

function isLease(name: string): boolean {
  return name.startsWith('lease-')
}

/** The manager's own folders, in each controller's tree. */
function groupsOf(pid: number): string[] {
  const own = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')
  return own.flatMap((line) => {
    const [, controllers = '', path = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    const trees = controllers === '' ? [''] : controllers.split(',')
    return trees
      .flatMap((tree) => [join('/sys/fs/cgroup', tree, path), join('/sys/fs/cgroup', tree)])
      .filter((folder) => existsSync(folder))
      .flatMap((folder) =>
        readdirSync(folder)
          .filter((name) => name.startsWith(`rfaas-${pid}-`))
          .map((name) => join(folder, name)),
      )
  })
}
