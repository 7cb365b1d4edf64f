// What a driver is: one way to have a function called, opened in a process of its own.
import type { FunctionName } from '../functions/functions.js'
import type { Operation } from '../timing.js'

export interface OpenOptions {
  /** Of the resource manager. */
  url: string
  provider: 'shm' | 'verbs'
  /** Where the other side of the call runs: one worker, server or thread on each. */
  workerCores: readonly number[]
  function: FunctionName
  maxPayloadBytes: number
  /** Calls in flight at most. */
  depth: number
  /** The other side has never seen the code. */
  firstTime?: boolean
}

/** Says that a part of opening is over: `lease`, `code`, `spawn`, `connect`. */
export type Step = (name: string) => void

/** A function that can be called. */
export interface Session {
  readonly operation: Operation
  /** From now on an operation sends `input`. */
  use(input: Uint8Array): void
  /** What the last operation brought back. */
  result(): Uint8Array
  /** The processes of the other side, where the driver started them itself. */
  readonly servers: readonly number[]
  close(): Promise<void>
}

export interface Driver {
  readonly description: string
  /** Ours, what a Node user would take instead, or what nobody can do without. */
  readonly kind: 'rfaas' | 'peer' | 'floor'
  open(options: OpenOptions, step: Step): Promise<Session>
}
