// CPU time of worker processes, from the kernel and never from the worker: it runs tenants' code. The
// control group of a lease knows it better (cgroups.ts); this is for hosts where there is none.
//
// Node has no wait4(), so the CPU time that a process used is gone with its exit status. Two kernel
// figures together lose nothing. While a worker lives, its launcher and what is below are sampled in
// /proc/PID/stat. When it has ended, the kernel has added its whole CPU time, to the tick, to cutime and
// cstime of this process: what they grew by is what the workers that ended since then used, however
// short they lived. When several end at once, what their last samples do not explain is shared out
// evenly.
//
// This process may have other children (it may be a program that embeds the manager). So a worker is
// never charged more beyond its last sample than all cores could have given it since then. What a
// worker leaves behind is waited for by its init, and so it is counted, too.
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

// USER_HZ: 100 on every architecture that Node runs on.
const tickMs = 10
const sampleIntervalMs = 250

interface Account {
  pid: number
  sampledMs: number
  sampledAt: number
}

interface Ended extends Account {
  settle: (cpuMs: number) => void
}

/** CPU time of a process, of the children that it has waited for, and of those that still run. */
export function processCpuMs(pid: number): number | undefined {
  // Parents first: a child that is waited for meanwhile is missed until the next look, and not
  // counted twice.
  const times = readTimes(`/proc/${pid}/stat`)
  if (times === undefined) return undefined
  let sum = times.own + times.children
  for (const child of childrenOf(pid)) sum += processCpuMs(child) ?? 0
  return sum
}

/** One per process, because cutime and cstime are. */
class CpuMeter {
  readonly #running = new Map<number, Account>()
  #ended: Ended[] = []
  #childrenMs = 0
  #timer: NodeJS.Timeout | undefined

  /** From the moment that it was started. */
  watch(pid: number): void {
    if (this.#running.size === 0 && this.#ended.length === 0) {
      this.#childrenMs = childrenCpuMs()
      this.#timer = setInterval(() => this.#sampleAll(), sampleIntervalMs)
      this.#timer.unref()
    }
    this.#running.set(pid, { pid, sampledMs: 0, sampledAt: performance.now() })
  }

  /** What a running worker has used so far. */
  current(pid: number): number {
    const account = this.#running.get(pid)
    if (account === undefined) return 0
    this.#sample(account)
    return account.sampledMs
  }

  /** Call it from the handler of `exit`: the process has been reaped. Resolves to its whole CPU
   * time, after the other exits that the same turn of the event loop reports. */
  ended(pid: number): Promise<number> {
    const account = this.#running.get(pid)
    if (account === undefined) return Promise.resolve(0)
    this.#running.delete(pid)
    return new Promise((settle) => {
      this.#ended.push({ ...account, settle })
      if (this.#ended.length === 1) setImmediate(() => this.#settle())
    })
  }

  #settle(): void {
    const ended = this.#ended
    this.#ended = []
    const before = this.#childrenMs
    this.#childrenMs = childrenCpuMs()
    const known = ended.reduce((sum, { sampledMs }) => sum + sampledMs, 0)
    const unknown = Math.max(0, this.#childrenMs - before - known)
    const now = performance.now()
    for (const { sampledMs, sampledAt, settle } of ended) {
      const most = (now - sampledAt) * availableParallelism() + tickMs
      settle(Math.round(sampledMs + Math.min(unknown / ended.length, most)))
    }
    if (this.#running.size === 0 && this.#ended.length === 0) clearInterval(this.#timer)
  }

  #sampleAll(): void {
    for (const account of this.#running.values()) this.#sample(account)
  }

  #sample(account: Account): void {
    const cpuMs = processCpuMs(account.pid)
    if (cpuMs === undefined) return
    account.sampledMs = Math.max(account.sampledMs, cpuMs)
    account.sampledAt = performance.now()
  }
}

export const cpuMeter = new CpuMeter()

/** Those that its first thread has started. */
function childrenOf(pid: number): number[] {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
  } catch {
    return []
  }
  return text.split(' ').flatMap((child) => (child === '' ? [] : [Number(child)]))
}

function childrenCpuMs(): number {
  return readTimes('/proc/self/stat')?.children ?? 0
}

function readTimes(path: string): { own: number; children: number } | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
  // proc(5): the second field is the program's name in parentheses and may contain anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [utime, stime, cutime, cstime] = fields.slice(11, 15).map((field) => Number(field) * tickMs)
  if (utime === undefined || stime === undefined) return undefined
  return { own: utime + stime, children: (cutime ?? 0) + (cstime ?? 0) }
}
