// Which cores a run uses, and keeping processes on them.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Cores {
  client: number
  worker: number
}

/** `'0-2,5'` is [0, 1, 2, 5]. */
export function parseCoreList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .flatMap((part) => {
      const match = /^(\d+)(?:-(\d+))?$/.exec(part)
      if (match === null) throw new RangeError(`'${text}' is no list of cores such as 0-2,5`)
      const first = Number(match[1])
      const last = Number(match[2] ?? match[1])
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
    })
}

/** `wanted` as in --cores, or the first two that this process may use. */
export function chooseCores(wanted?: string): Cores {
  const status = readFileSync('/proc/self/status', 'utf8')
  const allowed = parseCoreList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '0')
  const [client, worker, ...others] =
    wanted === undefined ? allowed.slice(0, 2) : parseCoreList(wanted)
  if (client === undefined || worker === undefined || client === worker || others.length > 0) {
    throw new RangeError(
      `cores: two different ones are needed, for client and worker; this process may use ${allowed.join(', ')}`,
    )
  }
  for (const core of [client, worker]) {
    if (!allowed.includes(core)) {
      throw new RangeError(
        `cores: ${core} is none of those that this process may use: ${allowed.join(', ')}`,
      )
    }
  }
  return { client, worker }
}

/**
 * Keeps the main thread of a process on one core; the helpers of its JavaScript engine may run
 * elsewhere. Does nothing where canPin() is false.
 */
export function pin(pid: number, core: number): void {
  spawnSync('taskset', ['-cp', String(core), String(pid)], { stdio: 'ignore' })
}

/** Whether there is a taskset(1). */
export function canPin(): boolean {
  return spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0
}
