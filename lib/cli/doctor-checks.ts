// What `rfaas doctor` looks at. Every check names what it found and what to change.
import { constants } from 'node:fs'
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { packageRoot } from '../package-root.js'
import { formatBytes } from '../units.js'

/** ok: fine. note: something is not possible or slower. failed: rfaas cannot work like this. */
export type Verdict = 'ok' | 'note' | 'failed'

export interface Finding {
  name: string
  verdict: Verdict
  found: string
  /** What to do about it. */
  change?: string
}

const minMemlockBytes = 64 * 2 ** 20
const probeBytes = 64 * 2 ** 20
const probeTimeoutMs = 5000
const oldestNode = [20, 17] as const
const rdmaCore = ['ib_core', 'ib_uverbs', 'rdma_cm', 'rdma_ucm']
const softRdma = ['rdma_rxe', 'siw']

// ── the embedded default ──────────────────────────────────────────────────────────────────────

export async function checkDefault(): Promise<Finding[]> {
  return [
    checkNode(),
    ...(await checkAddon()),
    await checkWorkers(),
    ...(await checkCoresAndMemory()),
  ]
}

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const [needMajor, needMinor] = oldestNode
  const fine = major > needMajor || (major === needMajor && minor >= needMinor)
  return {
    name: 'Node.js',
    verdict: fine ? 'ok' : 'failed',
    found: `${process.version} on ${process.platform} ${process.arch}`,
    ...(fine ? {} : { change: `install Node.js ${needMajor}.${needMinor} or newer` }),
  }
}

async function checkAddon(): Promise<Finding[]> {
  try {
    const { native } = await import('../native.js')
    const shm = native.providers().find(({ name }) => name === 'shm')
    const loaded: Finding = { name: 'native addon', verdict: 'ok', found: 'loads' }
    if (shm?.available === true) return [loaded, await probeSharedMemory()]
    const found = `cannot be used: ${shm?.reason ?? 'this build does not have it'}`
    return [loaded, { name: 'shared memory', verdict: 'failed', found }]
  } catch (error) {
    const [found = '', ...advice] = messageOf(error).split('\n')
    return [
      {
        name: 'native addon',
        verdict: 'failed',
        found,
        change: advice.filter((line) => line.startsWith('- ') || line.startsWith('  ')).join('\n'),
      },
    ]
  }
}

async function probeSharedMemory(): Promise<Finding> {
  const name = 'shared memory'
  let folder: string | undefined
  try {
    folder = await mkdtemp(join(tmpdir(), 'rfaas-doctor-'))
    return { name, ...(await writeThroughSharedMemory(folder)) }
  } catch (error) {
    return {
      name,
      verdict: 'failed',
      found: messageOf(error),
      change: `needs memfd_create, UNIX sockets in ${tmpdir()} and ${formatBytes(probeBytes)} of free memory`,
    }
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  }
}

/** Does what a call does: registers memory, connects, writes from one region into another. */
async function writeThroughSharedMemory(folder: string): Promise<Omit<Finding, 'name'>> {
  const { openDevice } = await import('../fabric/index.js')
  const devices = [openDevice({ provider: 'shm' }), openDevice({ provider: 'shm' })] as const
  try {
    const [near, far] = devices
    const source = near.allocate(64)
    const target = far.allocate(probeBytes, { remoteWrite: true })
    const queues = devices.map((device) => device.createCompletionQueue(256))
    const [nearQueue, farQueue] = queues
    if (nearQueue === undefined || farQueue === undefined) throw new Error('no completion queue')
    const listener = far.listen(join(folder, 'socket'))
    const [pair] = await Promise.all([
      near.connect(listener.address, { completionQueue: nearQueue, timeoutMs: probeTimeoutMs }),
      listener
        .next({ timeoutMs: probeTimeoutMs })
        .then((request) =>
          request.accept({ completionQueue: farQueue, timeoutMs: probeTimeoutMs }),
        ),
    ])
    source.bytes().fill(0x5a)
    const start = performance.now()
    pair.write({ id: 1, local: source.bytes(), remote: target.remoteKey, remoteOffset: 0 })
    const [completion] = await nearQueue.wait({ timeoutMs: probeTimeoutMs })
    const elapsedUs = ((performance.now() - start) * 1000).toFixed(0)
    const last = target.bytes(63, 1)[0]
    if (completion?.status !== 'success' || last !== 0x5a) {
      const found = `a write between two queue pairs ended with ${completion?.status ?? 'nothing'}`
      return { verdict: 'failed', found }
    }
    const found = `a write into ${formatBytes(probeBytes)} of sealed memory arrived (${elapsedUs} µs)`
    return { verdict: 'ok', found }
  } finally {
    for (const device of devices) device.close()
  }
}

