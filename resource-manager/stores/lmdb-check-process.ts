// The process that reads a store for checkLmdbStore: the arguments are its path and that of a copy, in
// which it tries whether the store can be written, and which the caller removes. Exit code 0: it is sound; else what is wrong is on standard output. A signal that ends it is an answer too.
import { constants, copyFileSync } from 'node:fs'
import { open, type RootDatabase } from 'lmdb'
import { inspect } from '../../lib/control/check.js'
import { isRunning, ProcessIdentity } from '../../lib/control/process-identity.js'
import {
  decodeRecord,
  decodeVersion,
  emptySum,
  formatVersion,
  keys,
  RecordSum,
  replaceInSum,
} from './record.js'

// Transactions of the rehearsal: what is freed by one is used again two later.
const rehearsals = 4

function flawOf(path: string, copy: string): string | undefined {
  const db = openDatabase(path)
  const version = db.get(keys.version)
  if (version !== undefined) {
    const format = decodeVersion(version)
    if (format === undefined) return notAsStored(keys.version)
    // The resource manager refuses it, saying so.
    if (format !== formatVersion) return undefined
  }
  const flaw = recordsFlaw(db)
  if (flaw !== undefined) return flaw
  const owner = decodeRecord(keys.owner, db.get(keys.owner) ?? '')
  // What another manager writes cannot be copied, and it will be named as the obstacle.
  if (inspect(ProcessIdentity, owner, 'it') === undefined && isRunning(owner as ProcessIdentity)) {
    return undefined
  }
  try {
    copyFileSync(path, copy, constants.COPYFILE_FICLONE)
  } catch (error) {
    // Without room for a copy the store can be read, and nothing will be written.
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return undefined
    throw error
  }
  return writingFlaw(openDatabase(copy, { noSync: true }))
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

/** The list of free pages is used only by who writes: a wrong one leads LMDB to overwrite records. */
function writingFlaw(copy: RootDatabase<string, string>): string | undefined {
  for (let turn = 0; turn < rehearsals; turn += 1) {
    copy.transactionSync(() => {
      for (const kind of ['lease', 'meta', 'node']) {
        // '0' is the character after '/'.
        const records = [...copy.getRange({ start: `${kind}/`, end: `${kind}0` })]
        for (const { key, value } of records) copy.putSync(key, value)
      }
    })
  }
  const flaw = recordsFlaw(copy)
  return flaw === undefined ? undefined : `its list of free pages is wrong (${flaw})`
}

function notAsStored(key: string): string {
  return `record ${key} is not as it was stored: its checksum differs`
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
