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

/** Starts servers/NAME-server.js on each of the workers' cores. */
export async function startServers(
  name: 'fastify' | 'functions-framework' | 'grpc',
  { workerCores, maxPayloadBytes }: OpenOptions,
  step: Step,
): Promise<Servers> {
  step('begin')
  const program = join(import.meta.dirname, 'servers', `${name}.js`)
  const children = workerCores.map((core) => forkOn([core], program, [String(maxPayloadBytes)]))
  const ports = await Promise.all(children.map(portOf))
  step('spawn')
  return {
    ports,
    pids: children.map(({ pid }) => pid!),
    close: async () => {
      await Promise.all(
        children.map(async (child) => {
          const exited = once(child, 'exit')
          child.disconnect()
          await exited
        }),
      )
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
