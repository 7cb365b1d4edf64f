// A hostile function against everything that it could reach, on the hosts that a manager may find.
// What a layer that is missing there would have stopped is not asked for.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { descendants, workersOf } from '../faults/proc.js'
import {
  deploy,
  hostilePackage,
  hostileScript,
  metricsOf,
  missing,
  poolIsFull,
  socketsOf,
  startNode,
  type Host,
  type Node,
  type Tenant,
} from './support.js'

const refused = /^(EPERM|EACCES|ENOENT|ESRCH|ENETUNREACH|EROFS|ERR_[A-Z_]+)$/
const denied = /^(EPERM|EACCES)$/

describe.each<[Host, number]>([
  ['root', 0],
  ['root', 1],
  ['another user', 0],
  ['another user', 1],
  ['a root without namespaces', 0],
])('with a manager that is %s and a pool of %d, a hostile function', (host, pool) => {
  const reason = missing(host)
  if (reason !== undefined) console.warn(`not tried with ${host}: ${reason}`)

  describe.skipIf(reason !== undefined)('', () => {
    let node: Node
    let hostile: Tenant
    let neighbour: Tenant

    beforeAll(async () => {
      node = await startNode(host, '--pool', String(pool))
      await poolIsFull(node, pool)
      const path = hostilePackage(node.folder)
      hostile = await deploy(node, path)
      neighbour = await deploy(node, hostileScript)
    })
    afterAll(() => node.close())

    /** The neighbour is alive and as it was. */
    const unharmed = async (): Promise<void> => {
      expect(await neighbour.attack('read', '/dev/null')).toBe('')
    }
    /** By the order of deployment, of which that in the pool is the same; those that wait follow. */
    const workers = (): number[] => workersOf(node.pid).sort((a, b) => a - b)

    test('runs in a process that has waited for it, if there is a pool', async () => {
      const begun = (await metricsOf(node.url)).matchAll(/leases_begun_total{.*from="(\w+)"} (.*)/g)
      expect([...begun].map(([, from, count]) => [from, count])).toEqual(
        Array.from({ length: 2 }, () => [pool === 0 ? 'nothing' : 'pool', '1']),
      )
    })

    test('meets the layers that this host is said to have', () => {
      const all = ['privileges', 'seccomp', 'landlock', 'rlimits', 'user']
      const namespaces = ['mount', 'pid', 'ipc', 'network']
      const has = host === 'a root without namespaces' ? all : [...all, ...namespaces]
      expect([...node.layers]).toEqual(expect.arrayContaining(has))
    })

    test('reads no key, no store, no package of another lease', async () => {
      const data = join(node.folder, 'node', 'data')
      const packages = readdirSync(join(data, 'packages')).filter((name) => name.includes('.'))
      expect(packages).toHaveLength(2)
      const script = packages.find((name) => name.endsWith('.mjs')) as string
      for (const path of [
        join(node.folder, 'resource-manager', 'signing-key.pem'),
        join(data, 'leases.journal'),
        join(data, 'packages', script),
        '/etc/shadow',
        `/proc/${node.pid}/environ`,
        join('/proc', String(node.pid), 'root', 'etc/shadow'),
      ]) {
        expect(existsSync(path) || path.startsWith('/proc'), path).toBe(true)
        expect(await hostile.attack('read', path), path).toMatch(refused)
        expect(await neighbour.attack('read', path.replace(script, 'x')), path).toMatch(refused)
      }
      expect(await hostile.attack('list', join(node.folder, 'resource-manager'))).toMatch(refused)
    })

    test('writes nowhere but to its own temporary folder', async () => {
      for (const path of ['/x', '/usr/x', '/dev/x', '/etc/passwd', join(node.folder, 'x')]) {
        // Folders on the way to its package are of its own /tmp, where that has the same name.
        const may = node.layers.has('mount') && path.startsWith('/tmp') ? /./ : refused
        expect(await hostile.attack('write', path), path).toMatch(may)
        expect(await neighbour.attack('write', path), path).toMatch(may)
      }
      expect(existsSync(join(node.folder, 'x'))).toBe(false)
      if (!node.layers.has('mount')) return
      expect(await hostile.attack('write', '/tmp/mine')).toBe('done')
      expect(existsSync('/tmp/mine')).toBe(false)
      expect(await neighbour.attack('read', '/tmp/mine')).toBe('ENOENT')
      // A quarter of 64 MiB.
      expect(Number(await hostile.attack('fill', '/tmp'))).toBeLessThanOrEqual(16 * 2 ** 20)
    })

    test('neither sees, signals nor traces its neighbours and the manager', async () => {
      const [ours, theirs] = workers() as [number, number]
      const attacks = async (by: Tenant, pid: number): Promise<void> => {
        // The first process of its own namespace cannot be killed from inside.
        if (pid === 1 && node.layers.has('pid')) return
        expect(await by.attack('kill', pid), `kill ${pid}`).toMatch(refused)
      }
      for (const pid of [node.pid, process.pid, theirs, 1]) {
        expect(await hostile.attack('trace', pid)).toMatch(denied)
        expect(await hostile.attack('peek', pid)).toMatch(denied)
        await attacks(hostile, pid)
      }
      for (const pid of [node.pid, process.pid, ours, 1]) await attacks(neighbour, pid)
      if (node.layers.has('pid')) {
        const seen = (await hostile.attack('list', '/proc')).split('\n')
        expect(seen.filter((name) => /^\d+$/.test(name))).toEqual(['1', '2'])
      }
      await unharmed()
    })

    test('opens no connection to the managers or to the worker of another lease', async () => {
      for (const port of node.ports) {
        expect(await hostile.attack('tcp', port)).toMatch(refused)
        expect(await neighbour.attack('tcp', port)).toMatch(refused)
      }
      const sockets = socketsOf(node)
      expect(sockets).toHaveLength(2 + 2 * pool)
      for (const path of sockets) expect(await hostile.attack('unix', path)).toMatch(refused)
      await unharmed()
    })

    test('gets at no memory that a client shares with the worker of another lease', async () => {
      const [, theirs] = workers() as [number, number]
      const shared = readdirSync(`/proc/${theirs}/fd`)
        .map((fd) => `/proc/${theirs}/fd/${fd}`)
        .filter((path) => readlinkSync(path).startsWith('/memfd:rfaas'))
      expect(shared.length).toBeGreaterThan(1)
      for (const path of shared) {
        expect(await hostile.attack('read', path)).toMatch(refused)
        expect(await hostile.attack('write', path)).toMatch(refused)
      }
      await unharmed()
    })

    test('gains no rights and gets at no dangerous part of the kernel', async () => {
      // In a user namespace there is no such user.
      expect(await hostile.attack('setuid')).toMatch(/^(EPERM|EINVAL)$/)
      for (const attack of ['unshare', 'mount', 'bpf']) {
        expect(await hostile.attack(attack), attack).toMatch(denied)
      }
      if (process.getuid?.() === 0) {
        expect(await neighbour.attack('shell', 'id -u')).not.toMatch(/^0$/m)
      }
    })

    test('stays on its core', async () => {
      for (const core of hostile.lease.cores.concat(neighbour.lease.cores)) {
        expect(await hostile.attack('pin', core)).toBe('EPERM')
      }
    })

    test('that forks without end runs out of processes, and nobody else does', async () => {
      expect(Number(await hostile.attack('fork'))).toBeLessThan(200)
      expect((await neighbour.attack('shell', 'echo fine')).trim()).toBe('fine')
    })

    test.each([
      ['allocates', 'allocate'],
      ['makes memory files', 'memfds'],
    ])('that %s without end gets no more than its lease', async (_what, attack) => {
      // Without control groups only private memory is limited, by RLIMIT_DATA.
      if (attack === 'memfds' && !node.layers.has('cgroup')) return
      const megabytes = await hostile.attack(attack, 4096).catch((error: unknown) => error)
      if (megabytes instanceof Error) expect(megabytes.message).toMatch(/memory|killed|lost/)
      else expect(Number(megabytes)).toBeLessThan(256)
      await unharmed()
      await expect
        .poll(() => hostile.attack('read', '/dev/null').catch(() => 'not yet'), {
          timeout: 10_000,
        })
        .toBe('')
    })

    // Last: it ends the lease.
    test('leaves nothing behind that runs', async () => {
      const seconds = String(900_000 + (process.pid % 90_000))
      const daemons = (): string[] =>
        descendants(1)
          .filter((pid) => commandOf(pid) === `sleep\0${seconds}\0`)
          .map(String)
      expect(await hostile.attack('daemon', seconds)).toBe('done')
      await expect.poll(daemons).toHaveLength(1)
      await hostile.lease.release()
      expect(daemons()).toEqual([])
      expect(workersOf(node.pid)).toHaveLength(1 + 2 * pool)
      await unharmed()
    })
  })
})

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // it has ended
  }
}
