// What tells Slurm who asks: a munged with a key of its own, as every site has one.
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { endDaemon, startDaemon } from './daemons.js'

const startWithinMs = 10_000

export class Munge {
  readonly #folder: string
  readonly #daemon: ChildProcess

  private constructor(folder: string, daemon: ChildProcess) {
    this.#folder = folder
    this.#daemon = daemon
  }

  /** `folder`: for its files, made here. Every user who asks Slurm has to reach it; nobody but its owner
   * may write to one above it. */
  static async start(folder: string): Promise<Munge> {
    mkdirSync(folder, { mode: 0o711 })
    const path = (name: string): string => join(folder, name)
    writeFileSync(path('key'), randomBytes(128), { mode: 0o600 })
    const args = [
      ...['--foreground', '--key-file', path('key'), '--socket', path('socket')],
      ...['--pid-file', path('pid'), '--seed-file', path('seed'), '--log-file', path('log')],
    ]
    const daemon = startDaemon('munged', args, { log: path('log') })
    const munge = new Munge(folder, daemon)
    const giveUp = performance.now() + startWithinMs
    while (!existsSync(munge.socket)) {
      if (daemon.exitCode !== null || performance.now() > giveUp) {
        await munge.stop()
        throw new Error(`munged does not serve: ${readFileSync(path('log'), 'utf8')}`)
      }
      await sleep(5)
    }
    return munge
  }

  get socket(): string {
    return join(this.#folder, 'socket')
  }

  /** Of slurm.conf and slurmdbd.conf. */
  get lines(): string {
    return `AuthType=auth/munge\nAuthInfo=socket=${this.socket}\n`
  }

  /** After those whom it vouches for. Idempotent. */
  stop(): Promise<void> {
    return endDaemon(this.#daemon)
  }
}
