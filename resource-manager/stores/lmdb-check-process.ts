// The process that reads a store for checkLmdbStore: the arguments are its path and that of a copy, in
// which it tries whether the store can be written, and which the caller removes. Exit code 0: it is sound;
// else what is wrong is on standard output. A signal that ends it is an answer too.
import { constants, copyFileSync } from 'node:fs'
import { open, type RootDatabase } from 'lmdb'
import { inspect } from '../../lib/control/check.js'
import { isRunning, ProcessIdentity } from '../../lib/control/process-identity.js'
import { lastTransaction } from './lmdb.js'
import {
  decodeRecord,
  decodeVersion,
  emptySum,
  formatVersion,
  keys,
  RecordSum,
  replaceInSum,
} from './record.js'

// Of the ledger only the end is ever written.
const rehearsedEntries = 1000

function flawOf(path: string, copy: string): string | undefined {
  const db = openDatabase(path)
  const before = lastTransaction(db)
  const version = db.get(keys.version)
  if (version !== undefined) {
    const format = decodeVersion(version)
    if (format === undefined) return notAsStored(keys.version)
    // The resource manager refuses it, saying so.
    if (format !== formatVersion) return undefined
  }
  const flaw = recordsFlaw(db)
  if (flaw !== undefined) return flaw
  const sum = decodeRecord(keys.sum, db.get(keys.sum) ?? '') as RecordSum | undefined
  // Nothing was ever stored without it.
  if (sum === undefined && before > 0) return 'its records are gone'
  const { transaction = before } = sum ?? {}
  // Another manager may be writing at this moment.
  if (transaction !== before && lastTransaction(db) === before) {
    return `its records are of transaction ${transaction}, the file is of ${before}`
  }
  const owner = decodeRecord(keys.owner, db.get(keys.owner) ?? '')
  // What another manager writes cannot be copied, and it will be named as the obstacle.
  if (inspect(ProcessIdentity, owner, 'it') === undefined && isRunning(owner as ProcessIdentity)) {
    return undefined
  }
  try {
    copyFileSync(path, copy, constants.COPYFILE_FICLONE)
    return writingFlaw(openDatabase(copy, { noSync: true }))
  } catch (error) {
    if (isFull(error)) return undefined
    throw error
  }
}

function openDatabase(path: string, more: { noSync?: boolean } = {}): RootDatabase<string, string> {
  return open<string, string>({
    path,
    noSubdir: true,
    encoding: 'string',
    overlappingSync: false,
    ...more,
  })
}

function recordsFlaw(db: RootDatabase<string, string>): string | undefined {
  let found = emptySum
  let stored = emptySum
  let previous = ''
  for (const { key, value } of db.getRange()) {
    // A page that points back to an earlier one would be read for ever.
    if (typeof key !== 'string' || key <= previous) return 'its records are out of order'
    previous = key
    // It is there, but the pages above do not lead to it.
    if (db.get(key) !== value) return `record ${key} is not where it belongs`
    const record = decodeRecord(key, value)
    if (record === undefined) return notAsStored(key)
    if (key !== keys.sum) found = replaceInSum(found, undefined, value)
    else if (inspect(RecordSum, record, 'it') === undefined) stored = record as RecordSum
  }
  if (found.count !== stored.count) {
    return `it has ${found.count} records, ${stored.count} were stored`
  }
  return found.checksums === stored.checksums ? undefined : 'records are older than others'
}

/** What only a writer uses may be wrong, too: the list of free pages (LMDB would overwrite records), the
 * free room in a page (it would end with a signal). So all that will be written again is: longer, which
 * splits pages, then removed, which joins them, then as it was. */
function writingFlaw(copy: RootDatabase<string, string>): string | undefined {
  // '0' is the character after '/'.
  const written = ['lease', 'meta', 'node', 'usage'].flatMap((kind) => [
    ...copy.getRange({ start: `${kind}/`, end: `${kind}0` }),
  ])
  const ledger = { start: 'ledger0', end: 'ledger/', reverse: true, limit: rehearsedEntries }
  const records = [...written, ...copy.getRange(ledger)]
  const turns: ((key: string, value: string) => unknown)[] = [
    (key, value) => copy.putSync(key, value + value),
    (key) => copy.removeSync(key),
    (key, value) => copy.putSync(key, value),
    // What the first has freed is used again from here on.
    (key, value) => copy.putSync(key, value),
  ]
  for (const turn of turns) {
    copy.transactionSync(() => {
      for (const { key, value } of records) turn(key, value)
    })
  }
  const flaw = recordsFlaw(copy)
  return flaw === undefined ? undefined : `it cannot be written (${flaw})`
}

function notAsStored(key: string): string {
  return `record ${key} is not as it was stored: its checksum differs`
}

/** Without room for it, nothing will be written to the store either. */
function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOSPC' || /No space left/.test(String(error))
}

let flaw: string | undefined
try {
  const [, , path = '', copy = ''] = process.argv
  flaw = flawOf(path, copy)
} catch (error) {
  flaw = `it cannot be read (${(error as Error).message})`
}
if (flaw !== undefined) {
  process.stdout.write(flaw)
  process.exitCode = 1
}
