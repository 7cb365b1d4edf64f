// A node whose executor manager is a process of its own, as root, as another user, or as a root that
// may not make namespaces; and leases on it, of which one is hostile.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

import { Client, type Functions, type Lease } from '../../lib/index.js'
import { startResourceManager } from '../../resource-manager/src/index.js'

const root = join(import.meta.dirname, '..', '..')
const main = join(root, 'dist', 'executor-manager', 'src', 'main.js')
const nobody = 65534

export type Host =
  'root' | 'root with a umask of 077' | 'another user' | 'a root without namespaces'

/** Why the host cannot be had here. */
export function missing(host: Host): string | undefined {
  if (host === 'another user' && process.getuid?.() !== 0) return undefined
  if (process.getuid?.() !== 0) return 'needs root'
  try {
    const prefix = host === 'another user' ? ['--reuid=65534', '--clear-groups'] : []
    execFileSync('setpriv', [...prefix, process.execPath, '-e', `fs.readFileSync('${main}')`])
  } catch (error) {
    return (error as Error).message
  }
  return undefined
}

export interface Node {
  client: Client
  /** Of its executor manager. */
  url: string
  folder: string
  pid: number
  ports: number[]
  /** Names of the layers that the manager says are active. */
  layers: Set<string>
  close(): Promise<void>
}

/** Rejects with what the manager said when it does not start. */
export async function startNode(host: Host, ...flags: string[]): Promise<Node> {
  const folder = mkdtempSync(join(tmpdir(), 'rfaas-confinement-'))
  const resourceManager = await startResourceManager({
    port: 0,
    dataDir: join(folder, 'resource-manager'),
    nodeTimeoutMs: 20_000,
    logLevel: 'silent',
  })
  const own = join(folder, 'node')
  mkdirSync(own)
  const user = host === 'another user' && process.getuid?.() === 0 ? nobody : undefined
  if (user !== undefined) chownSync(own, user, user)
  // Any user has to get to its own folder in there; the keys beside it have folders of their own.
  execFileSync('chmod', ['711', folder])
  const prefixes: Partial<Record<Host, string[]>> = {
    'root with a umask of 077': ['sh', '-c', 'umask 077; exec "$0" "$@"'],
    'a root without namespaces': ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin'],
  }
  const command = [
    ...(prefixes[host] ?? []),
    process.execPath,
    main,
    ...['--port', '0', '--name', 'node-1', '--cores', '2', '--log-level', 'warn'],
    ...['--data-dir', join(own, 'data'), '--runtime-dir', own, '--pool', '0'],
    ...['--resource-manager', resourceManager.url],
    ...flags,
  ]
  const { NODE_EXTRA_CA_CERTS: _slow, ...env } = process.env
  const manager = spawn(command[0] as string, command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...env, HOME: own },
    ...(user !== undefined && { uid: user, gid: user }),
  })
  let said = ''
  manager.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const exited = once(manager, 'close')
  const lines = createInterface({ input: manager.stdout })
  const [url] = (await Promise.race([once(lines, 'line'), exited])) as [unknown]
  if (typeof url !== 'string') {
    await resourceManager.close()
    rmSync(folder, { recursive: true, force: true })
    throw new Error(said)
  }
  const metrics = await metricsOf(url)
  const active = metrics.matchAll(/^rfaas_node_confinement_layer\{layer="(\w+)"\} 1$/gm)
  const client = await Client.connect(resourceManager.url)
  while ((await client.nodes()).length === 0) await sleep(10)
  return {
    client,
    url,
    folder,
    pid: manager.pid ?? 0,
    ports: [url, resourceManager.url].map((each) => Number(new URL(each).port)),
    layers: new Set([...active].map((match) => match[1] as string)),
    async close() {
      await client.close()
      manager.kill('SIGTERM')
      await exited
      await resourceManager.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export async function metricsOf(url: string): Promise<string> {
  return (await fetch(`${url}/metrics`)).text()
}

/** Resolves when the pool is full. */
export async function poolIsFull({ url }: Node, size: number): Promise<void> {
  const isFull = (metrics: string): boolean =>
    ['native', 'node'].every((runtime) =>
      metrics.includes(`\nrfaas_node_pool_workers{runtime="${runtime}"} ${size}\n`),
    )
  while (!isFull(await metricsOf(url))) await sleep(10)
}

export function hostilePackage(folder: string): string {
  const path = join(folder, 'hostile.so')
  const source = join(import.meta.dirname, 'packages', 'hostile.cc')
  const flags = ['-std=c++20', '-O1', '-shared', '-fPIC', '-I', join(root, 'native', 'include')]
  execFileSync(process.env['CXX'] ?? 'c++', [...flags, '-o', path, source])
  return path
}

export const hostileScript = join(import.meta.dirname, 'packages', 'hostile.mjs')

export interface Tenant {
  lease: Lease
  functions: Functions
  /** What the attack answered. */
  attack(name: string, argument?: string | number): Promise<string>
}

export async function deploy(node: Node, path: string, memory = '64MiB'): Promise<Tenant> {
  const lease = await node.client.lease({ cores: 1, memory, duration: '5m' })
  const functions = await lease.deploy(path, { payload: 4096, output: '64KiB', provider: 'shm' })
  const attack = async (name: string, argument: string | number = ''): Promise<string> =>
    Buffer.from(await functions.invoke(name, Buffer.from(String(argument)))).toString()
  return { lease, functions, attack }
}

/** Sockets of the node's workers. */
export function socketsOf(node: Node): string[] {
  const own = join(node.folder, 'node')
  return readdirSync(own)
    .filter((name) => name.startsWith('rfaas-'))
    .flatMap((name) => readdirSync(join(own, name)).map((file) => join(own, name, file)))
    .filter((path) => /\/w-[0-9a-f]+$/.test(path))
}
