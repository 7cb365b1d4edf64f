// Which cores a run uses, and keeping processes on them.
import { fork, spawnSync, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Cores {
  client: number
  /** Where workers, servers and the other side of a floor run; most trials use the first one. */
  workers: readonly number[]
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

/** `wanted` as in --cores, or all that this process may use; the first one is the client's. */
export function chooseCores(wanted?: string): Cores {
  const status = readFileSync('/proc/self/status', 'utf8')
  const allowed = parseCoreList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '0')
  const chosen = wanted === undefined ? allowed : parseCoreList(wanted)
  const [client, ...workers] = chosen
  if (client === undefined || workers.length === 0 || new Set(chosen).size < chosen.length) {
    throw new RangeError(
      `cores: at least two different ones are needed, for client and worker; this process may use ${allowed.join(', ')}`,
    )
  }
  for (const core of chosen) {
    if (!allowed.includes(core)) {
      throw new RangeError(
        `cores: ${core} is none of those that this process may use: ${allowed.join(', ')}`,
      )
    }
  }
  return { client, workers }
}

/** So many cores for workers: beyond the workers' own, the client's is shared. */
export function workerCores({ client, workers }: Cores, count: number): number[] {
  const all = [...workers, client]
  if (count > all.length) throw new RangeError(`${count} workers on ${all.length} cores`)
  return all.slice(0, count)
}

/** 1, 2, 4, … up to all cores, but two at least: there the client shares its core. */
export function workerCounts({ workers }: Cores): number[] {
  return powersOfTwo(Math.max(2, workers.length))
}

/** Each with a core for itself and one for its worker; two at least, on two cores they share. */
export function clientCounts({ workers }: Cores): number[] {
  return powersOfTwo(Math.max(2, (workers.length + 1) >> 1))
}

function powersOfTwo(most: number): number[] {
  return Array.from({ length: Math.floor(Math.log2(most)) + 1 }, (_, i) => 2 ** i)
}

/** Starts a Node program with all of its threads on these cores; anywhere where canPin() is false. */
export function forkOn(
  cores: readonly number[],
  program: string,
  args: readonly string[] = [],
): ChildProcess {
  const env = { ...process.env }
  // Reading more certificates costs 60 ms of each start of Node; nothing here uses them.
  delete env['NODE_EXTRA_CA_CERTS']
  if (!canPin()) return fork(program, args, { env })
  return fork(program, args, {
    env,
    execPath: 'taskset',
    execArgv: ['-c', cores.join(','), process.execPath],
  })
}

/** Keeps one thread on a core: what a process id names is its main thread. */
export function pinThread(id: number, core: number): void {
  if (canPin()) spawnSync('taskset', ['-cp', String(core), String(id)], { stdio: 'ignore' })
}

let taskset: boolean | undefined

/** Whether there is a taskset(1). */
export function canPin(): boolean {
  taskset ??= spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0
  return taskset
}
