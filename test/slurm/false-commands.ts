// Commands of Slurm that answer something else than Slurm does.
import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export class FalseCommands {
  readonly #folder: string

  /** In `folder`, which is made here. */
  constructor(folder: string) {
    this.#folder = folder
    mkdirSync(folder)
  }

  /** For whom they are. They stand before the real ones as soon as they are there. */
  get env(): Record<string, string> {
    return { PATH: `${this.#folder}:${process.env['PATH']}` }
  }

  /** `script`: of a shell, runs instead. */
  answer(program: string, script: string): void {
    // In one step: it may be started at any moment.
    const path = join(this.#folder, program)
    writeFileSync(`${path}.new`, `#!/bin/sh\n${script}\n`)
    chmodSync(`${path}.new`, 0o755)
    renameSync(`${path}.new`, path)
  }

  /** It is Slurm's again. */
  restore(program: string): void {
    this.answer(program, `exec /usr/bin/${program} "$@"`)
  }
}
