// The parent's side of child.ts.
import { type ChildProcess } from 'node:child_process'
import { join } from 'node:path'

import type { Commands, Reply, Request } from './child.js'
import { forkOn } from './cores.js'

export class DriverProcess {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** A process with all of its threads on the client's core. */
  static start(core: number): DriverProcess {
    return new DriverProcess(forkOn([core], join(import.meta.dirname, 'child.js')))
  }

  /** The same with its driver open. */
  static async open(core: number, ask: Commands['open']['ask']): Promise<DriverProcess> {
    const started = DriverProcess.start(core)
    try {
      await started.ask('open', ask)
      return started
    } catch (error) {
      started.kill()
      throw error
    }
  }

  /** Asks one thing at a time. */
  ask<Name extends keyof Commands>(
    command: Name,
    ask: Commands[Name]['ask'],
  ): Promise<Commands[Name]['answer']> {
    return new Promise((resolve, reject) => {
      const child = this.#child
      const settle = (): void => {
        child.off('message', onMessage)
        child.off('exit', onExit)
      }
      const onMessage = (reply: Reply): void => {
        settle()
        if ('answer' in reply) resolve(reply.answer as Commands[Name]['answer'])
        else reject(new Error(reply.failed))
      }
      const onExit = (code: number | null, signal: string | null): void => {
        settle()
        reject(new Error(`the driver's process ended with ${code ?? signal}`))
      }
      child.on('message', onMessage)
      child.on('exit', onExit)
      child.send({ command, ask } as Request, (error) => {
        if (error === null) return
        settle()
        reject(error)
      })
    })
  }

  /** Closes the driver, and ends the process. */
  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.connected) await this.ask('close', null)
    this.kill()
  }

  kill(): void {
    this.#child.kill()
  }
}
