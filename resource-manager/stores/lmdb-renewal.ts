// LMDB maps its file and believes it: a damaged page ends the process that reads it with a signal, and
// what only a writer meets (the list of free pages, the free room in a page) does so when it is least
// expected. So before the resource manager opens its store, a process of its own reads all records and
// writes them to a new file, with which the resource manager goes on.
import { execFile } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RfaasError } from '../../lib/errors.js'
import { packageRoot } from '../../lib/package-root.js'

const withinMs = 120_000
/** What the process ends with when it has not copied a store with which nothing is wrong. */
export const withoutCopy = { otherFormat: 3, noRoom: 4 } as const
// Sent by people and the kernel: they say nothing about the store.
const foreignSignals = new Set<unknown>(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP'])

/** Rejects when the store at `path` is damaged. The store is the caller's: see ownDataDir. False: it is
 * as it was, because there is no room for two of it. */
export async function renewLmdbStore(path: string): Promise<boolean> {
  removeCopies(path)
  // The process of a manager that was killed may still write to its own.
  const copy = `${path}.new-${process.pid}`
  const flaw = fileFlaw(path)
  if (flaw !== undefined) throw damagedStore(path, flaw)
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0) return true
  try {
    // LMDB would let others read it.
    closeSync(openSync(copy, 'wx', 0o600))
    const outcome = await copyStore(path, copy)
    if (outcome === 'copied') replace(path, copy)
    return outcome !== 'no room'
  } finally {
    removeCopies(path)
  }
}

function removeCopies(path: string): void {
  const folder = dirname(path)
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (name.startsWith(`${basename(path)}.new-`)) rmSync(join(folder, name), { force: true })
  }
}

/** Its bytes are on disk already. */
function replace(path: string, copy: string): void {
  renameSync(copy, path)
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

export function damagedStore(path: string, what: string, cause?: unknown): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INTERNAL',
    `the store ${path} is damaged: ${what}. Restore it from a backup, or start with an empty data directory after all executors have ended`,
    cause === undefined ? {} : { cause },
  )
}

/** What the two meta pages (of which the newer one counts) tell without LMDB. */
export function fileFlaw(path: string): string | undefined {
  const magicAt = 24
  const pageSizeAt = 48
  const lastPageAt = 144
  const transactionAt = 152
  const magic = 0xbeefc0de
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return code === 'ENOENT' ? undefined : `it cannot be read (${code})`
  }
  try {
    const { size } = fstatSync(file)
    // Made, but nothing was written before a crash: LMDB starts it anew.
    if (size === 0) return undefined
    const meta = Buffer.alloc(160)
    const transactions: bigint[] = []
    let pageSize = 0
    for (const page of [0, 1]) {
      const length = readSync(file, meta, 0, meta.length, page * pageSize)
      if (length < meta.length || meta.readUInt32LE(magicAt) !== magic) return 'it is no database'
      pageSize = meta.readUInt32LE(pageSizeAt)
      const needed = (meta.readBigUInt64LE(lastPageAt) + 1n) * BigInt(pageSize)
      if (BigInt(size) < needed) return `it was cut off: ${size} of ${needed} bytes are left`
      transactions.push(meta.readBigUInt64LE(transactionAt))
    }
    // Transactions write the pages in turn. Else LMDB would go back to an older state without a word.
    const [even = 0n, odd = 0n] = transactions
    const isNew = even === 0n && odd === 0n
    if (!isNew && (even % 2n !== 0n || (odd !== even + 1n && even !== odd + 1n))) {
      return `its first pages are of the transactions ${even} and ${odd}, which do not follow each other`
    }
    return undefined
  } finally {
    closeSync(file)
  }
}

function copyStore(path: string, copy: string): Promise<'copied' | 'other format' | 'no room'> {
  const script = join(packageRoot(), 'dist/resource-manager/stores/lmdb-renewal-process.js')
  const options = { timeout: withinMs, killSignal: 'SIGKILL' } as const
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [script, path, copy], options, (error, stdout, stderr) => {
      if (error === null) return resolve('copied')
      const { code, signal, killed } = error
      // The resource manager refuses it, saying so.
      if (code === withoutCopy.otherFormat) return resolve('other format')
      if (code === withoutCopy.noRoom) return resolve('no room')
      const damaged = (what: string): void => reject(damagedStore(path, what))
      if (killed === true) return damaged(`it could not be read within ${withinMs} ms`)
      if (stdout !== '') return damaged(stdout)
      if (typeof signal === 'string' && !foreignSignals.has(signal)) {
        return damaged(`what read it was ended by ${signal}`)
      }
      const what = signal ?? `${code} ${stderr}`
      const message = `the store ${path} could not be checked (${what}): start the resource manager again`
      reject(new RfaasError('ERR_RFAAS_INTERNAL', message, { cause: error }))
    })
  })
}
