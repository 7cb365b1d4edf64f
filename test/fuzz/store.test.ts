// The store's records changed behind our back, its file cut off: an error that names what is wrong,
// never a record that is silently gone. (Pages that are damaged inside the file are LMDB's to read.)
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { open } from 'lmdb'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { LeaseRecord, NodeRecord, Snapshot } from '../../resource-manager/stores/store.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const folder = mkdtempSync(join(tmpdir(), 'rfaas-fuzz-store-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const lease: LeaseRecord = {
  id: 'l-1',
  lease: 'l-1',
  part: 0,
  state: 'active',
  tenant: 'default',
  node: 'node-a',
  cores: [1, 2],
  memoryBytes: 2 ** 20,
  epoch: 3,
  grantedAtMs: 1000,
  expiresAtMs: 2000,
}
const node: NodeRecord = {
  name: 'node-a',
  url: 'http://127.0.0.1:7071',
  cores: [0, 1, 2],
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
  await store.commit({ epoch: 3, leases: [lease], nodes: [node] })
  whole = store.load()
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

/** Loads it; undefined when the store was refused as damaged. */
async function load(dataDir: string): Promise<Snapshot | undefined> {
  let snapshot: Snapshot | undefined
  const refused = await refusal(async () => {
    const store = openLmdbStore(dataDir, 0)
    try {
      snapshot = store.load()
    } finally {
      await store.close()
    }
  }, 'ERR_RFAAS_INTERNAL')
  if (refused !== undefined) expect(refused.message).toContain(' is damaged: ')
  return refused === undefined ? snapshot : undefined
}

describe('a store', () => {
  it(
    'whose record was changed is refused, or has a record of the same name',
    () =>
      fuzz({
        runs: 150,
        inputs: [
          fc.constantFrom('lease/l-1', 'node/node-a', 'meta/epoch'),
          fc.oneof(
            mutated(Buffer.from(JSON.stringify(lease))).map((bytes) => bytes.toString('utf8')),
            mutated(Buffer.from(JSON.stringify(node))).map((bytes) => bytes.toString('utf8')),
            fc.json(),
          ),
        ],
        holds: (key, text) =>
          withCopy(async (dataDir, file) => {
            const db = open<string, string>({ path: file, noSubdir: true, encoding: 'string' })
            db.putSync(key, text)
            await db.close()
            const snapshot = await load(dataDir)
            if (snapshot === undefined) return
            expect(snapshot.leases.map(({ id }) => id)).toEqual(['l-1'])
            expect(snapshot.nodes.map(({ name }) => name)).toEqual(['node-a'])
            if (key !== 'lease/l-1') expect(snapshot.leases).toEqual(whole.leases)
            if (key !== 'node/node-a') expect(snapshot.nodes).toEqual(whole.nodes)
          }),
      }),
    patienceMs,
  )

  it(
    'whose file was cut off is refused, or is all there',
    () =>
      fuzz({
        runs: 60,
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
