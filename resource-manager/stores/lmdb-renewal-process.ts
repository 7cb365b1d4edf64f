// The process that reads a store for renewLmdbStore, and writes it anew: the arguments are its path
// and that of the copy, an empty file. On standard output is what is wrong with the store, if
// anything is. A signal that ends it is an answer too.
import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { open, type RootDatabase } from 'lmdb'
import { inspect } from '../../lib/control/check.js'
import { lastTransaction } from './lmdb.js'
import { withoutCopy } from './lmdb-renewal.js'
import {
  decodeRecord,
  decodeVersion,
  emptySum,
  encodeRecord,
  formatVersion,
  keys,
  RecordSum,
  replaceInSum,
} from './record.js'

function openDatabase(path: string): RootDatabase<string, string> {
  return open<string, string>({ path, noSubdir: true, encoding: 'string', overlappingSync: false })
}

function flawOf(db: RootDatabase<string, string>, copyPath: string): string | undefined {
  const transaction = lastTransaction(db)
  const version = db.get(keys.version)
  if (version !== undefined) {
    const format = decodeVersion(version)
    if (format === undefined) return notAsStored(keys.version)
    if (format !== formatVersion) process.exit(withoutCopy.otherFormat)
  }
  const text = db.get(keys.sum)
  const stored = text === undefined ? undefined : decodeRecord(keys.sum, text)
  if (text !== undefined && inspect(RecordSum, stored, 'it') !== undefined) {
    return notAsStored(keys.sum)
  }
  const sum = stored as RecordSum | undefined
  // Nothing was ever stored without it.
  if (sum === undefined && transaction > 0) return 'its records are gone'
  const flaw = copyAll(db, sum ?? emptySum, openDatabase(copyPath))
  if (flaw !== undefined) return flaw
  // Pages that are older than the rest of the file may agree with each other.
  const { transaction: ofRecords = transaction } = sum ?? {}
  if (ofRecords === transaction) return undefined
  return `its records are of transaction ${ofRecords}, the file is of ${transaction}`
}

/** All records, in order, in one transaction. */
function copyAll(
  db: RootDatabase<string, string>,
  stored: RecordSum,
  copy: RootDatabase<string, string>,
): string | undefined {
  return copy.transactionSync(() => {
    const transaction = lastTransaction(copy) + 1
    let found = emptySum
    let previous = ''
    for (const { key, value } of db.getRange()) {
      // A page that points back to an earlier one would be read for ever.
      if (typeof key !== 'string' || key <= previous) return 'its records are out of order'
      previous = key
      // It is there, but the pages above do not lead to it.
      if (db.get(key) !== value) return `record ${key} is not where it belongs`
      if (decodeRecord(key, value) === undefined) return notAsStored(key)
      if (key === keys.sum) continue
      found = replaceInSum(found, undefined, value)
      copy.putSync(key, value, { append: true })
    }
    if (found.count !== stored.count) {
      return `it has ${found.count} records, ${stored.count} were stored`
    }
    if (found.checksums !== stored.checksums) return 'records are older than others'
    if (found.count > 0) copy.putSync(keys.sum, encodeRecord(keys.sum, { ...found, transaction }))
    return undefined
  })
}

function notAsStored(key: string): string {
  return `record ${key} is not as it was stored: its checksum differs`
}

/** LMDB itself calls it an I/O error when there was room for a part of what it wrote. */
function isFull(error: unknown, path: string): boolean {
  if (/No space left/.test(String(error))) return true
  const { bavail, bsize } = statfsSync(dirname(path))
  return bavail * bsize < statSync(path).size
}

const [, , path = '', copy = ''] = process.argv
try {
  const flaw = flawOf(openDatabase(path), copy)
  if (flaw !== undefined) {
    process.stdout.write(flaw)
    process.exitCode = 1
  }
} catch (error) {
  // LMDB must not be touched once a write has failed: not even to close it.
  if (isFull(error, path)) process.exit(withoutCopy.noRoom)
  process.stdout.write(`it cannot be read (${(error as Error).message})`)
  process.exitCode = 1
}
