// What the tests of keys and certificates share: an authority, its certificates, and a cluster that
// asks for both.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  startExecutorManager,
  type ExecutorManagerOptions,
} from '../../executor-manager/src/index.js'
import { createKey, type KeyRecord } from '../../lib/control/keys.js'
import { createLogger } from '../../lib/control/log.js'
import {
  startResourceManager,
  type ResourceManagerOptions,
} from '../../resource-manager/src/index.js'

const cleanups: (() => unknown)[] = []

/** For afterEach: undoes everything in reverse order. */
export async function cleanUp(): Promise<void> {
  for (const undo of cleanups.splice(0).reverse()) await undo()
}

export function onCleanUp(undo: () => unknown): void {
  cleanups.push(undo)
}

export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-tenants-'))
  onCleanUp(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** A certificate authority in a folder, made with openssl as docs/security.md shows it. */
export class Authority {
  readonly folder = temporaryFolder()
  readonly certificate = join(this.folder, 'ca.pem')

  constructor(name = 'test authority') {
    this.#openssl(
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem -subj',
      `/CN=${name}`,
    )
  }

  /** Also for 127.0.0.1 and localhost, so that it serves there. */
  issue(name: string): { cert: string; key: string } {
    writeFileSync(
      join(this.folder, `${name}.ext`),
      `subjectAltName=DNS:${name},DNS:localhost,IP:127.0.0.1\n`,
    )
    const request = `req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ${name}.key -out ${name}.csr -subj`
    this.#openssl(request, `/CN=${name}`)
    this.#openssl(
      `x509 -req -in ${name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ${name}.ext -out ${name}.pem`,
    )
    return { cert: join(this.folder, `${name}.pem`), key: join(this.folder, `${name}.key`) }
  }

  #openssl(words: string, ...more: string[]): void {
    execFileSync('openssl', [...words.split(' '), ...more], { cwd: this.folder, stdio: 'pipe' })
  }
}

/** A keys file; what is added or removed is written at once. */
export class Keys {
  readonly path = join(temporaryFolder(), 'keys.json')
  #records: KeyRecord[] = []

  constructor() {
    this.#write([])
  }

  add(record: Parameters<typeof createKey>[0]): string {
    const { key, record: kept } = createKey(record)
    this.#write([...this.#records, kept])
    return key
  }

  tenant(tenant: string, more: Partial<KeyRecord> = {}): string {
    return this.add({ role: 'tenant', tenant, ...more })
  }

  node(node: string): string {
    return this.add({ role: 'node', node })
  }

  operator(): string {
    return this.add({ role: 'operator', tenant: 'operator' })
  }

  remove(key: string): void {
    this.#write(this.#records.filter(({ id }) => id !== key.split('_')[1]))
  }

  #write(records: KeyRecord[]): void {
    this.#records = records
    writeFileSync(this.path, JSON.stringify({ keys: records }), { mode: 0o600 })
  }
}

/** A logger whose lines can be read. */
export function recordingLogger() {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  return { lines, logger: createLogger({ name: 'test', level: 'trace', stream }) }
}

export async function startManager(options: ResourceManagerOptions): Promise<string> {
  const manager = await startResourceManager({
    port: 0,
    dataDir: temporaryFolder(),
    heartbeatMs: 100,
    // A busy machine may not come to a heartbeat for a while.
    nodeTimeoutMs: 20_000,
    logLevel: 'silent',
    ...options,
  })
  onCleanUp(() => manager.close())
  return manager.url
}

export async function startNode(options: ExecutorManagerOptions): Promise<string> {
  const manager = await startExecutorManager({
    port: 0,
    name: 'node-1',
    dataDir: temporaryFolder(),
    runtimeDir: temporaryFolder(),
    cores: 1,
    graceMs: 300,
    pool: 0,
    logLevel: 'silent',
    ...options,
  })
  onCleanUp(() => manager.close())
  return manager.url
}
