// What processes use, from /proc.
import { readdirSync, readFileSync } from 'node:fs'

/** CPU time of all threads that live, in ns. */
export function cpuNs(pid: number): number {
  let sum = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    } catch {
      // The thread has ended meanwhile.
    }
  }
  return sum
}

/** CPU time of this process. Of a thread that runs /proc knows what it had used at its last tick, this
 * what it has used now. */
export function ownCpuNs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) * 1000
}

/** Memory that no other process shares, in bytes. */
export function unsharedBytes(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const kilobytes = [...rollup.matchAll(/^Private_(?:Clean|Dirty|Hugetlb):\s+(\d+) kB/gm)]
  return kilobytes.reduce((sum, [, kB]) => sum + Number(kB) * 1024, 0)
}

/** The living processes that `pid` started, directly or not. */
export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    let stat: string
    try {
      stat = readFileSync(`/proc/${entry}/stat`, 'utf8')
    } catch {
      continue // ended meanwhile
    }
    // The name in brackets may contain anything: fields count from behind it.
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (state === 'Z') continue
    const list = children.get(Number(parent)) ?? []
    list.push(Number(entry))
    children.set(Number(parent), list)
  }
  const found: number[] = []
  for (let next = children.get(pid) ?? []; next.length > 0;) {
    found.push(...next)
    next = next.flatMap((one) => children.get(one) ?? [])
  }
  return found
}

/** The same of several processes; those that have ended count as nothing. */
export function cpuNsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    try {
      return sum + cpuNs(pid)
    } catch {
      return sum // ended meanwhile
    }
  }, 0)
}
