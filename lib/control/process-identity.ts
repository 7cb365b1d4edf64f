// Who owns a file that outlives its process. A process id is used again, its start time in this boot is
// not: what names both never means another process.
import { readFileSync } from 'node:fs'
import { Type, type Static } from 'typebox'

export const ProcessIdentity = Type.Object({
  pid: Type.Integer(),
  startTicks: Type.String(),
  bootId: Type.String(),
})
export type ProcessIdentity = Static<typeof ProcessIdentity>

export function thisProcess(): ProcessIdentity {
  return { pid: process.pid, startTicks: startTicks(process.pid) ?? '', bootId: bootId() }
}

export function isRunning(owner: ProcessIdentity): boolean {
  return owner.bootId === bootId() && startTicks(owner.pid) === owner.startTicks
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** Field 22 of /proc/<pid>/stat; undefined when there is no such process, or only its zombie. */
function startTicks(pid: number): string | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The second field is the program's name in parentheses and may itself contain any of both.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : fields[19]
}
