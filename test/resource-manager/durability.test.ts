import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { open, type RootDatabase } from 'lmdb'
import { afterEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { LeaseList, type LeaseInfo } from '../../lib/control/schemas.js'
import { verifyToken } from '../../lib/control/token.js'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { Changes, LeaseRecord } from '../../resource-manager/stores/store.js'
import {
  cleanUp,
  grant,
  lease,
  nodeInfo,
  NodeClient,
  registeredNode,
  release,
  renew,
  spawnManager,
  startManager,
  temporaryDirectory,
  usage,
} from './support.js'

afterEach(cleanUp)

describe('a resource manager that is killed', () => {
  it('loses nothing that it answered, and grants no core twice afterwards', async () => {
    const dataDir = temporaryDirectory()
    const first = await spawnManager(dataDir)
    const node = new NodeClient(first.url)
    const { publicKey } = await node.register()
    const { lease: closed } = await grant(first.url)
    await node.active(closed.id)
    await delay(20)
    await node.closed(closed.id, 10, 5)
    const { lease: active, token } = await grant(first.url)
    await node.active(active.id)
    const { lease: over } = await grant(first.url)
    await release(first.url, over.id)
    const { lease: granted } = await grant(first.url)
    const renewed = await renew(first.url, granted.id, 600_000)
    await first.end('SIGKILL')

    // The dead process's hold on the directory is no obstacle.
    const second = await spawnManager(dataDir)
    expect(await lease(second.url, closed.id)).toMatchObject({ state: 'closed' })
    expect(await lease(second.url, active.id)).toMatchObject({ id: active.id, state: 'active' })
    expect(await lease(second.url, over.id)).toMatchObject({ id: over.id, state: 'released' })
    expect(await lease(second.url, granted.id)).toEqual(renewed.lease)
    expect(await usage(second.url)).toMatchObject({ leases: 1, heldMs: 10, cpuMs: 5 })

    // Until the node has said what runs on it, nothing is granted there.
    expect(await nodeInfo(second.url, 'node-a')).toMatchObject({ state: 'lost', freeCores: 1 })
    await expect(grant(second.url)).rejects.toThrow(/no node is up, 1 lost/)
    node.moveTo(second.url)
    await expect(node.heartbeat()).rejects.toMatchObject({ code: 'ERR_RFAAS_NOT_FOUND' })
    const again = await node.register({ leases: [active.id, over.id] })
    expect(again.end).toEqual([over.id])
    // The key is the same: tokens of before stay good.
    expect(again.publicKey).toBe(publicKey)
    verifyToken(token, again.publicKey, { node: 'node-a', nowMs: Date.now() })

    const { lease: fresh, part } = await grant(second.url)
    expect(part.cores).toEqual([3])
    expect(fresh.epoch).toBeGreaterThan(renewed.lease.epoch)
    await expect(grant(second.url)).rejects.toThrow(/0 cores/)
    expect(await second.end('SIGTERM')).toBe(0)
  }, 30_000)

  it('right after any grant of a burst still knows every one that was answered', async () => {
    const dataDir = temporaryDirectory()
    const first = await spawnManager(dataDir)
    const cores = Array.from({ length: 200 }, (_, core) => core)
    await registeredNode(first.url, { cores })
    const answered: string[] = []
    const burst = cores.map(() =>
      grant(first.url).then(
        ({ lease: { id } }) => answered.push(id),
        () => undefined,
      ),
    )
    await expect.poll(() => answered.length, { interval: 1, timeout: 20_000 }).toBeGreaterThan(0)
    await first.end('SIGKILL')
    await Promise.all(burst)

    const { url } = await startManager({ dataDir })
    for (const id of answered) expect(await lease(url, id)).toMatchObject({ id, state: 'granted' })
  }, 30_000)
})

describe('a resource manager whose disk is full', () => {
  it('refuses changes as long as it is, and changes nothing', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    await registeredNode(first.url)
    const { lease: granted } = await grant(first.url)
    await first.close()

    const { url } = await startManager({ dataDir, minFreeBytes: '8000TiB' })
    const refusal = {
      code: 'ERR_RFAAS_UNAVAILABLE',
      status: 503,
      message: expect.stringMatching(/^the file system of .* left, .*free some space/) as string,
    }
    await expect(new NodeClient(url).register()).rejects.toMatchObject(refusal)
    await expect(renew(url, granted.id, 600_000)).rejects.toMatchObject(refusal)
    await expect(release(url, granted.id)).rejects.toMatchObject(refusal)
    expect(await lease(url, granted.id)).toEqual(granted)
    const health = await fetch(`${url}/healthz`)
    expect(health.status).toBe(503)
    expect(await health.text()).toMatch(/the file system of .* left/)
  })

  it('keeps what it stored when a write fails, acknowledges nothing else and ends with code 1', async () => {
    const dataDir = temporaryDirectory()
    const first = await spawnManager(dataDir, {
      maxFileKiB: 256,
      args: ['--node-timeout-ms', '10m'],
    })
    await registeredNode(first.url, { cores: Array.from({ length: 4096 }, (_, core) => core) })
    const answered: string[] = []
    const full = await (async (): Promise<unknown> => {
      try {
        for (;;) answered.push((await grant(first.url)).lease.id)
      } catch (error) {
        return error
      }
    })()
    const refusal = {
      code: 'ERR_RFAAS_UNAVAILABLE',
      status: 503,
      message: expect.stringMatching(
        /^the store .*state\.mdb could not be written .*free or repair its disk, then restart/,
      ) as string,
    }
    expect(full).toMatchObject(refusal)
    expect(answered.length).toBeGreaterThan(10)
    expect(await first.ended).toBe(1)

    const { url } = await startManager({ dataDir })
    for (const id of answered) expect(await lease(url, id)).toMatchObject({ id, state: 'granted' })
  })
})

