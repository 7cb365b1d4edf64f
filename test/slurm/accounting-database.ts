// The database in which a real Slurm keeps its accounting: mariadbd, which listens on a socket alone, and
// slurmdbd before it, in a folder and on a port of their own.
import { execFile, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { freePorts } from '../free-ports.js'
import { endDaemon, startDaemon } from './daemons.js'
import { Munge } from './munge.js'

const startWithinMs = 30_000

export class AccountingDatabase {
  readonly #folder = mkdtempSync(join(tmpdir(), 'rfaas-slurmdbd-'))
  /** In the order of their start. */
  readonly #daemons: ChildProcess[] = []
  #munge: Munge | undefined
  #port = 0

  private constructor() {}

  /** Resolves when slurmdbd takes connections. */
  static async start(): Promise<AccountingDatabase> {
    const database = new AccountingDatabase()
    try {
      // Slurm's users reach the socket of munge.
      chmodSync(database.#folder, 0o711)
      database.#munge = await Munge.start(join(database.#folder, 'munge'))
      await database.#startMariadb()
      await database.#startSlurmdbd()
      return database
    } catch (error) {
      await database.stop()
      throw error
    }
  }

  /** Of the slurm.conf of a cluster that is accounted for here. */
  get lines(): string {
    return `AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=${this.#port}
AccountingStoragePass=${this.munge.socket}
`
  }

  /** Of both: they believe each other. */
  get munge(): Munge {
    return this.#munge!
  }

  get logs(): string {
    const paths = ['mariadbd.log', 'slurmdbd.log'].map((name) => join(this.#folder, name))
    return paths
      .filter((path) => existsSync(path))
      .map((path) => `── ${path}\n${readFileSync(path, 'utf8').slice(-3000)}`)
      .join('\n')
  }

  /** The cluster that it serves ends first. Idempotent. */
  async stop(): Promise<void> {
    // slurmdbd writes to mariadbd.
    for (const daemon of this.#daemons.splice(0).reverse()) await endDaemon(daemon)
    await this.#munge?.stop()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #startMariadb(): Promise<void> {
    const { username } = userInfo()
    const data = this.#data
    mkdirSync(data, { mode: 0o700 })
    // Nobody else's settings. It is made for one test, so little of it and none of it safe.
    const options = [
      ...['--no-defaults', `--user=${username}`, `--datadir=${data}`],
      ...['--innodb-log-file-size=4M', '--innodb-flush-log-at-trx-commit=0'],
    ]
    const install = ['--auth-root-authentication-method=normal', '--skip-test-db']
    await promisify(execFile)('mariadb-install-db', [...options, ...install])
    this.#run('mariadbd', [
      ...[...options, `--socket=${this.#socket}`, '--skip-networking', '--skip-log-bin'],
      `--log-error=${join(this.#folder, 'mariadbd.log')}`,
    ])
    await this.#listening('mariadbd', { path: this.#socket })
  }

  async #startSlurmdbd(): Promise<void> {
    const [port = 0] = await freePorts(1)
    this.#port = port
    const configuration = `${this.munge.lines}DbdHost=${hostname().split('.')[0]}
DbdAddr=127.0.0.1
DbdPort=${port}
SlurmUser=${userInfo().username}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm
StorageUser=root
LogFile=${join(this.#folder, 'slurmdbd.log')}
PidFile=${join(this.#folder, 'slurmdbd.pid')}
`
    writeFileSync(join(this.#folder, 'slurmdbd.conf'), configuration, { mode: 0o600 })
    // It looks for its configuration beside that of Slurm.
    const env = { SLURM_CONF: join(this.#folder, 'slurm.conf'), MYSQL_UNIX_PORT: this.#socket }
    this.#run('slurmdbd', ['-D'], env)
    await this.#listening('slurmdbd', { host: '127.0.0.1', port })
  }

  get #data(): string {
    return join(this.#folder, 'data')
  }

  /** Nobody else's: it asks for no password. */
  get #socket(): string {
    return join(this.#data, 'mariadbd.socket')
  }

  #run(program: string, args: readonly string[], env: Record<string, string> = {}): void {
    this.#daemons.push(startDaemon(program, args, { env }))
  }

  async #listening(program: string, at: { path: string } | { host: string; port: number }) {
    const giveUp = performance.now() + startWithinMs
    for (;;) {
      const socket = connect(at)
      const connected = await once(socket, 'connect').then(
        () => true,
        () => false,
      )
      socket.destroy()
      if (connected) return
      if (performance.now() > giveUp) throw new Error(`${program} does not listen\n${this.logs}`)
      await sleep(50)
    }
  }
}
