// A user of this machine, and so of Slurm, who may do nothing special in either.
import { execFileSync } from 'node:child_process'
import { chownSync } from 'node:fs'
import { join } from 'node:path'

import { packageRoot } from '../../lib/package-root.js'
import type { DaemonOptions } from '../faults/daemon.js'
import { temporaryFolder } from './support.js'

const name = 'nobody'
const id = 65_534
const become = ['setpriv', `--reuid=${id}`, `--regid=${id}`, '--clear-groups', '--']

/** Why nothing can be done as that user here. */
export const lackOfOrdinaryUser = lack()
if (lackOfOrdinaryUser !== undefined) {
  console.warn(`tests as an ordinary user: skipped, ${lackOfOrdinaryUser}`)
}

function lack(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root, to become another user'
  const main = join(packageRoot(), 'dist/lib/cli/main.js')
  const script = `fs.accessSync('${main}')`
  try {
    execFileSync(become[0]!, [...become.slice(1), process.execPath, '-e', script], {
      stdio: 'pipe',
    })
  } catch (error) {
    return (error as Error).message
  }
  return undefined
}

export interface OrdinaryUser {
  name: string
  /** Its own, and nobody else's. */
  home: string
  /** For what it starts. */
  options: DaemonOptions
  /** A command, as it would type it. */
  command(program: string, args: readonly string[]): [string, string[]]
}

export function ordinaryUser(): OrdinaryUser {
  const home = temporaryFolder()
  chownSync(home, id, id)
  return {
    name,
    home,
    options: { wrap: become, env: { HOME: home, USER: name, LOGNAME: name } },
    command: (program, args) => [become[0]!, [...become.slice(1), program, ...args]],
  }
}
