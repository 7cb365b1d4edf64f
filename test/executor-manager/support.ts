// What the tests of the executor manager share: a resource manager and a node on free ports, leases,
// packages, and raw HTTP with any token and body.
import { execFileSync } from 'node:child_process'
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { events, request, type ServerEvent } from '../../lib/control/http.js'
import { createLogger } from '../../lib/control/log.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import { createServer } from '../../lib/control/server.js'
import {
  ExecutorInfo,
  LeaseGrant,
  LeaseInfo,
  type ExecutorRequest,
  type LeaseClaims,
  type LeaseClosed,
  type LeasePart,
  type LeaseRequest,
  type RevokingEvent,
} from '../../lib/control/schemas.js'
import { signToken } from '../../lib/control/token.js'
import {
  startExecutorManager,
  type ExecutorManagerOptions,
  type RunningExecutorManager,
} from '../../executor-manager/src/index.js'
import {
  startResourceManager,
  type RunningResourceManager,
} from '../../resource-manager/src/index.js'

export const MiB = 2 ** 20
const cleanups: (() => void | Promise<void>)[] = []
const silent = createLogger({ name: 'test', level: 'silent' })

/** For afterEach: undoes everything in reverse order. */
export async function cleanUp(): Promise<void> {
  for (const undo of cleanups.splice(0).reverse()) await undo()
}

export function onCleanUp(undo: () => void | Promise<void>): void {
  cleanups.push(undo)
}

export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-em-'))
  onCleanUp(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export async function startNode(
  resourceManager: string,
  options: ExecutorManagerOptions = {},
): Promise<RunningExecutorManager> {
  const manager = await startExecutorManager({
    port: 0,
    name: 'node-1',
    resourceManager,
    dataDir: temporaryDirectory(),
    runtimeDir: temporaryDirectory(),
    graceMs: 300,
    // Tests count processes.
    pool: 0,
    logger: silent,
    ...options,
  })
  onCleanUp(() => manager.close())
  return manager
}

export interface Cluster {
  resourceManager: RunningResourceManager
  node: RunningExecutorManager
}

export async function startCluster(options: ExecutorManagerOptions = {}): Promise<Cluster> {
  const resourceManager = await startResourceManager({
    port: 0,
    dataDir: temporaryDirectory(),
    heartbeatMs: 100,
    logger: silent,
  })
  onCleanUp(() => resourceManager.close())
  return { resourceManager, node: await startNode(resourceManager.url, options) }
}

/** A lease on the cluster's only node. */
export async function grant(
  cluster: Cluster,
  wanted: Partial<LeaseRequest> = {},
): Promise<{ lease: LeaseInfo; part: LeasePart; token: string }> {
  const { lease, tokens } = await request(`${cluster.resourceManager.url}/v1/leases`, {
    method: 'POST',
    body: { cores: 1, memoryBytes: 64 * MiB, durationMs: 60_000, ...wanted },
    schema: LeaseGrant,
  })
  return { lease, part: lease.parts[0]!, token: tokens[0]! }
}

export function leaseInfo(cluster: Cluster, id: string): Promise<LeaseInfo> {
  return request(`${cluster.resourceManager.url}/v1/leases/${id}`, { schema: LeaseInfo })
}

// ── a resource manager that can be told what to say ─────────────────────────────────────────────

export interface ScriptedManager {
  url: string
  privateKey: KeyObject
  registrations: { leases: string[]; name: string }[]
  heartbeats: string[][]
  closed: { lease: string; used: LeaseClosed }[]
  active: string[]
  /** The notices with which the node said that it ends. */
  leaving: number[]
  /** Answered to registrations: the highest epoch, and the leases that are live on the node. */
  epoch: number
  live: string[]
  /** Answered to heartbeats. */
  end: string[]
  revoking: RevokingEvent[]
  /** By how much its clock differs from that of this machine. */
  aheadMs: number
  /** Answers of /closed and /active: an HTTP status. */
  status: number
  forgotten: boolean
  streams: EventStream[]
  token(claims?: Partial<LeaseClaims>): string
  close(): Promise<void>
}

/** The resource manager's protocol, with every answer in the hands of the test. */
export async function scriptManager(
  port = 0,
  keys = generateKeyPairSync('ed25519'),
): Promise<ScriptedManager> {
  const server = await createServer({
    title: 'script',
    logger: silent,
    // Its routes are no operations.
    hasSessions: () => false,
  })
  const manager: ScriptedManager = {
    url: '',
    privateKey: keys.privateKey,
    registrations: [],
    heartbeats: [],
    closed: [],
    active: [],
    leaving: [],
    epoch: 0,
    live: [],
    end: [],
    revoking: [],
    aheadMs: 0,
    status: 204,
    forgotten: false,
    streams: [],
    token: (claims) => signToken({ ...claimsOf(), ...claims }, keys.privateKey),
    close: () => server.close(),
  }
  const { app } = server
  const publicKey = keys.publicKey.export({ type: 'spki', format: 'pem' }) as string
  app.post('/v1/nodes', (call) => {
    manager.registrations.push(call.body as ScriptedManager['registrations'][number])
    manager.forgotten = false
    const { epoch, live, aheadMs } = manager
    const orders = { nowMs: Date.now() + aheadMs, end: [], revoking: [] }
    return { publicKey, heartbeatMs: 50, epoch, live, ...orders }
  })
  app.post('/v1/nodes/:name/heartbeat', async (call, reply) => {
    if (manager.forgotten) {
      return reply
        .status(404)
        .send({ error: { code: 'ERR_RFAAS_NOT_FOUND', message: 'no such node' } })
    }
    manager.heartbeats.push((call.body as { leases: string[] }).leases)
    const { end, revoking, aheadMs } = manager
    return { nowMs: Date.now() + aheadMs, end, revoking }
  })
  app.post('/v1/nodes/:name/leave', async (call, reply) => {
    manager.leaving.push((call.body as { noticeMs: number }).noticeMs)
    return reply.status(204).send(null)
  })
  server.operation({
    method: 'GET',
    path: '/v1/nodes/:name/events',
    summary: 'events',
    answersEvents: true,
    handle: ({ events }) => void manager.streams.push(events()),
  })
  app.post('/v1/nodes/:name/leases/:id/closed', async (call, reply) => {
    const { id } = call.params as { id: string }
    manager.closed.push({ lease: id, used: call.body as LeaseClosed })
    return reply.status(manager.status).send(null)
  })
  app.post('/v1/nodes/:name/leases/:id/active', async (call, reply) => {
    manager.active.push((call.params as { id: string }).id)
    return reply.status(manager.status).send(null)
  })
  manager.url = await server.listen('127.0.0.1', port)
  onCleanUp(() => server.close())
  return manager
}

export function claimsOf(): LeaseClaims {
  return {
    lease: 'l-1',
    tenant: 'default',
    node: 'node-1',
    cores: [0],
    memoryBytes: 64 * MiB,
    epoch: 1,
    expiresAtMs: Date.now() + 60_000,
  }
}

/** An HTTP answer as it is: its status, and the error in it. */
export async function answer(
  url: string,
  method: string,
  path: string,
  options: { token?: string | undefined; body?: unknown } = {},
): Promise<{ status: number; code?: string; field?: string; message?: string }> {
  const json = options.body !== undefined
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      ...(options.token !== undefined && { authorization: `Bearer ${options.token}` }),
      ...(json && { 'content-type': 'application/json' }),
    },
    ...(json && { body: JSON.stringify(options.body) }),
  })
  const text = await response.text()
  const { error } = (text === '' ? {} : JSON.parse(text)) as { error?: object }
  return { status: response.status, ...error }
}

