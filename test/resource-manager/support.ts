// What the tests of the resource manager share: a manager on a free port with a directory of its own,
// a client, and a node that speaks the protocol over HTTP.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { events, request } from '../../lib/control/http.js'
import { createLogger } from '../../lib/control/log.js'
import { UsageReport } from '../../lib/control/report-schemas.js'
import {
  HeartbeatReply,
  LeaseGrant,
  LeaseInfo,
  NodeList,
  NodeWelcome,
  type EndEvent,
  type LeasePart,
  type LeaseRequest,
  type NodeInfo,
  type NodeLeaving,
  type NodeRegistration,
  type RevokingEvent,
} from '../../lib/control/schemas.js'
import {
  startResourceManager,
  type ResourceManagerOptions,
  type RunningResourceManager,
} from '../../resource-manager/src/index.js'

export const MiB = 2 ** 20
const cleanups: (() => void | Promise<void>)[] = []

export function onCleanUp(undo: () => void | Promise<void>): void {
  cleanups.push(undo)
}

/** For afterEach: undoes everything in reverse order. */
export async function cleanUp(): Promise<void> {
  for (const undo of cleanups.splice(0).reverse()) await undo()
}

export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-rm-'))
  cleanups.push(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export async function startManager(
  options: ResourceManagerOptions = {},
): Promise<RunningResourceManager> {
  const manager = await startResourceManager({
    port: 0,
    dataDir: options.dataDir ?? temporaryDirectory(),
    logger: createLogger({ name: 'resource-manager', level: 'silent' }),
    ...options,
  })
  cleanups.push(() => manager.close())
  return manager
}

export const small: LeaseRequest = { cores: 1, memoryBytes: MiB, durationMs: 60_000 }

/** A grant with its first part at hand, which is the only one of a lease on one node. */
export interface Granted extends LeaseGrant {
  part: LeasePart
  token: string
}

function granted(answer: LeaseGrant): Granted {
  return { ...answer, part: answer.lease.parts[0]!, token: answer.tokens[0]! }
}

export async function grant(url: string, wanted: Partial<LeaseRequest> = {}): Promise<Granted> {
  const body = { ...small, ...wanted }
  return granted(await request(`${url}/v1/leases`, { method: 'POST', body, schema: LeaseGrant }))
}

export async function renew(url: string, id: string, durationMs: number): Promise<Granted> {
  const path = `${url}/v1/leases/${id}/renew`
  return granted(await request(path, { method: 'POST', body: { durationMs }, schema: LeaseGrant }))
}

export function release(url: string, id: string): Promise<void> {
  return request(`${url}/v1/leases/${id}`, { method: 'DELETE' })
}

export function lease(url: string, id: string): Promise<LeaseInfo> {
  return request(`${url}/v1/leases/${id}`, { schema: LeaseInfo })
}

export async function usage(url: string): Promise<UsageReport['tenants'][number] | undefined> {
  const report = await request(`${url}/v1/usage`, { schema: UsageReport })
  return report.tenants.find(({ tenant }) => tenant === 'default')
}

export async function nodeInfo(url: string, name: string): Promise<NodeInfo | undefined> {
  const { nodes } = await request(`${url}/v1/nodes`, { schema: NodeList })
  return nodes.find((node) => node.name === name)
}

let registrations = 0

/** Speaks for a node; what it reports is up to the test. */
export class NodeClient {
  readonly registration: NodeRegistration
  /** `end` events in order of arrival. */
  readonly ends: EndEvent[] = []
  readonly revoking: RevokingEvent[] = []
  #url: string
  #reading = new AbortController()

  constructor(url: string, registration: Partial<NodeRegistration> = {}) {
    this.#url = url
    this.registration = {
      name: 'node-a',
      url: 'http://127.0.0.1:7071',
      cores: [0, 1, 2, 3],
      memoryBytes: 1024 * MiB,
      providers: [{ name: 'shm', available: true, reason: '' }],
      hostId: 'host-a',
      sequence: 0,
      leases: [],
      ...registration,
    }
    cleanups.push(() => this.#reading.abort())
  }

  moveTo(url: string): void {
    this.#url = url
  }

  register(changed: Partial<NodeRegistration> = {}): Promise<NodeWelcome> {
    this.registration.sequence = registrations += 1
    const body = { ...this.registration, ...changed }
    return request(`${this.#url}/v1/nodes`, { method: 'POST', body, schema: NodeWelcome })
  }

  async heartbeat(leases: string[] = []): Promise<string[]> {
    const url = `${this.#path}/heartbeat`
    const body = { hostId: this.registration.hostId, leases }
    const reply = await request(url, { method: 'POST', body, schema: HeartbeatReply })
    return reply.end
  }

  leave(noticeMs: number, changed: Partial<NodeLeaving> = {}): Promise<void> {
    const { hostId, sequence } = this.registration
    const body = { hostId, sequence, noticeMs, ...changed }
    return request(`${this.#path}/leave`, { method: 'POST', body })
  }

  active(id: string): Promise<void> {
    return request(`${this.#path}/leases/${id}/active`, { method: 'POST' })
  }

  closed(id: string, heldMs = 0, cpuMs = 0): Promise<void> {
    const body = { heldMs, cpuMs }
    return request(`${this.#path}/leases/${id}/closed`, { method: 'POST', body })
  }

  /** Reads the event stream until the test ends; `ends` fills. Resolves when it is open: what happens from
   * then on is told once. */
  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      const follow = async (): Promise<void> => {
        const options = { signal: this.#reading.signal, onOpen: resolve }
        for await (const { event, data } of events(`${this.#path}/events`, options)) {
          if (event === 'end') this.ends.push(data as EndEvent)
          if (event === 'revoking') this.revoking.push(data as RevokingEvent)
        }
      }
      follow().catch(reject)
    })
  }

  get #path(): string {
    return `${this.#url}/v1/nodes/${this.registration.name}`
  }
}

