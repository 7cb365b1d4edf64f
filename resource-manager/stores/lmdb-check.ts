// LMDB maps its file and believes it: a damaged page ends the process that reads it with a signal. So a
// process of its own reads everything once before the resource manager opens the store.
import { execFile } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RfaasError } from '../../lib/errors.js'
import { packageRoot } from '../../lib/package-root.js'

const checkWithinMs = 120_000
// Sent by people and the kernel: they say nothing about the store.
const foreignSignals = new Set<unknown>(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP'])

/** Rejects when the store at `path` is damaged; resolves when it is sound, new, or of another format.
 * Whether another manager uses it makes no difference: the owner's record is left alone. */
export async function checkLmdbStore(path: string): Promise<void> {
  removeLeftovers(path)
  const flaw = fileFlaw(path)
  if (flaw !== undefined) throw damagedStore(path, flaw)
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0) return
  // Two managers may start at once.
  const copy = `${path}.check-${process.pid}`
  try {
    const found = await contentFlaw(path, copy)
    if (found !== undefined) throw damagedStore(path, found)
  } finally {
    for (const file of [copy, `${copy}-lock`]) rmSync(file, { force: true })
  }
}

/** Copies of managers that were killed during their check. */
function removeLeftovers(path: string): void {
  const folder = dirname(path)
  const copies = `${basename(path)}.check-`
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (!name.startsWith(copies)) continue
    const pid = Number.parseInt(name.slice(copies.length))
    if (!existsSync(`/proc/${pid}`)) rmSync(join(folder, name), { force: true })
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

function contentFlaw(path: string, copy: string): Promise<string | undefined> {
  const script = join(packageRoot(), 'dist/resource-manager/stores/lmdb-check-process.js')
  const options = { timeout: checkWithinMs, killSignal: 'SIGKILL' } as const
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [script, path, copy], options, (error, stdout, stderr) => {
      if (error === null) return resolve(undefined)
      const { code, signal, killed } = error
      if (killed === true) return resolve(`it could not be read within ${checkWithinMs} ms`)
      if (stdout !== '') return resolve(stdout)
      if (typeof signal === 'string' && !foreignSignals.has(signal)) {
        return resolve(`what read it was ended by ${signal}`)
      }
      const what = signal ?? `${code} ${stderr}`
      const message = `the store ${path} could not be checked (${what}): start the resource manager again`
      reject(new RfaasError('ERR_RFAAS_INTERNAL', message, { cause: error }))
    })
  })
}
