// CPU time of processes that run, from the kernel and never from a worker: it runs tenants' code. What
// those that have ended used is known from their end (child.ts), and the control group of a lease knows it
// better (cgroups.ts).
import { readFileSync } from 'node:fs'

// USER_HZ: 100 on every architecture that Node runs on.
const tickMs = 10

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
