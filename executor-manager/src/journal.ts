// What this node owes the ledger, on disk: each lease with what it has used, from its beginning until
// the resource manager has confirmed its end. So nothing is lost when the resource manager is away
// while this process ends, and little (what was used since the last checkpoint) when it is killed.
//
// A line of JSON per change, the last one of a lease counts; rewritten when most lines are outdated.
import { open, rename, readFile, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Type, type Static } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import type { Logger } from '../../lib/control/log.js'
import { LeaseClosed } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'

const Line = Type.Object({
  lease: Type.String({ minLength: 1, maxLength: 128 }),
  /** Null: confirmed, nothing is owed any more. */
  used: Type.Union([LeaseClosed, Type.Null()]),
})
type Line = Static<typeof Line>

const outdatedLines = 1024

export class Journal {
  readonly #path: string
  readonly #logger: Logger
  readonly #owed: Map<string, LeaseClosed>
  #file: FileHandle | undefined
  #lines = 0
  #queue: Line[] = []
  #writing: Promise<void> | undefined
  #closed = false

  private constructor(path: string, logger: Logger, owed: Map<string, LeaseClosed>) {
    this.#path = path
    this.#logger = logger
    this.#owed = owed
  }

  static async open(path: string, logger: Logger): Promise<Journal> {
    try {
      const { owed, bad } = parse(await readIfThere(path))
      // The last line of a process that was killed may be half there.
      if (bad > 0) logger.warn({ path, lines: bad }, 'ignored damaged lines of the journal')
      const journal = new Journal(path, logger, owed)
      await journal.#rewrite()
      return journal
    } catch (error) {
      throw new RfaasError(
        'ERR_RFAAS_INTERNAL',
        `the journal ${path} cannot be used (${(error as Error).message}): it holds what leases used and the resource manager has not heard yet; repair it, or remove it if that may be lost`,
        { cause: error },
      )
    }
  }

  /** Leases whose end is not confirmed, with what they are known to have used. */
  get owed(): ReadonlyMap<string, LeaseClosed> {
    return this.#owed
  }

  /** Resolves as `ended` does. */
  began(lease: string): Promise<void> {
    return this.#put({ lease, used: { heldMs: 0, cpuMs: 0 } })
  }

  /** What leases have used so far. */
  checkpoint(leases: Iterable<readonly [string, LeaseClosed]>): void {
    for (const [lease, used] of leases) void this.#put({ lease, used })
  }

  /** Resolves when it is on disk, or could not be written: that is logged, and what is owed stays in
   * memory. */
  ended(lease: string, used: LeaseClosed): Promise<void> {
    return this.#put({ lease, used })
  }

  confirmed(lease: string): void {
    if (this.#owed.has(lease)) void this.#put({ lease, used: null })
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#writing
    await this.#file?.close()
  }

  #put(line: Line): Promise<void> {
    if (this.#closed) return Promise.resolve()
    if (line.used === null) this.#owed.delete(line.lease)
    else this.#owed.set(line.lease, line.used)
    this.#queue.push(line)
    this.#writing ??= this.#writeAll().finally(() => (this.#writing = undefined))
    return this.#writing
  }

  /** One write and one flush for all that came since the last. */
  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const lines = this.#queue.splice(0)
      try {
        if (this.#file === undefined || this.#lines > outdatedLines + 2 * this.#owed.size) {
          await this.#rewrite()
          continue
        }
        await this.#file.appendFile(lines.map(textOf).join(''))
        await this.#file.datasync()
        this.#lines += lines.length
      } catch (error) {
        this.#logger.error({ path: this.#path, err: error }, 'the journal could not be written')
        // Half a line may be at its end: nothing is appended to that.
        await this.#file?.close().catch(() => undefined)
        this.#file = undefined
      }
    }
  }

  /** Everything that is owed, in a new file that takes the place of the old one whole or not at all. */
  async #rewrite(): Promise<void> {
    const partial = `${this.#path}.partial`
    const file = await open(partial, 'w', 0o600)
    try {
      const lines = [...this.#owed].map(([lease, used]) => textOf({ lease, used }))
      await file.writeFile(lines.join(''))
      await file.sync()
      await rename(partial, this.#path)
      await syncFolder(dirname(this.#path))
    } catch (error) {
      await file.close()
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#lines = this.#owed.size
  }
}

function textOf(line: Line): string {
  return `${JSON.stringify(line)}\n`
}

function parse(text: string): { owed: Map<string, LeaseClosed>; bad: number } {
  const owed = new Map<string, LeaseClosed>()
  let bad = 0
  for (const row of text.split('\n')) {
    if (row === '') continue
    let line: unknown
    try {
      line = JSON.parse(row)
    } catch {
      line = undefined
    }
    if (inspect(Line, line) !== undefined) {
      bad += 1
      continue
    }
    const { lease, used } = line as Line
    if (used === null) owed.delete(lease)
    else owed.set(lease, used)
  }
  return { owed, bad }
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
