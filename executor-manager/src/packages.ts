// The node's store of function packages, addressed by the SHA-256 of their bytes. A package appears
// under its hash complete and verified or not at all: bytes go to a file of their own while they are
// hashed, then a link publishes them. Uploads of the same package at the same time do not wait for
// one another (a slow tenant must not hold up the others); the first that is complete is kept.
// Nobody waits for the disk: what a power failure damages does not have its hash, and a manager
// looks before it uses a package for the first time.
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  createReadStream,
  existsSync,
  linkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { open, readdir, realpath, rename, rm, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { createFolder } from '../../lib/control/folder.js'
import { RfaasError } from '../../lib/errors.js'
import type { Runtime } from '../../lib/control/schemas.js'
import { formatBytes } from '../../lib/units.js'

export interface PackageStoreOptions {
  directory: string
  /** The node_modules that ES modules may import from. */
  modulesDir: string | undefined
  /** Longest package. */
  maxPackageBytes: number
  /** Beyond this, packages that no executor uses are removed, the longest unused first. */
  maxStoreBytes: number
}

// The loaders go by the name: an ES module needs .mjs whatever is around it.
const suffix: Record<Runtime, string> = { native: '.so', node: '.mjs' }

export class PackageStore {
  readonly #options: PackageStoreOptions
  readonly #users = new Map<string, number>()
  /** Of packages that are here: whether they have their hash. Looked up once. */
  readonly #sound = new Map<string, Promise<boolean>>()
  /** All packages that are here have no more bytes than this; undefined: nobody has counted yet. */
  #atMostBytes: number | undefined
  #evicting: Promise<void> = Promise.resolve()

  private constructor(options: PackageStoreOptions) {
    this.#options = options
  }

  static async open(options: PackageStoreOptions): Promise<PackageStore> {
    createFolder('dataDir', options.directory)
    // Workers get their package at its own path, to which no link leads in their sandbox.
    options = { ...options, directory: await realpath(options.directory) }
    // What an upload left behind when its manager ended. Recent ones may belong to a manager that is
    // still running on the same directory.
    for (const name of await readdir(options.directory)) {
      if (!name.startsWith('.upload-')) continue
      const path = join(options.directory, name)
      const age = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now())
      if (age > 3600_000) await rm(path, { force: true })
    }
    await linkModules(join(options.directory, 'node_modules'), options.modulesDir)
    return new PackageStore(options)
  }

  /** Beside the packages; not there without `modulesDir`. */
  get modules(): string {
    return this.#path('node_modules')
  }

  /** A file of that name is here, sound or not. */
  seemsHere(sha256: string): boolean {
    return this.#sound.has(sha256) || existsSync(this.#path(sha256))
  }

  async has(sha256: string): Promise<boolean> {
    let sound = this.#sound.get(sha256)
    if (sound === undefined) {
      if (!existsSync(this.#path(sha256))) return false
      sound = this.#look(sha256)
      this.#sound.set(sha256, sound)
    }
    return sound
  }

  /** Takes the bytes in. 'present': they were here already (and have been checked all the same). */
  async put(sha256: string, bytes: Readable): Promise<'stored' | 'present'> {
    const known = await this.has(sha256)
    const temporary = this.#temporary()
    // Leases have users of their own, which must read it where it is shown to them; nobody else gets
    // into the folder.
    const file = known ? undefined : await open(temporary, 'wx', 0o400)
    try {
      await file?.chmod(0o444) // whatever the umask
      const digest = createHash('sha256')
      let length = 0
      for await (const chunk of bytes as AsyncIterable<Buffer>) {
        length += chunk.byteLength
        if (length > this.#options.maxPackageBytes) throw this.#tooLong()
        digest.update(chunk)
        await file?.writeFile(chunk)
      }
      assertHash(sha256, digest.digest('hex'), length)
      return file === undefined ? 'present' : await this.#keep(temporary, sha256, length)
    } finally {
      await file?.close()
      if (file !== undefined) await rm(temporary, { force: true })
    }
  }

  /** The same for a short package, which is written in less time than another thread takes to wake up. */
  async putShort(sha256: string, bytes: Uint8Array): Promise<'stored' | 'present'> {
    if (await this.has(sha256)) return 'present'
    const { byteLength: length } = bytes
    if (length > this.#options.maxPackageBytes) throw this.#tooLong()
    assertHash(sha256, createHash('sha256').update(bytes).digest('hex'), length)
    const temporary = this.#temporary()
    try {
      writeFileSync(temporary, bytes, { flag: 'wx', mode: 0o400 })
      chmodSync(temporary, 0o444)
      return await this.#keep(temporary, sha256, length)
    } finally {
      rmSync(temporary, { force: true })
    }
  }

  async #keep(temporary: string, sha256: string, length: number): Promise<'stored' | 'present'> {
    const stored = publish(temporary, this.#path(sha256))
    this.#sound.set(sha256, Promise.resolve(true))
    await this.#makeRoom(sha256, length)
    return stored ? 'stored' : 'present'
  }

  #temporary(): string {
    return this.#path(`.upload-${randomBytes(12).toString('hex')}`)
  }

  /** A stored package's path for a runtime. It stays until as many `release` as `use` were called. */
  async use(sha256: string, runtime: Runtime): Promise<string> {
    this.#users.set(sha256, (this.#users.get(sha256) ?? 0) + 1)
    try {
      // An eviction that began earlier does not know of this user yet.
      await this.#evicting
      if (!(await this.has(sha256))) throw notHere(sha256)
      const path = this.#path(`${sha256}${suffix[runtime]}`)
      publish(this.#path(sha256), path)
      const now = new Date()
      utimesSync(this.#path(sha256), now, now)
      return path
    } catch (error) {
      this.release(sha256)
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      this.#sound.delete(sha256)
      throw notHere(sha256)
    }
  }

  release(sha256: string): void {
    const users = (this.#users.get(sha256) ?? 0) - 1
    if (users > 0) this.#users.set(sha256, users)
    else this.#users.delete(sha256)
  }

  tooLong(contentLength: number): RfaasError | undefined {
    return contentLength > this.#options.maxPackageBytes ? this.#tooLong() : undefined
  }

  #tooLong(): RfaasError {
    const most = this.#options.maxPackageBytes
    return new RfaasError(
      'ERR_RFAAS_PACKAGE',
      `the package is longer than the ${formatBytes(most)} that this node takes: make it smaller or raise maxPackageBytes`,
      { status: 413, field: 'body', allowed: `at most ${most} bytes` },
    )
  }

  #path(name: string): string {
    return join(this.#options.directory, name)
  }

  /** A file that does not have its hash is none. */
  async #look(sha256: string): Promise<boolean> {
    const digest = createHash('sha256')
    try {
      const bytes = createReadStream(this.#path(sha256)) as AsyncIterable<Buffer>
      for await (const chunk of bytes) digest.update(chunk)
    } catch (error) {
      this.#sound.delete(sha256)
      // It was removed a moment ago.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw error
    }
    if (digest.digest('hex') === sha256) return true
    await this.#remove(sha256)
    return false
  }

  async #remove(sha256: string): Promise<void> {
    for (const name of [sha256, ...Object.values(suffix).map((end) => sha256 + end)]) {
      await rm(this.#path(name), { force: true })
    }
    this.#sound.delete(sha256)
  }

  /** The folder may be large: it is looked through only when there may be too much in it. */
  async #makeRoom(keep: string, bytes: number): Promise<void> {
    if (this.#atMostBytes !== undefined) this.#atMostBytes += bytes
    const { maxStoreBytes } = this.#options
    if ((this.#atMostBytes ?? Infinity) > maxStoreBytes) await this.#evict(keep)
  }

  /** One at a time: two that look at the same files would remove more than is needed. */
  #evict(keep: string): Promise<void> {
    const run = this.#evicting.then(() => this.#evictNow(keep))
    this.#evicting = run.catch(() => undefined)
    return run
  }

  async #evictNow(keep: string): Promise<void> {
    this.#atMostBytes = 0 // and what comes while we count, even if we count it, too
    const stored: { sha256: string; bytes: number; usedAt: number }[] = []
    for (const name of await readdir(this.#options.directory)) {
      if (!/^[0-9a-f]{64}$/.test(name)) continue
      const status = await stat(this.#path(name)).catch(() => undefined)
      if (status !== undefined) {
        stored.push({ sha256: name, bytes: status.size, usedAt: status.mtimeMs })
      }
    }
    let total = stored.reduce((sum, { bytes }) => sum + bytes, 0)
    for (const { sha256, bytes } of stored.sort((a, b) => a.usedAt - b.usedAt)) {
      if (total <= this.#options.maxStoreBytes) break
      if (sha256 === keep || this.#users.has(sha256)) continue
      await this.#remove(sha256)
      total -= bytes
    }
    this.#atMostBytes += total
  }
}

function assertHash(sha256: string, found: string, length: number): void {
  if (found !== sha256) {
    throw new RfaasError(
      'ERR_RFAAS_PACKAGE',
      `the ${length} bytes that arrived have SHA-256 ${found}, not ${sha256}: upload the package again`,
      { status: 400, field: 'sha256', value: sha256, allowed: 'the SHA-256 of the body' },
    )
  }
  if (length === 0) {
    throw new RfaasError('ERR_RFAAS_PACKAGE', 'the package is empty', { status: 400 })
  }
}

function notHere(sha256: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_NOT_FOUND',
    `package ${sha256} is not on this node: upload it first`,
    { field: 'package', value: sha256, status: 404 },
  )
}

/** Node looks for imported packages in node_modules beside the importing file. */
async function linkModules(path: string, target: string | undefined): Promise<void> {
  await rm(path, { force: true })
  if (target === undefined) return
  const temporary = `${path}-${randomBytes(6).toString('hex')}`
  await symlink(target, temporary)
  await rename(temporary, path)
}

/** False if the name is taken: by the same bytes, as names are hashes. */
function publish(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  }
}
