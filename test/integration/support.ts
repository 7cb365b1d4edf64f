// A cluster for a test: the managers in this process, real workers.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import {
  startExecutorManager,
  type ExecutorManagerOptions,
  type RunningExecutorManager,
} from '../../executor-manager/src/index.js'
import {
  startResourceManager,
  type ResourceManagerOptions,
} from '../../resource-manager/src/index.js'
import { Client, type DeployOptions } from '../../lib/index.js'

const root = join(import.meta.dirname, '..', '..')

/** What the calls of these tests travel over: shm, or verbs where that is required. */
export const provider: 'shm' | 'verbs' = process.env['RFAAS_REQUIRE'] === 'verbs' ? 'verbs' : 'shm'

/** A lease that ends soon, but not before a package is deployed: an emulated machine takes its time. */
export const soonMs = provider === 'verbs' ? 20_000 : 2000

export const deployOptions: DeployOptions = { provider, payload: '64KiB', output: '64KiB' }

export const nodePackage = join(import.meta.dirname, 'packages', 'faults.mjs')

export interface Cluster {
  url: string
  executorManagerUrl: string
  executorManagers: readonly RunningExecutorManager[]
  dataDir: string
  client: Client
  /** Everything, in any order. Idempotent. */
  stop(): Promise<void>
}

export interface ClusterOptions {
  resourceManager?: ResourceManagerOptions
  executorManager?: ExecutorManagerOptions
  /** Options of each node instead: `node-1`, `node-2` … Default: one with two cores. */
  nodes?: readonly ExecutorManagerOptions[]
}

export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const dataDir = mkdtempSync(join(tmpdir(), 'rfaas-cluster-'))
  const resourceManager = await startResourceManager({
    port: 0,
    dataDir: join(dataDir, 'resource-manager'),
    heartbeatMs: 200,
    // An emulated machine may not come to a heartbeat for a while.
    nodeTimeoutMs: 20_000,
    logLevel: 'silent',
    ...options.resourceManager,
  })
  const executorManagers: RunningExecutorManager[] = []
  for (const node of options.nodes ?? [{ cores: 2 }]) {
    const name = `node-${executorManagers.length + 1}`
    executorManagers.push(
      await startExecutorManager({
        port: 0,
        resourceManager: resourceManager.url,
        name,
        dataDir: join(dataDir, name),
        logLevel: 'silent',
        // Tests count processes.
        pool: 0,
        ...node,
        ...options.executorManager,
      }),
    )
  }
  const client = await Client.connect(resourceManager.url)
  // A node registers when it finds the resource manager; nobody waits for it but us.
  while ((await client.nodes()).length < executorManagers.length) await sleep(10)
  return {
    url: resourceManager.url,
    executorManagerUrl: executorManagers[0]!.url,
    executorManagers,
    dataDir,
    client,
    async stop() {
      await client.close()
      await Promise.all(executorManagers.map((manager) => manager.close()))
      await resourceManager.close()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

let nativePackagePath: string | undefined

/** Compiles packages/faults.cc, once per test process. */
export function nativePackage(): string {
  if (nativePackagePath === undefined) {
    const folder = join(root, 'build', 'test-packages')
    mkdirSync(folder, { recursive: true })
    // Its own name: other test processes compile it at the same time.
    const path = join(folder, `faults-${process.pid}.so`)
    const source = join(import.meta.dirname, 'packages', 'faults.cc')
    const include = join(root, 'native', 'include')
    const flags = ['-std=c++20', '-O1', '-shared', '-fPIC', '-I', include]
    execFileSync(process.env['CXX'] ?? 'c++', [...flags, '-o', path, source])
    process.once('exit', () => rmSync(path, { force: true }))
    nativePackagePath = path
  }
  return nativePackagePath
}

export const legacyPackage = (): string => {
  execFileSync(process.execPath, [join(root, 'examples', 'build.mjs')])
  return join(root, 'build', 'examples', 'rfaas-legacy.so')
}

export const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

/** The input of `sleep_ms`. */
export const sleeps = (ms: number): Uint8Array => new Uint8Array(Uint32Array.of(ms).buffer)

/** The input of `mark`: adds a byte to `path`, then sleeps. */
export const marks = (path: string, ms = 0): Uint8Array =>
  Buffer.concat([sleeps(ms), Buffer.from(path)])

/** How often `mark` ran with this path. */
export const marksIn = (path: string): number => (existsSync(path) ? statSync(path).size : 0)

/** `length` bytes that look alike in no two places. */
export function pattern(length: number, seed = 1): Uint8Array {
  const out = new Uint8Array(length)
  let state = seed
  for (let i = 0; i < length; ++i) {
    state = (state * 1103515245 + 12345) & 0x7fffffff
    out[i] = state >> 16
  }
  return out
}
