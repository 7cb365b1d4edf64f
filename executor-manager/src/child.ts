// A program that this process has started, and its pipes. Instead of node:child_process, which copies the page
// tables of the whole manager and does not say what the program has used: native/addon/child_process.h.
import { Socket } from 'node:net'
import { constants } from 'node:os'

import { native } from '../../lib/native.js'
import type { Program } from './paths.js'

const { spawnPipe, spawnNull } = native.constants

const signalNames = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name]),
)

export interface ChildExit {
  /** Null when it was ended by a signal. */
  code: number | null
  /** For example `SIGKILL`. */
  signal: string | null
  /** Of the program and of all below it that were waited for. */
  cpuMs: number
}

/** How a descriptor of the program is used from here; a number is a descriptor of ours that it gets. */
export type Descriptor = 'read' | 'write' | 'null' | number

export class Child {
  readonly pid: number
  /** By descriptor. An error on one is followed by its end. */
  readonly pipes: readonly (Socket | undefined)[]
  /** Resolves when it has ended. */
  readonly exited: Promise<ChildExit>
  #gone = false

  /** It has no environment but `env`, and begins in the root folder. Throws ERR_RFAAS_EXECUTOR. */
  constructor(
    program: Program,
    env: Readonly<Record<string, string>>,
    wanted: readonly Descriptor[],
  ) {
    let settle!: (exit: ChildExit) => void
    this.exited = new Promise((resolve) => (settle = resolve))
    const { pid, pipes } = native.spawn(
      program.command,
      program.args,
      Object.entries(env).map(([key, value]) => `${key}=${value}`),
      wanted.map(numberOf),
      (code, signal, cpuMs) => {
        this.#gone = true
        settle({ code, signal: signal === null ? null : nameOf(signal), cpuMs })
      },
    )
    this.pid = pid
    this.pipes = pipes.map((fd, index) => (fd === null ? undefined : pipe(fd, wanted[index]!)))
  }

  /** Not after it has ended: its number may be somebody else's by then. */
  kill(): void {
    if (!this.#gone) process.kill(this.pid, 'SIGKILL')
  }
}

function pipe(fd: number, use: Descriptor): Socket {
  const socket = new Socket({ fd, readable: use === 'read', writable: use === 'write' })
  // It has ended, and its exit says why.
  socket.on('error', () => undefined)
  return socket
}

function numberOf(wanted: Descriptor): number {
  if (typeof wanted === 'number') return wanted
  return wanted === 'null' ? spawnNull : spawnPipe
}

function nameOf(signal: number): string {
  return signalNames.get(signal) ?? `signal ${signal}`
}