async function checkWorkers(): Promise<Finding> {
  const name = 'workers'
  const root = packageRoot()
  const missing: string[] = []
  for (const [runtime, file] of [
    ['native', 'build/Release/rfaas-executor'],
    ['node', 'dist/executor-manager/runtimes/node/worker.js'],
    ['their launcher', 'build/Release/rfaas-sandbox'],
  ] as const) {
    if (!(await mayAccess(join(root, file), constants.R_OK))) missing.push(`${runtime} (${file})`)
  }
  if (missing.length === 0) return { name, verdict: 'ok', found: 'native and node' }
  const found = `not built: ${missing.join(', ')}`
  return {
    name,
    verdict: 'failed',
    found,
    change: 'npm rebuild rfaas; in a working tree: npm run build',
  }
}

async function checkCoresAndMemory(): Promise<Finding[]> {
  const { allowedCores, availableMemory } = await import('../../executor-manager/src/node.js')
  const cores = allowedCores()
  const memory = availableMemory()
  const enough = cores.length > 1
  return [
    {
      name: 'cores',
      verdict: enough ? 'ok' : 'note',
      found: `this process may use ${cores.length}: ${cores.join(', ')}`,
      ...(enough
        ? {}
        : { change: 'caller and worker share it, so calls take milliseconds: use two' }),
    },
    { name: 'memory', verdict: 'ok', found: formatBytes(memory) },
  ]
}

// ── RDMA ──────────────────────────────────────────────────────────────────────────────────────

export async function checkRdma(): Promise<Finding[]> {
  return [
    await checkModules(),
    ...(await checkPorts()),
    await checkDeviceFiles(),
    await checkMemlock(),
    await checkVerbs(),
  ]
}

async function checkModules(): Promise<Finding> {
  const name = 'kernel modules'
  // Drivers that are built in are here, but not in /proc/modules.
  const loaded = new Set(await list('/sys/module'))
  const core = rdmaCore.filter((module) => loaded.has(module))
  const drivers = [...loaded]
    .filter(
      (module) =>
        softRdma.includes(module) ||
        /^(mlx[45]_ib|irdma|bnxt_re|efa|erdma|hfi1|qedr|ocrdma|cxgb4|iw_cxgb4|hns_roce.*|mana_ib|vmw_pvrdma)$/.test(
          module,
        ),
    )
    .sort()
  const missing = rdmaCore.filter((module) => !loaded.has(module))
  if (missing.length === 0 && drivers.length > 0) {
    return { name, verdict: 'ok', found: [...core, ...drivers].join(', ') }
  }
  return {
    name,
    verdict: 'note',
    found: [
      core.length === 0 ? 'none of RDMA' : core.join(', '),
      drivers.length === 0 ? 'no driver of a device' : drivers.join(', '),
    ].join('; '),
    change:
      missing.length === 0
        ? 'for Soft-RoCE, as root: modprobe rdma_rxe'
        : `as root: modprobe -a ${[...missing, ...(drivers.length === 0 ? ['rdma_rxe'] : [])].join(' ')}`,
  }
}

/** Devices, the state of their ports and their GIDs, from sysfs: works without any library. */
async function checkPorts(): Promise<Finding[]> {
  const base = '/sys/class/infiniband'
  const findings: Finding[] = []
  for (const device of await list(base)) {
    for (const port of await list(join(base, device, 'ports'))) {
      const folder = join(base, device, 'ports', port)
      const state = (await text(join(folder, 'state'))).replace(/^\d+:\s*/, '')
      const gids = await gidsOf(folder)
      const active = state === 'ACTIVE'
      findings.push({
        name: `${device} port ${port}`,
        verdict: active && gids.length > 0 ? 'ok' : 'note',
        found: [state || 'unknown state', ...(gids.length > 0 ? gids : ['no GID'])].join('\n'),
        ...(active ? {} : { change: 'bring its network interface up: ip link set <interface> up' }),
      })
    }
  }
  if (findings.length > 0) return findings
  return [
    {
      name: 'devices',
      verdict: 'note',
      found: 'none',
      change: 'for Soft-RoCE, as root: rdma link add rxe0 type rxe netdev <interface>',
    },
  ]
}