export async function registeredNode(
  url: string,
  registration: Partial<NodeRegistration> = {},
): Promise<NodeClient> {
  const node = new NodeClient(url, registration)
  await node.register()
  return node
}

export interface ManagerProcess {
  url: string
  child: ChildProcess
  /** The exit code, or the signal that ended it. */
  ended: Promise<number | NodeJS.Signals | null>
  /** Sends the signal and waits for the end. */
  end(signal: NodeJS.Signals): ManagerProcess['ended']
}

// A program that goes on when its manager has failed.
const embedding = `
  import { startResourceManager } from '${new URL('../../dist/resource-manager/src/index.js', import.meta.url).href}'
  const [dataDir, nodeTimeoutMs] = process.argv.slice(1)
  const { url } = await startResourceManager({ port: 0, dataDir, nodeTimeoutMs, logLevel: 'error' })
  console.log(url)`

/** The manager as its own process, or in a program that embeds it; no file that it writes may grow
 * beyond `maxFileKiB`. */
export async function spawnManager(
  dataDir: string,
  {
    args: more = [],
    maxFileKiB,
    embedded = false,
  }: { args?: string[]; maxFileKiB?: number; embedded?: boolean } = {},
): Promise<ManagerProcess> {
  const main = fileURLToPath(new URL('../../dist/resource-manager/src/main.js', import.meta.url))
  const args = embedded
    ? ['--input-type=module', '--eval', embedding, dataDir, '10m']
    : [main, '--port', '0', '--data-dir', dataDir, '--log-level', 'error', ...more]
  // With a handler for the signal, a write beyond the limit fails like one on a full disk.
  const command =
    maxFileKiB === undefined
      ? [process.execPath, ...args]
      : [
          ...['bash', '-c', `ulimit -f ${maxFileKiB}; exec "$@"`, 'bash', process.execPath],
          ...['--import', "data:text/javascript,process.on('SIGXFSZ',()=>{})", ...args],
        ]
  const child = spawn(command[0] ?? '', command.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  const ended = exited.then(([code, by]) => code ?? by)
  const end = (signal: NodeJS.Signals): ManagerProcess['ended'] => {
    child.kill(signal)
    return ended
  }
  cleanups.push(() => end('SIGKILL').then(() => undefined))
  const lines = createInterface({ input: child.stdout })
  const first = await Promise.race([once(lines, 'line'), exited])
  if (typeof first[0] !== 'string') throw new Error(`the manager ended with code ${first[0]}`)
  return { url: first[0], child, ended, end }
}