describe('a resource manager that could not write', () => {
  it('is not healthy, as long as the program that embeds it lets it run, and answers questions', async () => {
    const { url } = await spawnManager(temporaryDirectory(), { maxFileKiB: 256, embedded: true })
    await registeredNode(url, { cores: Array.from({ length: 4096 }, (_, core) => core) })
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
    const granted: string[] = []
    const failing = (async () => {
      for (;;) granted.push((await grant(url)).lease.id)
    })()
    await expect(failing).rejects.toMatchObject({ code: 'ERR_RFAAS_UNAVAILABLE', status: 503 })
    const health = await fetch(`${url}/healthz`)
    expect(health.status).toBe(503)
    expect(await health.text()).toMatch(/the store .*state\.mdb could not be written/)
    expect(await lease(url, granted[0]!)).toMatchObject({ state: 'granted' })
  })
})

describe('a restart', () => {
  it('with 1,000 live leases on many nodes finds them all as they were', async () => {
    const dataDir = temporaryDirectory()
    const patient = { dataDir, nodeTimeoutMs: '10m' }
    const first = await startManager(patient)
    const cores = Array.from({ length: 20 }, (_, core) => core)
    const nodes = Array.from({ length: 50 }, (_, index) => ({ name: `node-${index}`, cores }))
    await Promise.all(nodes.map((node) => registeredNode(first.url, node)))
    const granted: LeaseInfo[] = []
    while (granted.length < 1000) {
      const wave = await Promise.all(cores.map(() => grant(first.url, { durationMs: 600_000 })))
      granted.push(...wave.map((answer) => answer.lease))
    }
    await first.close()

    const { url } = await startManager(patient)
    const { leases } = await request(`${url}/v1/leases`, { schema: LeaseList })
    const byId = (a: LeaseInfo, b: LeaseInfo): number => a.id.localeCompare(b.id)
    expect(leases.sort(byId)).toEqual(granted.sort(byId))
    const running = granted.filter(({ parts: [part] }) => part?.node === 'node-7')
    const back = new NodeClient(url, { name: 'node-7', cores })
    const welcome = await back.register({ leases: running.map(({ id }) => id) })
    expect(welcome.live.sort()).toEqual(running.map(({ id }) => id).sort())
    await expect(grant(url)).rejects.toThrow(/0 cores/)
  }, 60_000)

  it('finds a lease expired whose time passed meanwhile, and still keeps its cores', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    const node = await registeredNode(first.url, { cores: [5] })
    const { lease: granted } = await grant(first.url, { durationMs: 1000 })
    await node.active(granted.id)
    await first.close()
    await delay(Date.parse(granted.expiresAt) - Date.now() + 5)

    const { url } = await startManager({ dataDir })
    expect((await lease(url, granted.id)).state).toBe('expired')
    node.moveTo(url)
    expect((await node.register({ leases: [granted.id] })).end).toEqual([granted.id])
    await expect(grant(url)).rejects.toThrow(/0 cores/)
    await node.closed(granted.id)
    expect((await grant(url)).part.cores).toEqual([5])
  })

  it('does not bill again what was closed before', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    const node = await registeredNode(first.url)
    const { lease: granted } = await grant(first.url)
    await delay(10)
    await node.closed(granted.id, 5, 1)
    const before = await usage(first.url)
    await first.close()

    const { url } = await startManager({ dataDir })
    node.moveTo(url)
    await node.closed(granted.id, 5, 1)
    expect(await usage(url)).toEqual(before)
  })
})