async function gidsOf(port: string): Promise<string[]> {
  const gids: string[] = []
  const indices = (await list(join(port, 'gids'))).map(Number).sort((a, b) => a - b)
  for (const index of indices) {
    const gid = await text(join(port, 'gids', String(index)))
    if (/^[0:]*$/.test(gid) || /^fe80(:0000){7}$/.test(gid)) continue
    const type = await text(join(port, 'gid_attrs', 'types', String(index)))
    gids.push(`GID ${index}: ${gid}${type === '' ? '' : ` (${type})`}`)
  }
  return gids
}

async function checkDeviceFiles(): Promise<Finding> {
  const name = '/dev/infiniband'
  const files = (await list('/dev/infiniband')).filter((file) => /^(uverbs\d+|rdma_cm)$/.test(file))
  const closed: string[] = []
  for (const file of files) {
    const usable = await mayAccess(join('/dev/infiniband', file), constants.R_OK | constants.W_OK)
    if (!usable) closed.push(file)
  }
  const change = 'as root: modprobe -a ib_uverbs rdma_ucm; in a container: --device /dev/infiniband'
  if (files.length === 0) return { name, verdict: 'note', found: 'missing', change }
  if (closed.length > 0) {
    const found = `this user may not use ${closed.join(', ')}`
    return { name, verdict: 'note', found, change: 'join the group that owns them (often rdma)' }
  }
  const whole = files.includes('rdma_cm') && files.length > 1
  const found = `${files.join(', ')} can be opened`
  return whole ? { name, verdict: 'ok', found } : { name, verdict: 'note', found, change }
}

/** RDMA pins the memory that it registers; shared memory does not. */
async function checkMemlock(): Promise<Finding> {
  const name = 'locked memory'
  const limit = /^Max locked memory\s+(\S+)/m.exec(await text('/proc/self/limits'))?.[1] ?? ''
  const capabilities = /^CapEff:\s*(\S+)/m.exec(await text('/proc/self/status'))?.[1] ?? '0'
  const mayLockAll = (BigInt(`0x${capabilities}`) >> 14n) % 2n === 1n // CAP_IPC_LOCK
  if (limit === 'unlimited') return { name, verdict: 'ok', found: 'unlimited' }
  const limitBytes = Number(limit)
  if (mayLockAll) {
    const found = `limit ${formatBytes(limitBytes)}, which does not bind this user (CAP_IPC_LOCK)`
    return { name, verdict: 'ok', found }
  }
  const found = `limit ${formatBytes(limitBytes)}`
  if (limitBytes >= minMemlockBytes) return { name, verdict: 'ok', found }
  return {
    name,
    verdict: 'note',
    found,
    change: 'memlock unlimited in /etc/security/limits.d, or LimitMEMLOCK=infinity in the service',
  }
}

async function checkVerbs(): Promise<Finding> {
  const name = 'provider verbs'
  try {
    const { native } = await import('../native.js')
    const verbs = native.providers().find((provider) => provider.name === 'verbs')
    if (verbs?.available === true) {
      const devices = verbs.devices.map((device) => device.name).join(', ')
      return { name, verdict: 'ok', found: `can use ${devices}` }
    }
    return { name, verdict: 'note', found: verbs?.reason ?? 'this build does not have it' }
  } catch {
    return { name, verdict: 'note', found: 'needs the native addon' }
  }
}

// ── reading ───────────────────────────────────────────────────────────────────────────────────

async function mayAccess(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  )
}

/** Empty when it does not exist: that is what is being found out. */
async function text(path: string): Promise<string> {
  return (await readFile(path, 'utf8').catch(() => '')).trim()
}

async function list(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(() => [])).sort()
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
