// The parent's side of child.ts.
import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'

import type { MeasureRequest, Reply, Request } from './child.js'
import { pin, type Cores } from './cores.js'
import type { DriverOptions } from './drivers/driver.js'
import type { DriverName } from './drivers/index.js'
import type { Round } from './timing.js'

export class DriverProcess {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Starts the driver and keeps its process on the client's core. */
  static async start(
    driver: DriverName,
    cores: Cores,
    options: DriverOptions,
  ): Promise<DriverProcess> {
    const child = fork(join(import.meta.dirname, 'child.js'))
    const started = new DriverProcess(child)
    try {
      await started.#ask({ open: driver, options })
    } catch (error) {
      child.kill()
      throw error
    }
    pin(child.pid!, cores.client)
    return started
  }

  async measure(request: MeasureRequest): Promise<Round> {
    const round = await this.#ask(request)
    if (round === null) throw new Error('the driver measured nothing')
    return round
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.connected) await this.#ask('close')
    this.#child.kill()
  }

  #ask(request: Request): Promise<Round | null> {
    return new Promise((resolve, reject) => {
      const child = this.#child
      const settle = (): void => {
        child.off('message', onMessage)
        child.off('exit', onExit)
      }
      const onMessage = (reply: Reply): void => {
        settle()
        if ('done' in reply) resolve(reply.done)
        else reject(new Error(reply.failed))
      }
      const onExit = (code: number | null, signal: string | null): void => {
        settle()
        reject(new Error(`the driver's process ended with ${code ?? signal}`))
      }
      child.on('message', onMessage)
      child.on('exit', onExit)
      child.send(request, (error) => {
        if (error === null) return
        settle()
        reject(error)
      })
    })
  }
}
