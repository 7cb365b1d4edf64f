// Servers of peers: one process per core, each of which tells its port and ends with its parent.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { forkOn } from '../cores.js'
import type { OpenOptions, Step } from './driver.js'

export interface Servers {
  readonly ports: readonly number[]
  readonly pids: readonly number[]
  close(): Promise<void>
}

/** Starts one on each of the workers' cores. */
export async function startServers(
  name: 'fastify' | 'functions-framework' | 'grpc',
  { workerCores, maxPayloadBytes }: OpenOptions,
  step: Step,
): Promise<Servers> {
  step('begin')
  const servers = await Promise.all(
    workerCores.map((core) => startServer(name, [core], [String(maxPayloadBytes)])),
  )
  step('spawn')
  return {
    ports: servers.map(({ port }) => port),
    pids: servers.map(({ pid }) => pid),
    close: async () => {
      await Promise.all(servers.map((server) => server.close()))
    },
  }
}

/** Starts servers/NAME.js on these cores. */
export async function startServer(
  name: string,
  cores: readonly number[],
  args: readonly string[],
): Promise<{ port: number; pid: number; close(): Promise<void> }> {
  const child = forkOn(cores, join(import.meta.dirname, 'servers', `${name}.js`), args)
  return {
    port: await portOf(child),
    pid: child.pid!,
    close: async () => {
      const exited = once(child, 'exit')
      child.disconnect()
      await exited
    },
  }
}

async function portOf(child: ChildProcess): Promise<number> {
  const failed = once(child, 'exit').then(([code]) => {
    throw new Error(`a server ended with ${String(code)} before it listened`)
  })
  const [port] = (await Promise.race([once(child, 'message'), failed])) as [number]
  failed.catch(() => undefined)
  return port
}
