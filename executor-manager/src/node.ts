// What this node has to lend: cores that the kernel lets us use, and memory within every cgroup limit
// above us.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { RfaasError, invalidArgument } from '../../lib/errors.js'

/** `0-3,8,10-11` is 0 1 2 3 8 10 11: the kernel's notation for sets of cores. */
export function parseCoreList(text: string, field = 'cores'): number[] {
  const cores = new Set<number>()
  for (const part of text.trim().split(',')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim())
    const first = Number(match?.[1])
    const last = Number(match?.[2] ?? match?.[1])
    if (match === null || last < first || last > 65535) {
      throw invalidArgument(field, text, 'core ids from 0 to 65535 such as 0-3,8')
    }
    for (let core = first; core <= last; core++) cores.add(core)
  }
  return [...cores].sort((a, b) => a - b)
}

/** Cores that this process may run on: affinity mask and cpuset both narrow it. */
export function allowedCores(status = readFileSync('/proc/self/status', 'utf8')): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1]
  if (list === undefined) {
    throw new RfaasError('ERR_RFAAS_INTERNAL', '/proc/self/status has no Cpus_allowed_list')
  }
  return parseCoreList(list, 'Cpus_allowed_list')
}

/** The cores to lend: all that are allowed, the first `n` of them, or those that were named. */
export function chooseCores(
  wanted: number | string | readonly number[] | undefined,
  allowed: readonly number[] = allowedCores(),
): number[] {
  if (wanted === undefined) return [...allowed]
  if (typeof wanted === 'number') {
    if (!Number.isInteger(wanted) || wanted < 1 || wanted > allowed.length) {
      throw invalidArgument('cores', wanted, `from 1 to ${allowed.length}, what this node has`)
    }
    return allowed.slice(0, wanted)
  }
  const cores = typeof wanted === 'string' ? parseCoreList(wanted) : [...new Set(wanted)]
  const missing = cores.find((core) => !allowed.includes(core))
  if (missing !== undefined) {
    throw invalidArgument('cores', missing, `among ${allowed.join(', ')}, what this node may use`)
  }
  if (cores.length === 0) throw invalidArgument('cores', 'empty', 'at least one core id')
  return cores.sort((a, b) => a - b)
}

/** The least of physical memory and the limits of all cgroups above this process (v2 and v1). */
export function availableMemory(root = '/'): number {
  const meminfo = readFileSync(join(root, 'proc/meminfo'), 'utf8')
  const total = Number(/^MemTotal:\s*(\d+) kB$/m.exec(meminfo)?.[1]) * 1024
  if (!Number.isSafeInteger(total)) {
    throw new RfaasError('ERR_RFAAS_INTERNAL', '/proc/meminfo has no MemTotal')
  }
  return Math.min(total, ...cgroupLimits(root))
}

function cgroupLimits(root: string): number[] {
  const limits: number[] = []
  for (const line of (read(join(root, 'proc/self/cgroup')) ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (controllers === undefined || path === undefined) continue
    const unified = controllers === ''
    if (!unified && !controllers.split(',').includes('memory')) continue
    const mount = join(root, 'sys/fs/cgroup', unified ? '' : 'memory')
    const file = unified ? 'memory.max' : 'memory.limit_in_bytes'
    // In a container the path may be the host's while the mount shows only our part of the tree:
    // what does not exist there sets no limit, the root of the mount is always looked at.
    const parts = path.split('/').filter((part) => part !== '' && part !== '..')
    for (let depth = parts.length; depth >= 0; depth--) {
      const text = read(join(mount, ...parts.slice(0, depth), file))?.trim()
      // v1 writes "no limit" as a number near 2^63.
      const limit = text === undefined || text === 'max' ? Number.NaN : Number(text)
      if (Number.isSafeInteger(limit) && limit > 0) limits.push(limit)
    }
  }
  return limits
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
