// The store's records changed behind our back, its file cut off, its pages damaged: an error that names
// what is wrong, never a record that is silently gone, never an end by a signal.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { open } from 'lmdb'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { renewLmdbStore } from '../../resource-manager/stores/lmdb-renewal.js'
import { lmdbStorePath, openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { LeaseRecord, NodeRecord, Snapshot } from '../../resource-manager/stores/store.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const folder = mkdtempSync(join(tmpdir(), 'rfaas-fuzz-store-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const leases = Array.from({ length: 50 }, (_, index): LeaseRecord => ({
  id: `l-${index}`,
  lease: `l-${index}`,
  part: 0,
  state: 'active',
  tenant: 'default',
  node: 'node-a',
  cores: [index],
  memoryBytes: 2 ** 20,
  epoch: index + 1,
  grantedAtMs: 1000,
  expiresAtMs: 2000,
}))
const node: NodeRecord = {
  name: 'node-a',
  url: 'http://127.0.0.1:7071',
  cores: leases.flatMap(({ cores }) => cores),
  memoryBytes: 2 ** 30,
  providers: [{ name: 'shm', available: true, reason: '' }],
  hostId: 'host-a',
  sequence: 1,
  lastSeenMs: 1000,
}
let whole: Snapshot

beforeAll(async () => {
  mkdirSync(join(folder, 'good'))
  const store = openLmdbStore(join(folder, 'good'), 0)
  await store.commit({ nodes: [node] })
  // One by one: pages of older transactions and of the list of free ones lie between those in use.
  for (const lease of leases) {
    await store.commit({ leases: [lease], epoch: lease.epoch })
    if (lease.epoch === 40) copyFileSync(join(folder, 'good', 'state.mdb'), join(folder, 'older'))
  }
  whole = await store.load()
  await store.close()
})

/** A data directory with a copy of the good store, for one run. */
async function withCopy(act: (dataDir: string, file: string) => Promise<void>): Promise<void> {
  const dataDir = mkdtempSync(join(folder, 'run-'))
  const file = join(dataDir, 'state.mdb')
  copyFileSync(join(folder, 'good', 'state.mdb'), file)
  try {
    await act(dataDir, file)
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
}

/** Loads it, and uses it; undefined when the store was refused as damaged. */
async function load(dataDir: string): Promise<Snapshot | undefined> {
  let snapshot: Snapshot | undefined
  const refused = await refusal(async () => {
    await renewLmdbStore(lmdbStorePath(dataDir))
    const store = openLmdbStore(dataDir, 0)
    try {
      snapshot = await store.load()
      for (const lease of leases) {
        await store.commit({ leases: [lease, { ...lease, id: 'l-new' }], removedLeases: ['l-new'] })
      }
      expect(await store.load()).toEqual(snapshot)
    } finally {
      await store.close()
    }
  }, 'ERR_RFAAS_INTERNAL')
  if (refused !== undefined) expect(refused.message).toContain(' is damaged: ')
  return refused === undefined ? snapshot : undefined
}

const pageBytes = 4096

type Damage =
  | { what: 'bit' | 'header bit'; at: number; bit: number }
  | { what: 'zeros' | 'noise' | 'older'; at: number; seed: number }

const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({
    what: fc.constantFrom('bit' as const, 'header bit' as const),
    at: fc.nat(2 ** 24),
    bit: fc.nat(7),
  }),
  fc.record({
    what: fc.constantFrom('zeros' as const, 'noise' as const, 'older' as const),
    at: fc.nat(2 ** 24),
    seed: fc.nat(2 ** 24),
  }),
)

/** What a disk does: a bit (anywhere, or where LMDB keeps what a page is), or a whole page; also one that
 * was never written, and so is as it was before. */
function spoil(bytes: Buffer, hit: Damage): void {
  const pages = bytes.length / pageBytes
  const page = (hit.at % pages) * pageBytes
  if ('bit' in hit) {
    const header = page + (Math.floor(hit.at / pages) % 176)
    const at = hit.what === 'bit' ? hit.at % bytes.length : header
    bytes[at] = (bytes[at] ?? 0) ^ (1 << hit.bit)
    return
  }
  if (hit.what === 'older') {
    readFileSync(join(folder, 'older')).copy(bytes, page, page, page + pageBytes)
    return
  }
  for (let at = page; at < page + pageBytes; at += 1) {
    bytes[at] = hit.what === 'zeros' ? 0 : (at * hit.seed) >> 8
  }
}

describe('a store', () => {
  it(
    'whose record was changed is refused',
    () =>
      fuzz({
        runs: 25,
        inputs: [
          fc.constantFrom('lease/l-1', 'node/node-a', 'meta/epoch', 'meta/sum'),
          fc.oneof(
            mutated(Buffer.from(JSON.stringify(leases[1]))).map((bytes) => bytes.toString('utf8')),
            mutated(Buffer.from(JSON.stringify(node))).map((bytes) => bytes.toString('utf8')),
            fc.json(),
          ),
        ],
        holds: (key, json) =>
          withCopy(async (dataDir, file) => {
            const db = open<string, string>({ path: file, noSubdir: true, encoding: 'string' })
            const before = db.get(key) ?? ''
            const text = `${before.slice(0, 9)}${json}`
            db.putSync(key, text)
            await db.close()
            const snapshot = await load(dataDir)
            if (text === before) expect(snapshot).toEqual(whole)
            else expect(snapshot).toBeUndefined()
          }),
      }),
    patienceMs,
  )

  it(
    'whose pages were damaged is refused, or is all there',
    () =>
      fuzz({
        runs: 40,
        inputs: [fc.array(damage, { minLength: 1, maxLength: 4 })],
        holds: (damages) =>
          withCopy(async (dataDir, file) => {
            const bytes = readFileSync(file)
            for (const hit of damages) spoil(bytes, hit)
            writeFileSync(file, bytes)
            const snapshot = await load(dataDir)
            if (snapshot !== undefined) expect(snapshot).toEqual(whole)
          }),
      }),
    patienceMs,
  )

  it('one page of which is older than the others is refused, or is all there', async () => {
    const bytes = readFileSync(join(folder, 'good', 'state.mdb'))
    const refused: number[] = []
    for (let page = 2; page < bytes.length / pageBytes; page += 1) {
      await withCopy(async (dataDir, file) => {
        const spoilt = Buffer.from(bytes)
        spoil(spoilt, { what: 'older', at: page, seed: 0 })
        writeFileSync(file, spoilt)
        const snapshot = await load(dataDir)
        if (snapshot === undefined) refused.push(page)
        else expect(snapshot).toEqual(whole)
      })
    }
    expect(refused.length).toBeGreaterThan(0)
  }, 120_000)

  it(
    'whose file was cut off is refused, or is all there',
    () =>
      fuzz({
        runs: 30,
        inputs: [fc.nat(2 ** 20)],
        holds: (length) =>
          withCopy(async (dataDir, file) => {
            const bytes = readFileSync(file)
            // An empty file is a store that was made and never written.
            writeFileSync(file, bytes.subarray(0, 1 + (length % bytes.length)))
            const snapshot = await load(dataDir)
            if (snapshot !== undefined) expect(snapshot).toEqual(whole)
          }),
      }),
    patienceMs,
  )
})