// ── clients ─────────────────────────────────────────────────────────────────────────────────────

export const small = {
  provider: 'shm',
  slots: 2,
  payloadBytes: 4096,
  outputBytes: 4096,
  hotTimeoutMs: 0,
} as const

export async function upload(url: string, token: string, code: Buffer | string): Promise<string> {
  const bytes = Buffer.from(code)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  await request(`${url}/v1/code/${sha256}`, { method: 'PUT', body: bytes, token })
  return sha256
}

export async function startExecutor(
  url: string,
  token: string,
  code: Buffer | string,
  { timeoutMs = 20_000, ...settings }: Partial<ExecutorRequest> & { timeoutMs?: number } = {},
): Promise<ExecutorInfo> {
  const body = { runtime: 'node', ...small, ...settings, package: await upload(url, token, code) }
  return request(`${url}/v1/executors`, {
    method: 'POST',
    body,
    token,
    schema: ExecutorInfo,
    timeoutMs,
  })
}

/** The lease's events, collected; `next(name)` waits for the first that was not handed out yet. */
export function listen(url: string, lease: string, token: string) {
  const stop = new AbortController()
  onCleanUp(() => stop.abort())
  const seen: ServerEvent[] = []
  const arrivals = new EventEmitter()
  const done = (async () => {
    for await (const event of events(`${url}/v1/leases/${lease}/events`, {
      token,
      signal: stop.signal,
    })) {
      seen.push(event)
      arrivals.emit('event')
    }
  })()
  return {
    done,
    async next<T>(name: string): Promise<T> {
      for (;;) {
        const index = seen.findIndex(({ event }) => event === name)
        if (index >= 0) return seen.splice(index, 1)[0]?.data as T
        await once(arrivals, 'event')
      }
    },
  }
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────

/** Worker processes below `parent`, by what the kernel says. */
export function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => parentOf(pid) === parent)
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return state === 'Z' ? undefined : Number(parent)
  } catch {
    return undefined // it ended meanwhile
  }
}

export async function eventually<T>(
  probe: () => T | Promise<T>,
  what: string,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + 15_000
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== null && value !== false) return value as NonNullable<T>
    if (performance.now() > deadline) throw new Error(`did not happen within 15 s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** A shared library of functions, compiled from C++. */
export function nativePackage(source: string): Buffer {
  const folder = temporaryDirectory()
  writeFileSync(join(folder, 'p.cc'), source)
  const include = join(import.meta.dirname, '../../native/include')
  const output = join(folder, 'p.so')
  execFileSync('c++', [
    '-O1',
    '-shared',
    '-fPIC',
    '-I',
    include,
    '-o',
    output,
    join(folder, 'p.cc'),
  ])
  return readFileSync(output)
}

export function exists(pid: number): boolean {
  return existsSync(`/proc/${pid}`)
}
