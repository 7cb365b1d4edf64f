// Daemons of other projects, in the foreground as our children: they are ended by their process.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'

const endWithinMs = 10_000

export interface DaemonOptions {
  env?: Readonly<Record<string, string>>
  /** For what it prints. Default: nowhere, it has a log of its own. */
  log?: string
}

/** Whoever waits for it to serve says what is missing. */
export function startDaemon(
  program: string,
  args: readonly string[],
  { env = {}, log = '/dev/null' }: DaemonOptions = {},
): ChildProcess {
  const output = openSync(log, 'a')
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', output, output],
  })
  child.on('error', () => undefined)
  closeSync(output)
  return child
}

/** Resolves when it has ended: what SIGTERM does not end in time is killed. Idempotent. */
export async function endDaemon(child: ChildProcess, by: NodeJS.Signals = 'SIGTERM') {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(by)
  const timer = setTimeout(() => child.kill('SIGKILL'), endWithinMs)
  await ended
  clearTimeout(timer)
}