describe('the data directory', () => {
  const unavailable = expect.objectContaining({
    code: 'ERR_RFAAS_UNAVAILABLE',
    message: expect.stringMatching(
      /^the data directory .* is in use by the resource manager with process id \d+: stop it or/,
    ) as string,
  })

  it('serves one manager at a time, of this process or another', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    await expect(startManager({ dataDir })).rejects.toThrow(unavailable)
    // The refused one took nothing from the first.
    await expect(startManager({ dataDir })).rejects.toThrow(unavailable)
    await registeredNode(first.url)
    await grant(first.url)
    await first.close()

    const other = await spawnManager(dataDir)
    await expect(startManager({ dataDir })).rejects.toThrow(unavailable)
    expect(await other.end('SIGTERM')).toBe(0)
    await startManager({ dataDir })
  }, 30_000)

  it('keeps what others must not read from them, and nothing of a start that was killed', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    await first.close()
    const store = join(dataDir, 'state.mdb')
    expect(statSync(store).mode & 0o777).toBe(0o600)
    chmodSync(store, 0o644)
    for (const name of ['state.mdb.new-17', 'state.mdb.new-17-lock']) {
      writeFileSync(join(dataDir, name), 'half of a store')
    }
    await startManager({ dataDir })
    expect(statSync(store).mode & 0o777).toBe(0o600)
    const others = ['owner', 'signing-key.pem', 'state.mdb-lock']
    expect(readdirSync(dataDir).sort()).toEqual([...others, 'state.mdb'].sort())
  })

  it('is given back when the start fails', async () => {
    const dataDir = temporaryDirectory()
    const other = await startManager()
    const port = Number(new URL(other.url).port)
    await expect(startManager({ dataDir, port })).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_UNAVAILABLE',
        message: expect.stringContaining(`port ${port} of 127.0.0.1 is in use`) as string,
      }),
    )
    await startManager({ dataDir })
  })

  it('holds a signing key that only its owner can read, and refuses one that others can', async () => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    await first.close()
    const path = join(dataDir, 'signing-key.pem')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    chmodSync(path, 0o644)
    await expect(startManager({ dataDir })).rejects.toThrow(/signing-key.pem can be read by others/)
    chmodSync(path, 0o600)
    writeFileSync(path, 'no key')
    await expect(startManager({ dataDir })).rejects.toThrow(/is not a private key in PEM format/)
    expect(readFileSync(path, 'utf8')).toBe('no key')
  })

  const refusedTwice = async (dataDir: string, message: RegExp): Promise<void> => {
    for (const _attempt of [1, 2]) {
      await expect(startManager({ dataDir })).rejects.toThrow(
        expect.objectContaining({
          code: 'ERR_RFAAS_INTERNAL',
          message: expect.stringMatching(message) as string,
        }),
      )
    }
  }
  const sound: LeaseRecord = {
    id: 'l-a',
    lease: 'l-a',
    part: 0,
    state: 'granted',
    tenant: 'default',
    node: 'node-a',
    cores: [0],
    memoryBytes: 1,
    epoch: 1,
    grantedAtMs: 1,
    expiresAtMs: 2,
  }
  it.each<[string, Changes | Record<string, unknown>, RegExp]>([
    [
      'a lease without cores',
      { leases: [{ ...sound, cores: [] }] },
      /record lease\/l-a: cores is an array/,
    ],
    [
      'a lease of an unknown node',
      { leases: [sound] },
      /lease l-a is on node node-a, which is not recorded/,
    ],
    [
      'a node that is only a name',
      { nodes: [{ name: 'node-a' }] },
      /record node\/node-a: url is missing/,
    ],
    ['a clock without a boot', { clock: {} }, /record meta\/clock: bootId is missing/],
    ['a negative epoch', { epoch: -1 }, /record meta\/epoch: it is -1, must be an integer >= 0/],
  ])(
    'with a record that makes no sense is refused, naming it: %s',
    async (_what, changes, message) => {
      const dataDir = temporaryDirectory()
      const store = openLmdbStore(dataDir, 0)
      await store.commit(changes as Changes)
      await store.close()
      await refusedTwice(dataDir, message)
    },
  )

  it.each<[string, (db: RootDatabase<string, string>) => void, RegExp]>([
    [
      'a record that was changed',
      (db) => db.putSync('meta/epoch', (db.get('meta/epoch') ?? '').replace(' 1', ' 2')),
      /is damaged: record meta\/epoch is not as it was stored/,
    ],
    [
      'a record under the name of another',
      (db) => db.putSync('node/node-b', db.get('node/node-a') ?? ''),
      /is damaged: record node\/node-b is not as it was stored/,
    ],
    [
      'a record that is gone',
      (db) => db.removeSync('node/node-a'),
      /is damaged: it has 4 records, 5 were stored/,
    ],
    [
      'another format',
      (db) => db.putSync('meta/version', '2'),
      /has format 2, this version of rfaas reads format 3: use the version/,
    ],
  ])('whose records were touched by others is refused: %s', async (_what, touch, message) => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    await registeredNode(first.url)
    await grant(first.url)
    await first.close()
    const path = join(dataDir, 'state.mdb')
    const db = open<string, string>({
      path,
      noSubdir: true,
      encoding: 'string',
      overlappingSync: false,
    })
    touch(db)
    await db.close()
    await refusedTwice(dataDir, message)
  })

  it.each([
    ['text', () => Buffer.from('this is a text file, much longer than it looks'.repeat(500))],
    ['zeros', () => Buffer.alloc(64 * 1024)],
    ['one byte', () => Buffer.from('x')],
    ['the first page alone', (whole: Buffer) => whole.subarray(0, 4096)],
    ['half of it', (whole: Buffer) => whole.subarray(0, whole.length / 2)],
  ])('whose database was replaced by %s is refused', async (_what, replace) => {
    const dataDir = temporaryDirectory()
    const first = await startManager({ dataDir })
    const cores = Array.from({ length: 100 }, (_, core) => core)
    await registeredNode(first.url, { cores })
    await Promise.all(cores.map(() => grant(first.url)))
    await first.close()
    const path = join(dataDir, 'state.mdb')
    writeFileSync(path, replace(readFileSync(path)))
    await expect(startManager({ dataDir })).rejects.toThrow(
      /state\.mdb is damaged: it (is no database|was cut off)/,
    )
  })

  it('whose database is empty, after a crash in its first moment, is a new one', async () => {
    const dataDir = temporaryDirectory()
    writeFileSync(join(dataDir, 'state.mdb'), '')
    await startManager({ dataDir })
  })

  it('that cannot be made is refused', async () => {
    const file = join(temporaryDirectory(), 'file')
    writeFileSync(file, '')
    await expect(startManager({ dataDir: join(file, 'below') })).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        field: 'dataDir',
        message: expect.stringMatching(/is not a folder: name a folder/) as string,
      }),
    )
  })
})
