// A manager as its operator starts it: the command, in a process of its own.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { canPin } from './cores.js'
import { root } from './machine.js'

export interface ManagerProcess {
  readonly url: string
  readonly pid: number
  close(): Promise<void>
}

/** Listens on a free port and keeps what it stores in a folder of its own, which close() removes. */
export async function startManager(
  kind: 'resource-manager' | 'executor-manager',
  cores: readonly number[],
  flags: readonly string[],
): Promise<ManagerProcess> {
  const dataDir = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
  const program = join(root, 'dist', 'lib', 'cli', 'main.js')
  const options = ['--port', '0', '--data-dir', dataDir, '--log-level', 'warn', ...flags]
  const command = [process.execPath, program, kind, ...options]
  const pinned = canPin() ? ['taskset', '-c', cores.join(','), ...command] : command
  const child = spawn(pinned[0]!, pinned.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
  const failed = once(child, 'exit').then(([code, signal]) => {
    throw new Error(`the ${kind} ended with ${String(code ?? signal)}`)
  })
  const url = once(createInterface(child.stdout), 'line').then(([line]) => line as string)
  const close = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit')
      child.kill()
      await exited
    }
    await rm(dataDir, { recursive: true })
  }
  try {
    return { url: await Promise.race([url, failed]), pid: child.pid!, close }
  } catch (error) {
    await close()
    throw error
  } finally {
    failed.catch(() => undefined)
  }
}
