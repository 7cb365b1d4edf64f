// Processes as the kernel shows them: what a scenario strikes at, and what it must not leave behind.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

interface Status {
  parent: number
  /** As in proc(5): R, S, T, Z ... */
  state: string
}

function statusOf(pid: number): Status | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may contain anything.
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { state: state ?? '', parent: Number(parent) }
  } catch {
    return undefined // it has ended
  }
}

/** A zombie has ended: whoever adopted it may be late to wait for it. */
export function isAlive(pid: number): boolean {
  const state = statusOf(pid)?.state
  return state !== undefined && state !== 'Z' && state !== 'X'
}

export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const status = statusOf(Number(name))
    if (status === undefined || status.state === 'Z') continue
    const siblings = children.get(status.parent)
    if (siblings === undefined) children.set(status.parent, [Number(name)])
    else siblings.push(Number(name))
  }
  const below = (parent: number): number[] =>
    (children.get(parent) ?? []).flatMap((child) => [child, ...below(child)])
  return below(pid)
}

/** Processes whose environment names the text, wherever they belong by now. */
export function naming(text: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return []
    try {
      return readFileSync(`/proc/${name}/environ`, 'latin1').includes(text) ? [Number(name)] : []
    } catch {
      return [] // it ended meanwhile, or is another user's
    }
  })
}

/** Empty when it has ended. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

/** The processes of an executor manager that run functions: whatever stands between the two, they
 * are the last of their line. */
export function workersOf(executorManager: number): number[] {
  const all = descendants(executorManager)
  const parents = new Set(all.map((pid) => statusOf(pid)?.parent))
  return all.filter((pid) => !parents.has(pid))
}

export function signal(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

/** Ends processes for good, stopped ones too. */
export async function end(pids: readonly number[]): Promise<void> {
  signal(pids, 'SIGKILL')
  await until('processes that were killed are gone', () => !pids.some(isAlive))
}

/** Open files, sockets among them. */
export function countDescriptors(pid: number): { all: number; sockets: number; memfds: number } {
  const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return {
    all: targets.length,
    sockets: targets.filter((target) => target.startsWith('socket:')).length,
    memfds: targets.filter((target) => target.startsWith('/memfd:')).length,
  }
}

/** Memory that is a process's own: no files, no shared memory. */
export function anonymousBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^RssAnon:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024
}

/** Asks until it is so; throws when it is not within `withinMs`. Returns how long it took. */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  withinMs = 30_000,
): Promise<number> {
  const began = performance.now()
  for (;;) {
    if (await isSo()) return performance.now() - began
    if (performance.now() - began > withinMs) {
      throw new Error(`not within ${withinMs} ms: ${what}`)
    }
    await sleep(5)
  }
}
